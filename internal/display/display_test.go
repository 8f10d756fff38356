package display

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"conductor/internal/event"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares with testdata/NAME, where escapes are written as ␛.
func golden(t *testing.T, name, got string) {
	t.Helper()
	got = strings.ReplaceAll(got, "\x1b", "␛")
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (-want +got):\n%s", name, d)
	}
}

var start = time.Date(2026, 3, 1, 2, 30, 0, 0, time.UTC)

// upgrade is what an upgrade of one replica emits, with a warning and a
// failure of another service for company.
func upgrade() []event.Event {
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	const from, to = "shop.v1.9f8e-1-1", "shop.v2.1a2b-1-1"
	id := strings.Repeat("0123456789abcdef", 4)
	return []event.Event{
		{Time: at(12), Event: event.Pulled, Service: "shop", Revision: "v2", Detail: "registry.example.com/shop:v2, 118M"},
		{Time: at(20), Event: event.Created, Service: "shop", Revision: "v2", Instance: to, Container: id, Cause: "the candidate has 0 of 1 instances"},
		{Time: at(168), Event: event.Started, Service: "shop", Revision: "v2", Instance: to, Container: id, Cause: "it was created"},
		{Time: at(310), Event: event.Healthy, Service: "shop", Revision: "v2", Instance: to, Container: id, Detail: "GET :3000/health: 200 OK", Cause: "probed"},
		{Time: at(340), Event: event.Configured, Service: "shop", Revision: "v2", Instance: to, Container: id},
		{Time: at(381), Event: event.Routed, Service: "shop", Revision: "v2", Instance: to, Container: id, Detail: "1 of 1 targets"},
		{Time: at(381), Event: event.Committed, Service: "shop", Revision: "v2"},
		{Time: at(402), Event: event.Unrouted, Service: "shop", Revision: "v1", Instance: from, Cause: "v2 serves"},
		{Time: at(5402), Event: event.Drained, Service: "shop", Revision: "v1", Instance: from, Detail: "nothing in flight"},
		{Time: at(5480), Event: event.Stopped, Service: "shop", Revision: "v1", Instance: from, Detail: "exit code 0", Cause: "v2 serves"},
		{Time: at(5490), Event: event.Removed, Service: "shop", Revision: "v1", Instance: from},
		{Time: at(61000), Event: event.Failed, Service: "gocardless_app_production", Revision: "v3", Instance: "gocardless_app_production.v3.77aa-1-1",
			Cause: "exited 1 after 0.4 s", Detail: "exited 1 after 0.4 s, log:\nreading config\n\x1b[31mno DATABASE_URL\x1b[0m\r\n"},
		{Time: at(61001), Event: event.Failed, Service: "gocardless_app_production", Revision: "v3", Detail: "its log:\nreading config\n\x1b[31mno DATABASE_URL\x1b[0m\r\n"},
		{Time: at(61001), Event: event.Failed, Service: "gocardless_app_production", Revision: "v3", Detail: "create: name taken", Cause: "slot 2 is empty"},
		{Time: at(61001), Event: event.Restored, Service: "gocardless_app_production", Revision: "v2", Detail: "v2 serves on"},
		{Time: at(700000), Event: event.Warning, Service: "shop", Detail: "definition changed, not applied: environment"},
		{Time: at(8000000), Event: event.Note, Detail: "that took long"},
	}
}

var failed = Result{Code: 5, Failures: []Failure{
	{Text: "upgrade shop to v2: it exited 1, log:\nreading config\n\x1b]0;title\x07no DATABASE_URL", Hint: "set it, then upgrade again\nconductor service logs --id shop"},
	{Text: "converge blog: its image is gone"},
}}

func show(o Options, r Result) (out, err string) {
	var stdout, stderr bytes.Buffer
	o.Out, o.Err, o.Start = &stdout, &stderr, start
	d := New(o)
	for _, e := range upgrade() {
		d.Event(e)
	}
	d.End(r)
	return stdout.String(), stderr.String()
}

func TestDisplay_Golden(t *testing.T) {
	done := Result{Summary: []string{"shop: v1 → v2, 1 instance, 5.5 s"}, Outcomes: []map[string]any{{"service": "shop"}}}
	for _, tt := range []struct {
		name string
		o    Options
		r    Result
	}{
		{"plain", Options{Mode: Plain}, done},
		{"plain-failed", Options{Mode: Plain}, failed},
		{"tty", Options{Mode: TTY, Color: true}, done},
		{"tty-failed", Options{Mode: TTY, Color: true}, failed},
		{"json", Options{Mode: JSON}, done},
		{"json-failed", Options{Mode: JSON}, failed},
		{"quiet", Options{Mode: Quiet}, done},
		{"quiet-failed", Options{Mode: Quiet}, failed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, err := show(tt.o, tt.r)
			golden(t, tt.name+".out", out)
			golden(t, tt.name+".err", err)
		})
	}
}

// Programs read each line as it comes, with the contract's fields and no
// others.
func TestJSON_HasTheContractsFields(t *testing.T) {
	out, _ := show(Options{Mode: JSON}, Result{})
	known := map[string]bool{"time": true, "event": true, "service": true, "revision": true, "instance": true, "container": true, "cause": true, "detail": true}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	for i, line := range lines {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("line %d: %v", i+1, err)
		}
		if i == len(lines)-1 {
			if m["event"] != "result" || m["ok"] != true || m["code"] != 0.0 || m["error"] != "" {
				t.Errorf("the last line is %s", line)
			}
			continue
		}
		for k := range m {
			if !known[k] {
				t.Errorf("line %d has the field %s", i+1, k)
			}
		}
		if _, err := time.Parse(time.RFC3339Nano, m["time"].(string)); err != nil {
			t.Error(err)
		}
	}
}

// Instances start at the same time: no line of one may be cut by another's.
func TestDisplay_IsSafeForConcurrentUse(t *testing.T) {
	for _, m := range Modes {
		var out, errs bytes.Buffer
		d := New(Options{Mode: m, Out: &out, Err: &errs, Start: start})
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				for range 20 {
					d.Event(event.Event{Time: start, Event: event.Warning, Service: "shop", Instance: fmt.Sprintf("shop-%02d", i), Detail: "tell"})
				}
			})
		}
		wg.Wait()
		lines := strings.Split(strings.TrimSpace(out.String()+errs.String()), "\n")
		if len(lines) != 400 {
			t.Errorf("%s: %d lines of 400", m, len(lines))
		}
		for _, l := range lines {
			if !strings.Contains(l, "shop-") || !strings.Contains(l, "tell") || strings.Count(l, "tell") != 1 {
				t.Fatalf("%s: line %q", m, l)
			}
		}
	}
}

func TestParseMode_KnowsAllModes(t *testing.T) {
	for _, m := range Modes {
		if got, err := ParseMode(string(m)); got != m || err != nil {
			t.Errorf("%s: %v, %v", m, got, err)
		}
	}
	if _, err := ParseMode("yaml"); err == nil {
		t.Error("yaml is no mode")
	}
}
