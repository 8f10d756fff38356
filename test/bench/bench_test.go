package main

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestRatio_IsOfPairs(t *testing.T) {
	// The machine became ten times slower half-way; the ratio stays.
	a := []time.Duration{110, 110, 1100, 1100}
	b := []time.Duration{100, 100, 1000, 1000}
	if q := ratio(a, b); q < 1.0999 || q > 1.1001 {
		t.Errorf("ratio %v, want 1.1", q)
	}
	if q := ratio[time.Duration](nil, nil); q != 0 {
		t.Errorf("ratio of nothing: %v", q)
	}
}

func TestTimes_Median(t *testing.T) {
	for _, c := range []struct {
		in   times
		want time.Duration
	}{{nil, 0}, {times{3}, 3}, {times{4, 2}, 3}, {times{9, 1, 5}, 5}} {
		if got := c.in.median(); got != c.want {
			t.Errorf("median of %v: %d, want %d", []time.Duration(c.in), got, c.want)
		}
	}
}

func TestMs(t *testing.T) {
	for d, want := range map[time.Duration]string{
		2029 * time.Nanosecond: "2.0 µs", 640 * time.Microsecond: "0.6 ms",
		83 * time.Millisecond: "83 ms", 1243 * time.Millisecond: "1,243 ms",
	} {
		if got := ms(d); got != want {
			t.Errorf("%s: %q, want %q", d, got, want)
		}
	}
}

func TestReplace_KeepsTheRest(t *testing.T) {
	text := "before\n" + beginMark + "old\n" + endMark + "after\n"
	got, err := replace(text, "| new |\n")
	if want := "before\n" + beginMark + "\n| new |\n\n" + endMark + "after\n"; err != nil || got != want {
		t.Errorf("%q, %v", got, err)
	}
	again, err := replace(got, "| new |\n")
	if err != nil || again != got {
		t.Errorf("again: %q, %v", again, err)
	}
	if _, err := replace("no marks", "x"); err == nil {
		t.Error("a file without marks was taken")
	}
}

func TestParseBenchmarks(t *testing.T) {
	got := parseBenchmarks(`goos: linux
BenchmarkNext/settled/1x2-2         	  103624	      2029 ns/op	      1015 ns/instance	    2080 B/op	       9 allocs/op
BenchmarkNext/settled/1x2-2         	  103624	      2031 ns/op	      1016 ns/instance	    2080 B/op	       9 allocs/op
PASS`)
	b := got["settled/1x2"]
	if !slices.Equal(b.ns, []float64{2029, 2031}) || !slices.Equal(b.nsPerInstance, []float64{1015, 1016}) || len(b.allocs) != 2 {
		t.Errorf("%+v", got)
	}
}

func TestParseWrk(t *testing.T) {
	const out = `Running 4s test @ http://127.0.0.1:25001/
  Latency Distribution
     50%    1.02ms
     99%    3.10ms
  110000 requests in 4.00s, 20.00MB read
Requests/sec:  27433.12
`
	s, err := parseWrk(out)
	if err != nil || s.rate != 27433.12 || s.p99 != 3100*time.Microsecond {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := parseWrk(strings.Replace(out, "Requests/sec", "  Non-2xx or 3xx responses: 3\nRequests/sec", 1)); err == nil {
		t.Error("bad answers were taken for good ones")
	}
}
