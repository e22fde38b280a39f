package estimate

import "math"

// Interval is the exact (Clopper-Pearson) interval of a share of which k in n
// were seen, with a confidence of 95 %. Where all of it was seen it is the share.
// It is for drawing with replacement; a sample without is at least as good.
func Interval(k, n, all int64) (low, high float64) {
	share := float64(k) / float64(n)
	if n >= all {
		return share, share
	}
	const tail = 0.025
	low, high = 0, 1
	if k > 0 { // the share at which k or more are seen with a probability of tail
		low = solve(func(p float64) bool { return 1-below(k-1, n, p) < tail })
	}
	if k < n {
		high = solve(func(p float64) bool { return below(k, n, p) > tail })
	}
	return low, high
}

// solve is where holds, true from 0 on, ends.
func solve(holds func(p float64) bool) float64 {
	lo, hi := 0.0, 1.0
	for range 50 {
		if mid := (lo + hi) / 2; holds(mid) {
			lo = mid
		} else {
			hi = mid
		}
	}
	return (lo + hi) / 2
}

// below is the probability of at most k in n at a share of p.
func below(k, n int64, p float64) (sum float64) {
	choose := func(n, k float64) float64 {
		a, _ := math.Lgamma(n + 1)
		b, _ := math.Lgamma(k + 1)
		c, _ := math.Lgamma(n - k + 1)
		return a - b - c
	}
	for i := int64(0); i <= k; i++ {
		sum += math.Exp(choose(float64(n), float64(i)) + float64(i)*math.Log(p) + float64(n-i)*math.Log1p(-p))
	}
	return min(sum, 1)
}
