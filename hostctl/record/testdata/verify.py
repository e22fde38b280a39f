"""Checks a record by what doc.go says, with OpenSSL and no code of haulback."""

import json
import pathlib
import subprocess
import sys
import tempfile

text = pathlib.Path(sys.argv[1]).read_bytes()
body, rest = text.rsplit(b',"signature":"', 1)
assert rest.endswith(b'"}\n') and len(rest) == 128 + 3, rest
record = json.loads(text)
with tempfile.TemporaryDirectory() as d:
    d = pathlib.Path(d)
    # RFC 8410: what stands before the 32 bytes of an Ed25519 public key in DER
    (d / "key").write_bytes(bytes.fromhex("302a300506032b6570032100") + bytes.fromhex(record["key"]))
    (d / "message").write_bytes(b"haulback failback record 1" + b"\0" + body)
    (d / "signature").write_bytes(bytes.fromhex(rest[:128].decode()))
    done = subprocess.run(
        ["openssl", "pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-inkey", d / "key", "-rawin", "-in", d / "message", "-sigfile", d / "signature"],
        capture_output=True,
    )
if done.returncode != 0:
    sys.exit("WRONG signature: %s" % done.stderr.decode())
failback = record["failback"]
by = [x["by"] for x in failback["decisions"] if x["what"] == "commit"]
print("good, %s by %s" % (failback["activity"], by[0]))
