package vddk

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Driver opens the disks of a scheme that this package does not know: one whose
// client is none of its business. Its methods are used concurrently.
type Driver struct {
	// Parse says what is wrong with a URI of the scheme, and asks nobody.
	Parse func(text string) error
	// Open opens the disk; its errors name it, without secrets.
	Open func(ctx context.Context, text string, opts Options) (Disk, error)
}

// elsewhere are the schemes that some main program registers, and what one that
// does not has to say.
var elsewhere = map[string]string{
	"osd": "osd:// needs the driver of OpenStorage, which this program has not registered; use haulback or haulbackd",
}

// drivers are those that were registered. The state of a process, as with
// database/sql: a driver with a client, profiles and a ledger of its own has to be
// reached from every URI, and this package may not import it.
var drivers struct {
	mu   sync.RWMutex
	list map[string]Driver
}

// Register makes d the driver of a scheme, for the life of the process. Main
// programs call it before they open the first disk; nothing else does. It panics
// when the scheme has one, or is one of this package.
func Register(scheme string, d Driver) {
	drivers.mu.Lock()
	defer drivers.mu.Unlock()
	if _, twice := drivers.list[scheme]; twice || builtin(scheme) || d.Parse == nil || d.Open == nil {
		panic("vddk: Register of the scheme " + scheme + ", which has a driver, or of half a driver")
	}
	if drivers.list == nil {
		drivers.list = map[string]Driver{}
	}
	drivers.list[scheme] = d
}

// registered is the driver of a scheme.
func registered(scheme string) (Driver, bool) {
	drivers.mu.RLock()
	defer drivers.mu.RUnlock()
	d, ok := drivers.list[scheme]
	return d, ok
}

// parseRegistered reads a URI of a scheme that is not ours.
func parseRegistered(scheme, text string) (URI, error) {
	if d, ok := registered(scheme); ok {
		return URI{Scheme: scheme, Text: text}, d.Parse(text)
	}
	if needs, ok := elsewhere[scheme]; ok {
		return URI{}, &setupError{fmt.Errorf("%s", needs)}
	}
	return URI{}, fmt.Errorf("unknown scheme %q; supported: %s", scheme, supportedAll())
}

// supportedAll is supported with the schemes that were registered besides.
func supportedAll() string {
	drivers.mu.RLock()
	defer drivers.mu.RUnlock()
	text := supported
	for _, scheme := range slices.Sorted(maps.Keys(drivers.list)) {
		if !strings.Contains(text, scheme+"://") {
			text += ", " + scheme + "://"
		}
	}
	return text
}

// OpenAt opens the file or device behind pathFD, a descriptor made with O_PATH,
// as Open would have opened it by its path: what path leads to meanwhile counts
// for nothing. path is for messages. pathFD stays the caller's.
func OpenAt(ctx context.Context, path string, pathFD int, opts Options) (Disk, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	u := URI{Path: path}
	if opts.Create {
		return nil, fmt.Errorf("%s: create: %w: what a descriptor leads to is there already", path, ErrKind)
	}
	var st unix.Stat_t
	if err := unix.Fstat(pathFD, &st); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	disk, err := openInode(u, pathFD, &st, opts)
	if err != nil {
		return nil, withRemedy(err)
	}
	return disk, nil
}
