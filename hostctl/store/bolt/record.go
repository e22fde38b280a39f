package bolt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/haulback/haulback/hostctl/store"
	"go.etcd.io/bbolt"
)

// version of the file; a later program may know how to read an older one.
const version = 1

// The buckets. Their keys and values are in doc.go.
var (
	metaBucket    = []byte("meta")
	dataBucket    = []byte("data")
	historyBucket = []byte("history")
	queueBucket   = []byte("queue")
	leaseBucket   = []byte("lease")
)

var summed = [][]byte{dataBucket, historyBucket, queueBucket, leaseBucket}

var (
	formatKey   = []byte("format")
	revisionKey = []byte("revision")
	floorKey    = []byte("floor") // the last revision that the history does not hold
	sequenceKey = []byte("sequence")
)

// format makes the buckets and the records that every file has.
func format(tx *bbolt.Tx) error {
	for _, name := range append([][]byte{metaBucket}, summed...) {
		if _, err := tx.CreateBucket(name); err != nil {
			return err
		}
	}
	for _, name := range summed {
		if err := putMeta(tx, sumKey(name), sum{}.bytes()); err != nil {
			return err
		}
	}
	for _, key := range [][]byte{revisionKey, floorKey, sequenceKey} {
		if err := putNumber(tx, key, 0); err != nil {
			return err
		}
	}
	return putNumber(tx, formatKey, version)
}

// label is the name under which a record is sealed and told about. A key of
// the data has no slash.
func label(bucket, key []byte) string {
	switch {
	case bytes.Equal(bucket, dataBucket):
		return string(key)
	case bytes.Equal(bucket, historyBucket) && len(key) == 8:
		return fmt.Sprintf("history/%d", binary.BigEndian.Uint64(key))
	}
	return string(bucket) + "/" + string(key)
}

// get answers nil for a key that is not there. The value is valid until tx ends.
func get(tx *bbolt.Tx, bucket, key []byte) ([]byte, error) {
	sealed := tx.Bucket(bucket).Get(key)
	if sealed == nil {
		return nil, nil
	}
	return store.Unseal(label(bucket, key), sealed)
}

func put(tx *bbolt.Tx, bucket, key, value []byte) error {
	b := tx.Bucket(bucket)
	s, err := readSum(tx, bucket)
	if err != nil {
		return err
	}
	if old := b.Get(key); old != nil {
		s.remove(old)
	}
	sealed := store.Seal(make([]byte, 0, len(value)+store.SealSize), label(bucket, key), value)
	s.add(sealed)
	if err := b.Put(key, sealed); err != nil {
		return err
	}
	return putMeta(tx, sumKey(bucket), s.bytes())
}

func remove(tx *bbolt.Tx, bucket, key []byte) error {
	b := tx.Bucket(bucket)
	old := b.Get(key)
	if old == nil {
		return nil
	}
	s, err := readSum(tx, bucket)
	if err != nil {
		return err
	}
	s.remove(old)
	if err := b.Delete(key); err != nil {
		return err
	}
	return putMeta(tx, sumKey(bucket), s.bytes())
}

func putMeta(tx *bbolt.Tx, key, value []byte) error {
	return tx.Bucket(metaBucket).Put(key, store.Seal(nil, label(metaBucket, key), value))
}

func getMeta(tx *bbolt.Tx, key []byte, length int) ([]byte, error) {
	value, err := get(tx, metaBucket, key)
	if err == nil && len(value) != length {
		err = &store.DamagedError{Key: label(metaBucket, key), Text: "has gone or has a wrong length"}
	}
	return value, err
}

func putNumber(tx *bbolt.Tx, key []byte, n uint64) error { return putMeta(tx, key, number(n)) }

func getNumber(tx *bbolt.Tx, key []byte) (uint64, error) {
	value, err := getMeta(tx, key, 8)
	if err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint64(value), nil
}

