package load

import (
	"errors"
	"fmt"
	"io"
	"math/bits"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Result is what became of the load.
type Result struct {
	Sent     int64 `json:"sent"`
	OK       int64 `json:"ok"`
	Failed   int64 `json:"failed"`
	Late     int64 `json:"late"`     // open loop: sent more than 5 ms after they were due
	Reopened int64 `json:"reopened"` // connections found closed while idle: no failures

	Reasons  map[string]int64 `json:"reasons,omitempty"`  // kind of failure → how often
	Failures []Failure        `json:"failures,omitempty"` // the first 20

	Revisions []Revision `json:"revisions,omitempty"` // by their first answer

	// Gap is the longest time without a good answer, and GapAt when it began,
	// counted from the start.
	Gap   time.Duration `json:"gap_ns"`
	GapAt time.Duration `json:"gap_at_ns"`

	// Latency of good answers; from when they were due in an open loop.
	P50 time.Duration `json:"p50_ns"`
	P99 time.Duration `json:"p99_ns"`
	Max time.Duration `json:"max_ns"`

	Start time.Time     `json:"start"`
	Took  time.Duration `json:"took_ns"`
}

// Failure is one request without a good answer.
type Failure struct {
	At     time.Duration `json:"at_ns"` // since the start
	Reason string        `json:"reason"`
}

// Revision is which revision answered, and when.
type Revision struct {
	Name    string    `json:"name"`
	Answers int64     `json:"answers"`
	First   time.Time `json:"first"`
	Last    time.Time `json:"last"`
}

// maxFailures is how many failures are kept with their text.
const maxFailures = 20

// Rate is the number of good answers each second.
func (r Result) Rate() float64 {
	if r.Took <= 0 {
		return 0
	}
	return float64(r.OK) / r.Took.Seconds()
}

// Revision returns what the named revision answered.
func (r Result) Revision(name string) (Revision, bool) {
	for _, v := range r.Revisions {
		if v.Name == name {
			return v, true
		}
	}
	return Revision{}, false
}

// String is a few lines for people.
func (r Result) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "sent %d, ok %d, failed %d, late %d, reopened %d in %s (%.0f/s)\n",
		r.Sent, r.OK, r.Failed, r.Late, r.Reopened, r.Took.Round(time.Millisecond), r.Rate())
	fmt.Fprintf(&b, "latency p50 %s, p99 %s, max %s; longest gap %s at %s\n",
		round(r.P50), round(r.P99), round(r.Max), round(r.Gap), round(r.GapAt))
	for _, v := range r.Revisions {
		fmt.Fprintf(&b, "revision %q: %d answers, from %s to %s\n",
			v.Name, v.Answers, round(v.First.Sub(r.Start)), round(v.Last.Sub(r.Start)))
	}
	for _, f := range r.Failures {
		fmt.Fprintf(&b, "failed at %s: %s\n", round(f.At), f.Reason)
	}
	return b.String()
}

func round(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }

// tally is what one connection saw; nobody else writes to it.
type tally struct {
	sent, good, failed, late int64
	reopened                 int
	reasons                  map[string]int64
	failures                 []failure
	revisions                map[string]*Revision
	last                     *Revision
	latency                  histogram
}

type failure struct {
	at     time.Time
	reason string
}

func (t *tally) ok(now time.Time, revision string) {
	t.good++
	v := t.last
	if v == nil || v.Name != revision {
		if v = t.revisions[revision]; v == nil {
			if t.revisions == nil {
				t.revisions = map[string]*Revision{}
			}
			v = &Revision{Name: revision, First: now}
			t.revisions[revision] = v
		}
		t.last = v
	}
	v.Answers++
	v.Last = now
}

func (t *tally) fail(now time.Time, err error) {
	t.failed++
	if t.reasons == nil {
		t.reasons = map[string]int64{}
	}
	t.reasons[kind(err)]++
	if len(t.failures) < maxFailures {
		t.failures = append(t.failures, failure{now, err.Error()})
	}
}

// kind is the reason of a failure without addresses and numbers.
func kind(err error) string {
	at, _, _ := strings.Cut(err.Error(), ":")
	at, _, _ = strings.Cut(at, " after ")
	var ne net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return at + ": refused"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return at + ": reset"
	case errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &ne) && ne.Timeout():
		return at + ": timed out"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return at + ": connection closed"
	}
	return at
}

// sum puts the connections' tallies together.
func (r *Running) sum(tallies []tally) Result {
	end := time.Now()
	res := Result{Start: r.start, Took: end.Sub(r.start), Reasons: map[string]int64{}}
	r.gap.widen(time.Duration(r.last.Load()), res.Took)
	res.Gap, res.GapAt = time.Duration(r.gap.longest.Load()), r.gap.from
	var all histogram
	var failures []failure
	for i := range tallies {
		t := &tallies[i]
		res.Sent += t.sent
		res.OK += t.good
		res.Failed += t.failed
		res.Late += t.late
		res.Reopened += int64(t.reopened)
		for k, n := range t.reasons {
			res.Reasons[k] += n
		}
		failures = append(failures, t.failures...)
		for _, v := range t.revisions {
			res.Revisions = merge(res.Revisions, *v)
		}
		all.merge(&t.latency)
	}
	slices.SortFunc(failures, func(a, b failure) int { return a.at.Compare(b.at) })
	for _, f := range failures[:min(len(failures), maxFailures)] {
		res.Failures = append(res.Failures, Failure{At: f.at.Sub(r.start), Reason: f.reason})
	}
	slices.SortFunc(res.Revisions, func(a, b Revision) int { return a.First.Compare(b.First) })
	res.P50, res.P99, res.Max = all.quantile(0.50), all.quantile(0.99), all.max
	return res
}

func merge(all []Revision, v Revision) []Revision {
	for i := range all {
		if a := &all[i]; a.Name == v.Name {
			a.Answers += v.Answers
			if v.First.Before(a.First) {
				a.First = v.First
			}
			if v.Last.After(a.Last) {
				a.Last = v.Last
			}
			return all
		}
	}
	return append(all, v)
}

// histogram counts durations in buckets about 3 % wide: 32 for each power of
// two of microseconds. Its size does not grow with the load.
type histogram struct {
	buckets [32 * 32]int64
	n       int64
	max     time.Duration
}

func bucket(us uint64) int {
	if us < 32 {
		return int(us)
	}
	shift := bits.Len64(us) - 6
	return min((shift+1)*32+int(us>>shift)-32, 32*32-1)
}

// upper is the largest duration of a bucket.
func upper(i int) time.Duration {
	if i < 32 {
		return time.Duration(i) * time.Microsecond
	}
	shift := i/32 - 1
	return time.Duration(((uint64(i%32)+33)<<shift)-1) * time.Microsecond
}

func (h *histogram) add(d time.Duration) {
	d = max(d, 0)
	h.buckets[bucket(uint64(d/time.Microsecond))]++
	h.n++
	h.max = max(h.max, d)
}

func (h *histogram) merge(o *histogram) {
	for i, n := range o.buckets {
		h.buckets[i] += n
	}
	h.n += o.n
	h.max = max(h.max, o.max)
}

// quantile is the duration that a share q of all is not above.
func (h *histogram) quantile(q float64) time.Duration {
	if h.n == 0 {
		return 0
	}
	want := int64(q * float64(h.n))
	var seen int64
	for i, n := range h.buckets {
		if seen += n; seen > want {
			return min(upper(i), h.max)
		}
	}
	return h.max
}
