#!/usr/bin/python3
"""Reads a stream by the words of doc.go alone and writes the disk it stands for.

usage: judge.py STREAM BASE OUT    BASE: a file, or - for a disk of zeros
BLAKE3 and LZ4 are those of the programs b3sum and lz4.
"""
import struct, subprocess, sys

GRAIN, BATCH = 65536, 1 << 20


def run(argv, data):
    return subprocess.run(argv, input=data, stdout=subprocess.PIPE, check=True).stdout


def blake3(data, *how):
    return bytes.fromhex(run(["b3sum", "--no-names", *how], data).decode().strip())


def unlz4(block, raw):
    # a legacy frame is the easiest envelope of one block
    out = run(["lz4", "-d", "-c", "-q"], struct.pack("<II", 0x184C2102, len(block)) + block)
    assert len(out) == raw, "LZ4 block of another length"
    return out


def derive(context, data):
    return blake3(data, "--derive-key", context)


stream = open(sys.argv[1], "rb").read()
assert stream[:8] == bytes.fromhex("894842410d0a1a0a"), "magic"
at, last, frames = 8, bytes(32), []
while at < len(stream):
    kind, z1, z2, z3, n, p = struct.unpack(">BBBBII", stream[at:at + 12])
    assert (z1, z2, z3) == (0, 0, 0) and n <= 128 << 10 and p <= BATCH, "frame"
    head, total = stream[at + 12:at + 12 + n], stream[at + 12 + n:at + 44 + n]
    assert derive("haulback 2026 archive v1", last + stream[at:at + 12 + n]) == total, "sum"
    last = total
    frames.append((kind, head, stream[at + 44 + n:at + 44 + n + p]))
    at += 44 + n + p
assert at == len(stream), "cut"

kind, head, _ = frames.pop(0)
assert kind == 1
version, what, zero, grain, size, created = struct.unpack(">HBBIQQ", head[:24])
run_id, base_root, base_run = head[24:40], head[40:72], head[72:88]
counts = struct.unpack(">QQQQ", head[88:120])
texts, rest = [], head[120:]
for i in range(5):
    n = struct.unpack(">H", rest[:2])[0]
    texts.append(rest[2:2 + n].decode())
    rest = rest[2 + n:]
labels, rest = rest[0], rest[1:]
for i in range(2 * labels):
    n = struct.unpack(">H", rest[:2])[0]
    texts.append(rest[2:2 + n].decode())
    rest = rest[2 + n:]
assert (version, zero, grain, rest) == (1, 0, GRAIN, b""), "header"
assert (what == 1) == (base_root + base_run == bytes(48)), "base"

maps = {2: [], 3: []}
while frames[0][0] in maps:
    kind, head, _ = frames.pop(0)
    maps[kind] += [struct.unpack(">QQ", head[i:i + 16]) for i in range(0, len(head), 16)]
for i, kind in enumerate((2, 3)):
    assert (len(maps[kind]), sum(n for _, n in maps[kind])) == counts[2 * i:2 * i + 2], "counts"

base = bytes(size) if sys.argv[2] == "-" else open(sys.argv[2], "rb").read()
disk, kind, head, _ = bytearray(base), *frames.pop()
assert kind == 6
trailer, root = list(struct.unpack(">QQQQQ", head[:40])), head[40:]
seen, carried = [0] * 5, []
for kind, head, payload in frames:
    seen[4] += len(payload)
    if kind == 5:
        off, n = struct.unpack(">QQ", head)
        disk[off:off + n] = bytes(n)
        seen[1], seen[3] = seen[1] + 1, seen[3] + n
    else:
        assert kind == 4
        off, n, enc = struct.unpack(">QIB", head[:13])
        assert off // BATCH == (off + n - 1) // BATCH and enc in (1, 2), "data"
        if enc == 2:
            assert blake3(payload) == head[16:48], "payload"
            payload = unlz4(payload, n)
        assert len(payload) == n
        for i in range(0, n, GRAIN):
            assert blake3(payload[i:i + GRAIN]) == head[48 + i // 2048:80 + i // 2048], "digest"
        disk[off:off + n] = payload
        seen[0], seen[2] = seen[0] + 1, seen[2] + n
    if carried and sum(carried[-1]) == off:
        carried[-1] = (carried[-1][0], carried[-1][1] + n)
    else:
        carried.append((off, n))
assert seen == trailer and carried == maps[2], "trailer"

if what == 1:
    leaves = b"".join(blake3(bytes(disk[i:i + GRAIN])) for i in range(0, size, GRAIN))
    assert derive("haulback 2026 manifest root v1", struct.pack(">QQ", size, GRAIN) + leaves) == root, "root"
open(sys.argv[3], "wb").write(disk)
