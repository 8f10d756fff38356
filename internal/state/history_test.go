package state_test

import (
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"conductor/internal/event"
	"conductor/internal/fault"
	"conductor/internal/state"
)

// history opens one whose warnings go to the channel.
func history(t testing.TB, path string) (*state.History, chan error) {
	warnings := make(chan error, 100)
	h := state.OpenHistory(path, func(err error) { warnings <- err })
	t.Cleanup(func() { _ = h.Close() })
	return h, warnings
}

// record does what a command does, n times.
func record(h *state.History, service string, n int) {
	for i := range n {
		id := h.Begin(state.Operation{Service: service, Verb: "upgrade", To: fmt.Sprint("v", i)})
		for _, name := range []event.Name{event.Created, event.Started, event.Healthy, event.Routed} {
			h.Event(event.Event{Event: name, Service: service, Detail: fmt.Sprint(i)})
		}
		h.End(id, state.Operation{Service: service, Outcome: "upgraded"})
	}
}

func none(t *testing.T, warnings chan error) {
	t.Helper()
	select {
	case err := <-warnings:
		t.Errorf("warned: %v (%s)", err, fault.Hint(err))
	default:
	}
}

// one expects a single warning with the words, and a hint.
func one(t *testing.T, warnings chan error, words ...string) {
	t.Helper()
	select {
	case err := <-warnings:
		for _, w := range words {
			if !strings.Contains(err.Error()+fault.Hint(err), w) {
				t.Errorf("%q (%q) does not say %q", err, fault.Hint(err), w)
			}
		}
		if fault.Hint(err) == "" || !errors.Is(err, fault.ErrHost) {
			t.Errorf("%v: no hint, or not fault.ErrHost", err)
		}
	default:
		t.Error("no warning")
	}
	none(t, warnings)
}

func TestHistory_Keeps(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history %3f?.db") // a name that URLs trip over
	h, warnings := history(t, path)
	start := time.Date(2026, 3, 1, 12, 0, 0, 7, time.UTC)
	want := state.Operation{Service: "shop", Verb: "upgrade", User: "alice", From: "v1", To: "v2", Release: "abc", Started: start}
	want.ID = h.Begin(want)
	events := []event.Event{
		{Time: start, Event: event.Created, Service: "shop", Revision: "v2", Instance: "shop.v2", Container: "c0ffee", Cause: "why", Detail: "d"},
		{Time: start.Add(time.Second), Event: event.Failed, Service: "shop", Detail: "line 1\nline 2\x00'\""},
	}
	h.Event(events[0])
	h.Event(event.Event{Time: start, Event: event.Note, Service: "other"})
	h.Event(events[1])
	other := h.Begin(state.Operation{Service: "other", Verb: "stop"})

	ops, err := h.List(t.Context(), "shop", 0)
	must(t, err)
	if !reflect.DeepEqual(ops, []state.Operation{want}) {
		t.Errorf("while it runs: %+v\nwant %+v", ops, want)
	}
	want.Outcome, want.Error, want.Detail, want.Code, want.Ended = "failed", "shop: e", "more", 5, start.Add(time.Minute)
	h.End(want.ID, state.Operation{Service: "shop", Error: want.Error, Detail: "more", Code: 5, Ended: want.Ended})
	h.End(other, state.Operation{Service: "other"})
	h.Event(event.Event{Event: event.Note, Service: "shop", Detail: "after its end"})
	must(t, h.Close())

	again, _ := history(t, path)
	ops, err = again.List(t.Context(), "shop", 5)
	must(t, err)
	if !reflect.DeepEqual(ops, []state.Operation{want}) {
		t.Errorf("got %+v\nwant %+v", ops, want)
	}
	got, err := again.Events(t.Context(), want.ID)
	must(t, err)
	if !reflect.DeepEqual(got, events) {
		t.Errorf("got %+v\nwant %+v", got, events)
	}
	if ops, err = again.List(t.Context(), "", 0); err != nil || len(ops) != 2 || ops[0].Outcome != "done" {
		t.Errorf("of all services: %+v, %v", ops, err)
	}
	none(t, warnings)
	for _, suffix := range []string{"", "-wal"} {
		if fi, err := os.Stat(path + suffix); err == nil && fi.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", fi.Name(), fi.Mode())
		}
	}
}

