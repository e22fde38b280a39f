// Package size reads and writes numbers of bytes as people do: "64MiB".
package size

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// units are powers of 1024 only: "MB" means two different things to two
// different people, so it is refused and not guessed.
var units = []struct {
	name  string
	bytes int64
}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

// Parse reads a whole number followed by B, KiB, MiB, GiB or TiB, without a
// sign. The unit is never optional.
func Parse(s string) (int64, error) {
	for _, u := range units {
		digits, ok := strings.CutSuffix(s, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSuffix(digits, " "), 10, 63)
		switch {
		case errors.Is(err, strconv.ErrRange) || err == nil && int64(n) > math.MaxInt64/u.bytes:
			return 0, fmt.Errorf("size %q: too large", s)
		case err == nil:
			return int64(n) * u.bytes, nil
		}
	}
	return 0, fmt.Errorf("size %q: write a whole number and a unit of B, KiB, MiB, GiB or TiB, as in 64MiB", s)
}

// Text is n with one decimal in the largest unit that it reaches.
func Text(n int64) string {
	for _, u := range units[:len(units)-1] {
		if n >= u.bytes {
			return strconv.FormatFloat(float64(n)/float64(u.bytes), 'f', 1, 64) + " " + u.name
		}
	}
	return strconv.FormatInt(n, 10) + " B"
}
