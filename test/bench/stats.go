package main

import (
	"fmt"
	"slices"
	"time"
)

// times are the measurements of one thing.
type times []time.Duration

func (t times) median() time.Duration {
	if len(t) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(t))
	if n := len(s) / 2; len(s)%2 == 0 {
		return (s[n-1] + s[n]) / 2
	}
	return s[len(s)/2]
}

func (t times) String() string {
	if len(t) == 0 {
		return "–"
	}
	return fmt.Sprintf("%s [%s–%s]", ms(t.median()), ms(slices.Min(t)), ms(slices.Max(t)))
}

// ratio is the median of the ratios of what was measured in turns: what the
// machine did besides was nearly the same for the two of a pair.
func ratio[T time.Duration | float64](a, b []T) float64 {
	var r []float64
	for i := range min(len(a), len(b)) {
		if b[i] > 0 {
			r = append(r, float64(a[i])/float64(b[i]))
		}
	}
	return median(r)
}

func median(s []float64) float64 {
	if len(s) == 0 {
		return 0
	}
	s = slices.Sorted(slices.Values(s))
	if n := len(s) / 2; len(s)%2 == 0 {
		return (s[n-1] + s[n]) / 2
	}
	return s[len(s)/2]
}

// ms shows a time in the unit that people compare: 0.6 ms, 83 ms, 1,243 ms.
func ms(d time.Duration) string {
	v := float64(d) / float64(time.Millisecond)
	switch {
	case v < 0.1:
		return fmt.Sprintf("%.1f µs", v*1000)
	case v < 10:
		return fmt.Sprintf("%.1f ms", v)
	}
	return thousands(v) + " ms"
}

// thousands rounds and sets commas.
func thousands(v float64) string {
	s := fmt.Sprintf("%.0f", v)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
