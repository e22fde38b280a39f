package mover

import "testing"

// A checkpoint costs a flush of the disk and one of the journal. One before its
// time is due only while the window is about to close, and not for a source
// that answers as fast as it is told.
func TestPressed(t *testing.T) {
	for _, tc := range []struct {
		name                          string
		told, answered, settled, room int64
		want                          bool
	}{
		{"a fast source, nearly all of the window free", 30, 29, 0, 2048, false},
		{"far into the disk, the same", 100_030, 100_029, 100_000, 2048, false},
		{"the window is full, all of it answered", 2048, 2048, 0, 2048, true},
		{"the window is full, and the source has much to do", 2048, 1024, 0, 2048, false},
		{"the smallest window is full but for the jobs before it", 48, 48, 0, 64, true},
	} {
		if got := pressed(tc.told, tc.answered, tc.settled, tc.room); got != tc.want {
			t.Errorf("%s: %v", tc.name, got)
		}
	}
}
