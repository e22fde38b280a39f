package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	libraryPath = "LD_LIBRARY_PATH"
	processName = "haulback-vddk" // the kernel takes 15 bytes
)

// enter makes the process what the library needs, and hides its memory. The
// libraries that the VDDK brings along are found by LD_LIBRARY_PATH only, which
// the dynamic linker reads when a program starts: so this one starts itself once
// more. Afterwards the variable is gone, and no child inherits it.
func enter(libDir string) error {
	path := os.Getenv(libraryPath)
	want := filepath.Join(libDir, "lib64")
	if _, err := os.Stat(want); err != nil {
		want = libDir
	}
	first, _, _ := strings.Cut(path, ":")
	// The main goroutine was locked to the thread it began on. That is the main
	// thread but in theory.
	if first != want || unix.Gettid() != unix.Getpid() {
		return startAgain(strings.TrimSuffix(want+":"+path, ":"))
	}
	return errors.Join(os.Unsetenv(libraryPath), setName(), hide())
}

// setName is for pgrep and top: a program that was started by the name
// /proc/self/exe is called "exe" there. It has to run on the main thread.
func setName() error {
	name, err := unix.BytePtrFromString(processName)
	if err == nil {
		err = unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(name)), 0, 0, 0)
	}
	if err != nil {
		return fmt.Errorf("name of the process: %w", err)
	}
	return nil
}

func startAgain(path string) error {
	if err := os.Setenv(libraryPath, path); err != nil {
		return err
	}
	return fmt.Errorf("start again: %w", unix.Exec("/proc/self/exe", os.Args, os.Environ()))
}

// hide keeps the password in this memory out of core files and away from other
// processes of the same user.
func hide() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("no core files: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("no core files: %w", err)
	}
	return nil
}

// takeOutput keeps standard output for the conversation: what the library may
// print there goes to standard error.
func takeOutput() (*os.File, error) {
	fd, err := unix.FcntlInt(1, unix.F_DUPFD_CLOEXEC, 3)
	if err == nil {
		err = unix.Dup3(2, 1, 0)
	}
	if err != nil {
		return nil, fmt.Errorf("standard output: %w", err)
	}
	return os.NewFile(uintptr(fd), "control"), nil
}
