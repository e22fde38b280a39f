package wire

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
)

const (
	keyBlock = "PRIVATE KEY" // the PEM type of PKCS#8
	// maxKeyFile bounds what LoadKey reads; a key takes 119 bytes.
	maxKeyFile = 16 << 10
)

// Key is the private key of this daemon. It prints as its ID only.
type Key struct {
	private ed25519.PrivateKey
	id      ID
}

// NewKey makes a key that lives in memory only.
func NewKey() (*Key, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	return keyOf(private)
}

func keyOf(private ed25519.PrivateKey) (*Key, error) {
	spki, err := x509.MarshalPKIXPublicKey(private.Public())
	if err != nil {
		return nil, err
	}
	return &Key{private: private, id: sha256.Sum256(spki)}, nil
}

// ID is the identity that peers pin.
func (k *Key) ID() ID { return k.id }

// String does not show the key.
func (k *Key) String() string { return "key of " + k.id.String() }

// Format does not show the key, whatever the verb: %#v and %x would follow
// the pointer and print the private bytes.
func (k *Key) Format(s fmt.State, _ rune) { io.WriteString(s, k.String()) }

// LogValue does not show the key.
func (k *Key) LogValue() slog.Value { return slog.StringValue(k.String()) }

// Public is the public key.
func (k *Key) Public() ed25519.PublicKey { return k.private.Public().(ed25519.PublicKey) }

// Sign signs message for one purpose. The domain keeps a signature made for
// one from being used for another; what TLS signs begins otherwise.
func (k *Key) Sign(domain string, message []byte) []byte {
	return ed25519.Sign(k.private, signed(domain, message))
}

// VerifySignature reports whether signature is Sign's with the key of public.
func VerifySignature(public ed25519.PublicKey, domain string, message, signature []byte) bool {
	return len(public) == ed25519.PublicKeySize && ed25519.Verify(public, signed(domain, message), signature)
}

func signed(domain string, message []byte) []byte {
	return append(append([]byte(domain), 0), message...)
}

// derive makes a secret for another purpose that survives a restart.
func (k *Key) derive(purpose string) [sha256.Size]byte {
	mac := hmac.New(sha256.New, k.private.Seed())
	io.WriteString(mac, purpose)
	return [sha256.Size]byte(mac.Sum(nil))
}

// LoadKey reads the key file at path. It refuses one that others than the
// owner may access (ErrKeyExposed), and anything but one Ed25519 private key
// in PEM (ErrBadKey).
func LoadKey(path string) (*Key, error) {
	// O_NONBLOCK: a FIFO in the place of the file must not stop the start.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: %s is not a regular file", ErrBadKey, path)
	}
	if st.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%w: %s has mode %04o; run: chmod 600 %s", ErrKeyExposed, path, st.Mode().Perm(), path)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return nil, err
	}
	key, err := parseKey(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %s", ErrBadKey, path, err)
	}
	return key, nil
}

// ParseKey reads what stands in a key file. It is for who has got it from
// elsewhere than a file of his own; the error is ErrBadKey.
func ParseKey(text []byte) (*Key, error) {
	key, err := parseKey(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %s", ErrBadKey, err)
	}
	return key, nil
}

// parseKey never quotes what it read: its errors end in logs.
func parseKey(text []byte) (*Key, error) {
	if len(text) == 0 {
		return nil, errors.New("the file is empty")
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != keyBlock {
		return nil, errors.New("no PEM block " + keyBlock)
	}
	any, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("the PEM block is not PKCS#8")
	}
	private, ok := any.(ed25519.PrivateKey)
	if !ok {
		return nil, errors.New("the key is of another kind")
	}
	return keyOf(private)
}

// CreateKey makes a key and stores it at path, durable when it returns. It
// never replaces a file: the peers have pinned the key that is there.
func CreateKey(path string) (*Key, error) {
	key, err := NewKey()
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key.private)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if err := writeDurable(f, pem.EncodeToMemory(&pem.Block{Type: keyBlock, Bytes: der})); err != nil {
		return nil, errors.Join(err, os.Remove(path))
	}
	return key, nil
}

func writeDurable(f *os.File, text []byte) error {
	_, err := f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(f.Name()))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
