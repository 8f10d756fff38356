package cli

import "strings"

// nearest returns the word among known that was most likely meant, or "". A
// word that begins one (--rev) means that one.
func nearest(word string, known []string) string {
	best, least := "", max(len(word)/3, 1)
	for _, k := range known {
		if len(word) > 1 && strings.HasPrefix(k, word) {
			return k
		}
		if d := distance(word, k); d <= least && d < max(len(word), len(k)) {
			if best == "" || d < least {
				best, least = k, d
			}
		}
	}
	return best
}

// distance counts the letters to put in, take out, replace, or swap with their
// neighbour, to make b of a.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	var before []int
	last := make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row := make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			d := last[j]
			if a[i] != b[j] {
				d++
			}
			d = min(d, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				d = min(d, before[j-1]+1)
			}
			row[j+1] = d
		}
		before, last = last, row
	}
	return last[len(b)]
}
