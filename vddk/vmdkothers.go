package vddk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/bits"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// checkOthers looks for who else works with the disk, in the directory of the
// descriptor: VMware's lock files and snapshots of it. A writer is refused, a
// reader is warned.
func (v *VMDK) checkOthers() error {
	other, err := v.inUse()
	if err != nil {
		return err
	}
	if other == nil {
		if other, err = v.child(); err != nil {
			return err
		}
	}
	switch {
	case other != nil && !v.readOnly:
		return other
	case other != nil:
		v.warning = other.By + "; what is read may be out of date, or change meanwhile"
	case v.text.changeTrack != "":
		v.warning = fmt.Sprintf("vSphere's change tracking (%s) does not see what is written to the disk from here: after that, reset it (disable and enable it) before the next backup of the VM",
			clip(v.text.changeTrack))
	}
	return nil
}

// inUse looks for a lock of VMware's:
//
//	vm.vmx.lck           a VM of this directory is running (a file, or a
//	                     directory with something in it)
//	disk.vmdk.lck        Workstation's, for one file, likewise
//	.lck-3d00000000...   ESXi's on NFS, for the file with this inode number, as
//	                     16 hexadecimal digits, the least byte first; the name
//	                     of the host stands in it (Broadcom article 340515)
//
// They tell of hosts that this kernel's locks do not reach.
func (v *VMDK) inUse() (*LockedError, error) {
	names, err := v.names()
	if err != nil {
		return nil, err
	}
	locks := map[string]string{}
	for _, f := range v.files() {
		locks[nfsLock(f.ino)] = f.path
		locks[f.path[strings.LastIndexByte(f.path, '/')+1:]+".lck"] = f.path
	}
	locks[v.base+".lck"] = v.path
	for _, name := range names {
		var st unix.Stat_t
		if strings.HasSuffix(name, ".vmx") && unix.Fstatat(v.dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
			locks[nfsLock(st.Ino)] = name
		}
	}
	for _, name := range names {
		of, ok := locks[name]
		if !ok && strings.HasSuffix(name, ".vmx.lck") {
			of, ok = strings.TrimSuffix(name, ".lck"), true
		}
		if !ok {
			continue
		}
		if host, held := v.holder(name); held {
			return &LockedError{
				Path: v.path, By: fmt.Sprintf("%s has a lock of %s (%s)", of, host, name),
				Remedy: "power the VM off, or unlock it at its host; only when no host runs it, remove the lock file",
			}, nil
		}
	}
	return nil, nil
}

// files are all that the disk holds.
func (v *VMDK) files() []*File {
	all := []*File{v.desc}
	for i := range v.parts {
		if f := v.parts[i].file; f != nil {
			all = append(all, f)
		}
	}
	return all
}

func nfsLock(ino uint64) string { return fmt.Sprintf(".lck-%016x", bits.ReverseBytes64(ino)) }

// names lists the directory.
func (v *VMDK) names() ([]string, error) { return v.list(".") }

func (v *VMDK) list(name string) ([]string, error) {
	fd, err := unix.Openat(v.dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: directory: %w", v.path, err)
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close() // only read
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("%s: directory: %w", v.path, bare(err))
	}
	return names, nil
}

// holder reads a lock file, or the first one in a lock directory. An empty
// directory is what is left of an old lock.
func (v *VMDK) holder(name string) (host string, held bool) {
	if inside, err := v.list(name); err == nil {
		if len(inside) == 0 {
			return "", false
		}
		name += "/" + inside[0]
	}
	text, err := v.readSmall(name, 4096)
	if errors.Is(err, fs.ErrNotExist) {
		return "", false // released since the listing
	}
	if host = hostIn(text); host == "" {
		return "a host", true
	}
	return "host " + host, true
}

// hostIn is the longest word with a letter in it. Lock files are binary (ESXi)
// or a line of words and numbers (Workstation).
func hostIn(text []byte) string {
	longest := ""
	for _, word := range strings.FieldsFunc(string(text), func(r rune) bool {
		return r != '.' && r != '-' && r != '_' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	}) {
		if len(word) > len(longest) && strings.Trim(word, "0123456789.-_") != "" {
			longest = word
		}
	}
	if len(longest) < 3 {
		return ""
	}
	return clip(longest)
}

// readSmall reads at most limit bytes of a regular file of the directory. It
// does not wait for the writer of a pipe.
func (v *VMDK) readSmall(name string, limit int64) ([]byte, error) {
	fd, err := unix.Openat(v.dir, name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close() // only read
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, ErrKind
	}
	return io.ReadAll(io.LimitReader(f, limit))
}

// child looks for a snapshot whose base the disk is: a descriptor beside it
// that names it as its parent. A snapshot in another directory is not found;
// the content ID tells it that its base has changed.
func (v *VMDK) child() (*LockedError, error) {
	names, err := v.names()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if !strings.HasSuffix(strings.ToLower(name), ".vmdk") || name == v.base {
			continue
		}
		if !v.mayDescribe(name) {
			continue
		}
		text, err := v.readSmall(name, vmdkMaxText)
		if err != nil || notText(text) != nil || !beginsDescriptor(text) || !strings.EqualFold(parentOf(string(text)), v.base) {
			continue
		}
		return &LockedError{
			Path: v.path, By: fmt.Sprintf("%s is a snapshot on top of it", name), Remedy: vmdkConsolidate,
		}, nil
	}
	return nil, nil
}

// mayDescribe reports whether the file can be a descriptor of another disk: it
// is none of our own files, and no longer than a descriptor is. What stands in
// a flat file was chosen by a guest.
func (v *VMDK) mayDescribe(name string) bool {
	var st unix.Stat_t
	if err := unix.Fstatat(v.dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil || st.Size > vmdkMaxText {
		return false
	}
	for _, f := range v.files() {
		if f.dev == st.Dev && f.ino == st.Ino {
			return false
		}
	}
	return true
}

// beginsDescriptor is what parseVMDK wants first, too.
func beginsDescriptor(text []byte) bool {
	line, _, _ := strings.Cut(strings.TrimLeft(string(text), " \t\r\n"), "\n")
	return strings.EqualFold(strings.TrimRight(line, " \t\r"), "# Disk DescriptorFile")
}

// parentOf is the name of the file that a descriptor names as its parent.
func parentOf(text string) string {
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(line, "=")
		if ok && strings.EqualFold(strings.TrimSpace(key), "parentFileNameHint") {
			value = strings.Trim(value, " \t\r\n\"")
			return value[strings.LastIndexByte(value, '/')+1:]
		}
	}
	return ""
}

// Check compares all files with what they were, and looks whether a host took
// the disk meanwhile.
func (v *VMDK) Check() error {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if v.dir < 0 {
		return v.fail("check", v.size, 0, fs.ErrClosed)
	}
	for _, f := range v.files() {
		if err := f.Check(); err != nil {
			return err
		}
	}
	if v.readOnly {
		return nil
	}
	other, err := v.inUse()
	if err != nil {
		return err
	}
	if other != nil {
		return fmt.Errorf("%s: %w: %w", v.path, ErrChanged, other)
	}
	return nil
}