func TestHistory_ShowsKilledOperationsAsInterrupted(t *testing.T) {
	path := t.TempDir()
	d := open(t, path)
	cmd, line, _ := start(t, "operation", path)
	if line != "ready\n" {
		t.Fatal(line)
	}
	h, warnings := history(t, d.HistoryPath())
	id := h.Begin(state.Operation{Service: "shop", Verb: "stop"})
	h.End(id, state.Operation{Service: "shop"})
	outcomes := func() string {
		ops, err := h.List(t.Context(), "shop", 0)
		must(t, err)
		var s []string
		for _, op := range ops {
			s = append(s, op.Outcome)
		}
		return strings.Join(s, ",")
	}
	if got := outcomes(); got != "done," {
		t.Errorf("while the process lives: %q", got)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if got := outcomes(); got != "done,interrupted" {
		t.Errorf("after its death: %q", got)
	}
	id = h.Begin(state.Operation{Service: "shop", Verb: "upgrade"})
	id2 := h.Begin(state.Operation{Service: "shop", Verb: "upgrade"}) // and of this process, without End
	ops, err := h.List(t.Context(), "shop", 0)
	must(t, err)
	if len(ops) != 4 || ops[0].ID != id2 || ops[0].Outcome != "" || ops[1].ID != id || ops[1].Outcome != state.Interrupted ||
		ops[3].Outcome != state.Interrupted || ops[3].Ended.IsZero() {
		t.Errorf("after the next Begin: %+v", ops)
	}
	none(t, warnings)
}

func TestHistory_TwoProcessesAtOnce(t *testing.T) {
	path := t.TempDir()
	d := open(t, path)
	h, warnings := history(t, d.HistoryPath())
	const n = 40
	done := make(chan string)
	for range 2 {
		go func() {
			cmd, out := startQuiet(t, "operations", path, fmt.Sprint("STATE_TEST_N=", n))
			if err := cmd.Wait(); err != nil {
				out.WriteString(err.Error())
			}
			done <- out.String()
		}()
	}
	record(h, "mine", n)
	for range 2 {
		if out := <-done; out != "" {
			t.Error(out)
		}
	}
	none(t, warnings)
	ops, err := h.List(t.Context(), "", 0)
	must(t, err)
	if len(ops) != 3*n {
		t.Fatalf("%d operations, want %d", len(ops), 3*n)
	}
	for _, op := range ops {
		events, err := h.Events(t.Context(), op.ID)
		must(t, err)
		if len(events) != 4 || events[0].Service != op.Service || "v"+events[0].Detail != op.To {
			t.Fatalf("operation %+v has events %+v", op, events)
		}
	}
}

func TestHistory_DamagedFileIsMovedAside(t *testing.T) {
	garbage := strings.Repeat("this is no database ", 1000)
	for name, damage := range map[string]func(t *testing.T, path string){
		"garbage":   func(t *testing.T, path string) { must(t, os.WriteFile(path, []byte(garbage), 0o600)) },
		"truncated": func(t *testing.T, path string) { must(t, os.Truncate(path, 4096)) },
		"torn": func(t *testing.T, path string) {
			b, err := os.ReadFile(path)
			must(t, err)
			copy(b[4096:], garbage)
			must(t, os.WriteFile(path, b, 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "history.db")
			h, warnings := history(t, path)
			record(h, "shop", 20)
			must(t, h.Close())
			damage(t, path)

			h, warnings2 := history(t, path)
			record(h, "shop", 3)
			one(t, warnings2, "damaged", path+".corrupt-", "fresh")
			ops, err := h.List(t.Context(), "shop", 0)
			must(t, err)
			// Where the damage was found after Begin, that one is lost.
			if len(ops) < 2 || ops[0].Outcome != "upgraded" {
				t.Errorf("kept afterwards: %+v", ops)
			}
			none(t, warnings)
			if old, _ := filepath.Glob(path + ".corrupt-*"); len(old) == 0 {
				t.Error("the damaged file is gone")
			}
		})
	}
}

func TestHistory_ReadingADamagedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history.db")
	must(t, os.WriteFile(path, []byte(strings.Repeat("x", 5000)), 0o600))
	h, warnings := history(t, path)
	ops, err := h.List(t.Context(), "shop", 0)
	if err != nil || len(ops) != 0 {
		t.Errorf("got %v, %v", ops, err)
	}
	one(t, warnings, "damaged")
}