func number(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// sum is what a bucket holds: a key that changed by one bit, or a page that went
// back in time, does not add up to it.
type sum struct {
	count, size uint64
	xor         [16]byte // of the checksums at the ends of the sealed values
}

func sumKey(bucket []byte) []byte { return append([]byte("sum."), bucket...) }

func readSum(tx *bbolt.Tx, bucket []byte) (s sum, err error) {
	value, err := getMeta(tx, sumKey(bucket), 32)
	if err != nil {
		return s, err
	}
	s.count, s.size = binary.BigEndian.Uint64(value), binary.BigEndian.Uint64(value[8:])
	copy(s.xor[:], value[16:])
	return s, nil
}

func (s sum) bytes() []byte {
	b := binary.BigEndian.AppendUint64(nil, s.count)
	b = binary.BigEndian.AppendUint64(b, s.size)
	return append(b, s.xor[:]...)
}

func (s *sum) add(sealed []byte) {
	s.count++
	s.size += uint64(len(sealed))
	s.mix(sealed)
}

func (s *sum) remove(sealed []byte) {
	s.count--
	s.size -= uint64(len(sealed))
	s.mix(sealed)
}

func (s *sum) mix(sealed []byte) {
	tail := sealed[max(0, len(sealed)-len(s.xor)):]
	for i, b := range tail {
		s.xor[i] ^= b
	}
}

// load checks the whole file and reads what is kept in memory.
func (db *DB) load() error {
	return guard(func() error {
		return db.bolt.View(func(tx *bbolt.Tx) error {
			for _, name := range append([][]byte{metaBucket}, summed...) {
				if tx.Bucket(name) == nil {
					return fmt.Errorf("it has no bucket %s: it is not a store of haulback, or is damaged", name)
				}
			}
			v, err := getNumber(tx, formatKey)
			if err != nil {
				return err
			} else if v != version {
				return fmt.Errorf("it has format %d, this program knows %d: use the program that wrote it", v, version)
			}
			for _, key := range [][]byte{revisionKey, floorKey, sequenceKey} {
				if _, err := getNumber(tx, key); err != nil {
					return err
				}
			}
			for _, name := range summed {
				if err := checkBucket(tx, name); err != nil {
					return err
				}
			}
			if err := checkPages(tx); err != nil {
				return err
			}
			return db.queue.load(tx)
		})
	})
}

// checkPages has bbolt look at its pages: the list of free ones is in no bucket.
// It comes last, because a fault in bbolt's goroutine is the end of the process;
// the pages of all values have been read by then.
func checkPages(tx *bbolt.Tx) (first error) {
	pages := int(tx.Size() / pageSize)
	for id := 2; id < pages; id++ { // bbolt would follow a length of 4 billion pages
		info, err := tx.Page(id)
		switch {
		case err != nil:
			return err
		case info == nil || info.Type == "free":
		case info.OverflowCount < 0 || info.OverflowCount >= pages-id:
			return fmt.Errorf("its page %d is damaged: %d pages are said to follow", id, info.OverflowCount)
		default:
			id += info.OverflowCount
		}
	}
	if err := touchKeys(tx); err != nil {
		return err
	}
	for err := range tx.Check(bbolt.WithKVStringer(mute{})) { // to its end: the goroutine uses the transaction
		if first == nil {
			first = fmt.Errorf("its pages are damaged: %w", err)
		}
	}
	return first
}

// mute keeps keys out of what bbolt's check says: the length of a damaged one may
// lead out of the file.
type mute struct{}

// KeyToString implements bbolt.KVStringer.
func (mute) KeyToString([]byte) string { return "(a key)" }

// ValueToString implements bbolt.KVStringer.
func (mute) ValueToString([]byte) string { return "(a value)" }

// touchKeys looks for every key of the file, and so reads the keys of all pages
// on the way to it, where a fault is an error: bbolt's check compares them too,
// and reading values alone passes them over.
func touchKeys(tx *bbolt.Tx) error {
	return tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
		c := b.Cursor()
		return b.ForEach(func(key, _ []byte) error {
			if found, _ := c.Seek(key); !bytes.Equal(found, key) {
				return fmt.Errorf("bucket %s: a key that is there is not found: a page is damaged", name)
			}
			return nil
		})
	})
}

// checkBucket reads every value, and compares all of them with the sum.
func checkBucket(tx *bbolt.Tx, name []byte) error {
	want, err := readSum(tx, name)
	if err != nil {
		return err
	}
	var have sum
	var last []byte
	err = tx.Bucket(name).ForEach(func(key, sealed []byte) error {
		if sealed == nil || last != nil && bytes.Compare(last, key) >= 0 {
			return errors.New("its keys are not in order")
		}
		last = bytes.Clone(key)
		have.add(sealed)
		_, err := store.Unseal(label(name, key), sealed)
		return err
	})
	if err != nil {
		return fmt.Errorf("bucket %s: %w", name, err)
	}
	if have != want {
		return fmt.Errorf("bucket %s: it has %d values of %d bytes, its sum says %d of %d, or others: something was lost", name, have.count, have.size, want.count, want.size)
	}
	return nil
}
