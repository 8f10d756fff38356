package main

import (
	"errors"
	"slices"
	"strings"
	"sync/atomic"
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

func TestParseMetrics(t *testing.T) {
	got := parseMetrics(`goos: linux
BenchmarkFleet/all-2         	       1	         5.2 deploy-s	         3.9 alone-s
BenchmarkFleet/all-2         	       1	         5.0 deploy-s	         4.1 alone-s
--- BENCH: BenchmarkFleet/all-2
    a line of a log
PASS
ok  	conductor/test/fleet	12.3s`)
	if len(got) != 2 || !slices.Equal(got["deploy-s"], []float64{5.2, 5}) || !slices.Equal(got["alone-s"], []float64{3.9, 4.1}) {
		t.Errorf("%v", got)
	}
	if d := got.times("deploy-s"); d.median() != 5100*time.Millisecond {
		t.Errorf("%s", d)
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

func TestParseStat(t *testing.T) {
	p, ok := parseStat([]byte("4711 (a (b) c) S 17 4711 4711 0 -1 4194560 1 2 3 4 150 25 7 8 20 0 5 0 99\n"))
	want := process{pid: 4711, parent: 17, name: "a (b) c", own: 1750 * time.Millisecond, waited: 150 * time.Millisecond}
	if !ok || p != want {
		t.Errorf("%+v, %v; want %+v", p, ok, want)
	}
	for _, torn := range []string{"", "4711 (a", "4711 (a) S 17", "x (a) S 17 4711 4711 0 -1 4194560 1 2 3 4 150 25 7 8 20 0 5 0 99"} {
		if _, ok := parseStat([]byte(torn)); ok {
			t.Errorf("%q was taken", torn)
		}
	}
}

func TestAccount_CountsWhatIsThere(t *testing.T) {
	before := account{1: 100, 2: 50, 3: 70}
	after := account{1: 130, 3: 20, 4: 5} // 2 has ended, 3 is another process now, 4 is new
	if used := after.since(before); used != 35 {
		t.Errorf("%d, want 35", used)
	}
}

func TestOptions_Wants(t *testing.T) {
	for _, c := range []struct {
		only, part string
		want       bool
	}{
		{"", "supervise", true}, {"", "supervise.boot", true}, {"run", "supervise", false},
		{"run,supervise", "supervise.boot", true}, {"supervise.boot", "supervise", true},
		{"supervise.boot", "supervise.idle", false}, {"supervise.boot", "run", false},
	} {
		if got := (options{only: c.only}).wants(c.part); got != c.want {
			t.Errorf("-only %q, %s: %v", c.only, c.part, got)
		}
	}
}

func TestAtATime_DoesAllAndNoMoreAtOnce(t *testing.T) {
	var now, most, done atomic.Int32
	err := atATime(3, 20, func(n int) error {
		most.Store(max(most.Load(), now.Add(1)))
		defer now.Add(-1)
		done.Add(1)
		if n == 7 {
			return errors.New("seven")
		}
		return nil
	})
	if err == nil || err.Error() != "seven" || done.Load() != 20 || most.Load() > 3 {
		t.Errorf("%v; %d done, %d at once", err, done.Load(), most.Load())
	}
}