func TestHistory_EmptyAndDeletedFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history.db")
	must(t, os.WriteFile(path, nil, 0o600))
	h, warnings := history(t, path)
	record(h, "shop", 1)
	must(t, os.Remove(path)) // while it is open
	record(h, "shop", 2)
	ops, err := h.List(t.Context(), "shop", 0)
	must(t, err)
	if len(ops) != 2 {
		t.Errorf("%d operations, want the 2 since it was deleted", len(ops))
	}
	none(t, warnings)
}

func TestHistory_NotWritable(t *testing.T) {
	dir := t.TempDir()
	leave(t, filepath.Join(dir, "file"))
	must(t, os.Mkdir(filepath.Join(dir, "folder"), 0o700))
	newer := filepath.Join(dir, "newer.db")
	db, err := sql.Open("sqlite", newer)
	must(t, err)
	_, err = db.Exec("PRAGMA user_version = 1000")
	must(t, errors.Join(err, db.Close()))
	for _, path := range []string{filepath.Join(dir, "file", "history.db"), filepath.Join(dir, "none", "history.db"), filepath.Join(dir, "folder"), newer} {
		h, warnings := history(t, path)
		record(h, "shop", 3)
		one(t, warnings, path, "history alone")
		if _, err := h.List(t.Context(), "shop", 0); !errors.Is(err, fault.ErrHost) || fault.Hint(err) == "" {
			t.Errorf("List: %v, want fault.ErrHost with a hint", err)
		}
	}
}

func TestHistory_LockedByAnother(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history.db")
	h, warnings := history(t, path)
	record(h, "shop", 1)
	db, err := sql.Open("sqlite", path)
	must(t, err)
	defer db.Close()
	db.SetMaxOpenConns(1)
	_, err = db.Exec("BEGIN EXCLUSIVE")
	must(t, err)
	before := time.Now()
	record(h, "shop", 5)
	if took := time.Since(before); took > 10*time.Second {
		t.Errorf("held up for %v", took)
	}
	one(t, warnings, "locked")
}

func TestHistory_WarningMayComeBackAsEvent(t *testing.T) {
	var h *state.History
	told := 0
	h = state.OpenHistory(filepath.Join(t.TempDir(), "none", "history.db"), func(err error) {
		told++
		h.Event(event.Event{Event: event.Warning, Detail: err.Error()})
	})
	record(h, "shop", 2)
	if told != 1 {
		t.Errorf("told %d times", told)
	}
}

func TestHistory_IsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history.db")
	h, warnings := history(t, path)
	record(h, "shop", 250)
	record(h, "other", 1)
	ops, err := h.List(t.Context(), "shop", 0)
	must(t, err)
	if len(ops) != 250 {
		t.Fatalf("%d operations", len(ops))
	}
	with := 0
	for _, op := range ops {
		events, err := h.Events(t.Context(), op.ID)
		must(t, err)
		if len(events) > 0 {
			with++
		}
	}
	if with != 200 {
		t.Errorf("%d operations have events, want 200", with)
	}
	must(t, h.Close())

	// As many as would take long to record one by one.
	db, err := sql.Open("sqlite", path)
	must(t, err)
	_, err = db.Exec(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 900)
		INSERT INTO operations (service, verb, outcome, process, started) SELECT 'shop', 'stop', 'done', '', '' FROM n;
		WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 6000)
		INSERT INTO events (time, event, service, revision, instance, container, cause, detail) SELECT '', 'note', 'shop', '', '', '', '', '' FROM n`)
	must(t, err)
	record(h, "shop", 1)
	for query, want := range map[string]int{
		"SELECT count(*) FROM operations WHERE service = 'shop'":                         1000,
		"SELECT count(*) FROM operations WHERE service = 'other'":                        1,
		"SELECT count(*) FROM events WHERE operation IS NULL":                            5000,
		"SELECT count(*) FROM events WHERE operation NOT IN (SELECT id FROM operations)": 0,
	} {
		var n int
		must(t, db.QueryRow(query).Scan(&n))
		if n > want || n < want/2 {
			t.Errorf("%s: %d, want %d", query, n, want)
		}
	}
	must(t, db.Close())
	none(t, warnings)
}

func TestHistory_CutsLongTexts(t *testing.T) {
	h, _ := history(t, filepath.Join(t.TempDir(), "history.db"))
	id := h.Begin(state.Operation{Service: "shop"})
	h.Event(event.Event{Service: "shop", Detail: strings.Repeat("é", 100_000)})
	events, err := h.Events(t.Context(), id)
	must(t, err)
	if n := len(events[0].Detail); n > 66_000 || !strings.HasSuffix(events[0].Detail, "bytes more)") {
		t.Errorf("%d bytes", n)
	}
}

func BenchmarkHistory_Command(b *testing.B) {
	path := filepath.Join(b.TempDir(), "history.db")
	h, _ := history(b, path)
	record(h, "shop", 100)
	_ = h.Close()
	b.ResetTimer()
	for range b.N {
		h, _ := history(b, path)
		record(h, "shop", 1)
		_ = h.Close()
	}
}

func BenchmarkHistory_CommandWithoutClose(b *testing.B) {
	path := filepath.Join(b.TempDir(), "history.db")
	h, _ := history(b, path)
	record(h, "shop", 100)
	b.ResetTimer()
	for range b.N {
		h, _ := history(b, path)
		record(h, "shop", 1)
	}
}

func BenchmarkHistory_Event(b *testing.B) {
	h, _ := history(b, filepath.Join(b.TempDir(), "history.db"))
	h.Begin(state.Operation{Service: "shop"})
	for b.Loop() {
		h.Event(event.Event{Event: event.Created, Service: "shop", Detail: "detail"})
	}
}

func TestHistory_TellsUpgradesThatEnded(t *testing.T) {
	h, warnings := history(t, filepath.Join(t.TempDir(), "history.db"))
	noon := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	for _, op := range []state.Operation{
		{Service: "shop", Verb: "upgrade", To: "long ago", Ended: noon.Add(-time.Hour)},
		{Service: "shop", Verb: "upgrade", To: "at noon", Ended: noon},
		// Texts of these two are in another order than their times.
		{Service: "shop", Verb: "upgrade", To: "a tenth", Ended: noon.Add(100 * time.Millisecond)},
		{Service: "blog", Verb: "upgrade", To: "a second", Ended: noon.Add(time.Second)},
		{Service: "blog", Verb: "restart", To: "no upgrade", Ended: noon.Add(time.Minute)},
		{Service: "blog", Verb: "upgrade", To: "a day", Ended: noon.Add(24 * time.Hour), Outcome: "failed"},
	} {
		h.End(h.Begin(state.Operation{Service: op.Service, Verb: op.Verb, To: op.To, Started: noon.Add(-2 * time.Hour)}), op)
	}
	h.Begin(state.Operation{Service: "shop", Verb: "upgrade", To: "under way"})
	for after, want := range map[time.Time]string{
		noon.Add(-2 * time.Hour):         "long ago, at noon, a tenth, a second, a day",
		noon.Add(-1):                     "at noon, a tenth, a second, a day",
		noon:                             "a tenth, a second, a day",
		noon.Add(100 * time.Millisecond): "a second, a day",
		noon.Add(time.Second):            "a day",
		noon.Add(24 * time.Hour):         "",
	} {
		ops, err := h.Upgrades(t.Context(), after.In(time.FixedZone("", 7200)))
		var got []string
		for _, op := range ops {
			got = append(got, op.To)
		}
		if err != nil || strings.Join(got, ", ") != want {
			t.Errorf("after %s: %q, %v, want %q", after, got, err, want)
		}
	}
	none(t, warnings)
}
