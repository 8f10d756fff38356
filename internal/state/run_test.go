package state

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"conductor/internal/fault"
)

func TestRuns_AreKeptUntilThereAreTooMany(t *testing.T) {
	h := OpenHistory(filepath.Join(t.TempDir(), "history.db"), func(err error) { t.Error(err) })
	defer h.Close()
	began := time.Now().Add(-time.Minute).UTC()
	one := Run{Name: "shop.v1.1a2b-run-1", Service: "shop", Revision: "v1", Release: "1a2b", Command: []string{"sh", "-c", "a 'b'"}, User: "root", Started: began}
	h.BeginRun(one)
	h.BeginRun(Run{Name: one.Name, Service: "other"}) // its name is taken
	h.BeginRun(Run{Name: "mail.v1.1a2b-run-2", Service: "mail", Started: began})
	got, err := h.Runs(t.Context(), "shop", 0)
	if err != nil || len(got) != 1 || got[0].Outcome != "" || strings.Join(got[0].Command, "|") != "sh|-c|a 'b'" || !got[0].Started.Equal(began) {
		t.Fatalf("under way: %+v, %v", got, err)
	}
	one.Code, one.Outcome, one.Ended, one.Memory = 3, "failed", time.Now(), 1<<20
	h.EndRun(one)
	one.Code, one.Outcome = 0, "ok"
	h.EndRun(one) // too late
	got, err = h.Runs(t.Context(), "", 0)
	if err != nil || len(got) != 2 || got[1].Code != 3 || got[1].Outcome != "failed" || got[1].Memory != 1<<20 {
		t.Fatalf("ended: %+v, %v", got, err)
	}
}

func TestRuns_OfAProcessThatIsGoneAreInterrupted(t *testing.T) {
	h := OpenHistory(filepath.Join(t.TempDir(), "history.db"), func(err error) { t.Error(err) })
	defer h.Close()
	h.self = "boot/1/2"
	h.BeginRun(Run{Name: "a", Service: "shop", Started: time.Now()})
	got, err := h.Runs(t.Context(), "shop", 0)
	if err != nil || len(got) != 1 || got[0].Outcome != Interrupted {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestLockRun(t *testing.T) {
	d, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	release, err := d.LockRun(t.Context(), "nightly", false, Holder{Verb: "run", Revision: "v1", User: "ada"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = d.LockRun(t.Context(), "nightly", false, Holder{})
	if !errors.Is(err, fault.ErrLocked) || !strings.Contains(err.Error(), "ada") || !strings.Contains(err.Error(), "lock nightly") {
		t.Errorf("taken: %v", err)
	}
	if other, err := d.LockRun(t.Context(), "weekly", false, Holder{}); err != nil {
		t.Errorf("another: %v", err)
	} else {
		other()
	}
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := d.LockRun(short, "nightly", true, Holder{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waited for: %v", err)
	}
	got := make(chan error)
	go func() {
		release, err := d.LockRun(t.Context(), "nightly", true, Holder{})
		if err == nil {
			release()
		}
		got <- err
	}()
	release()
	if err := <-got; err != nil {
		t.Errorf("after the wait: %v", err)
	}
	for _, name := range []string{"", "../x", ".proxy", "a b", "a/b", strings.Repeat("x", 129)} {
		if _, err := d.LockRun(t.Context(), name, true, Holder{}); !errors.Is(err, fault.ErrUsage) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestRunLog_KeepsTheEnd(t *testing.T) {
	d, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	w, err := d.RunLog("shop.v1.1a2b-run-1")
	if err != nil {
		t.Fatal(err)
	}
	line := bytes.Repeat([]byte("x"), 1<<16)
	for range 300 { // 19 MB
		if n, err := w.Write(line); n != len(line) || err != nil {
			t.Fatal(n, err)
		}
	}
	if _, err := w.Write([]byte("the end")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := d.ReadRunLog("shop.v1.1a2b-run-1", &b); err != nil {
		t.Fatal(err)
	}
	if b.Len() < maxRunLog || b.Len() > 2*maxRunLog || !strings.HasSuffix(b.String(), "the end") {
		t.Errorf("%d bytes are kept, want %d to %d, and the end", b.Len(), maxRunLog, 2*maxRunLog)
	}
	if err := d.ReadRunLog("shop.v1.1a2b-run-2", &b); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no log: %v", err)
	}
}

// What is kept of a log is replaced by no less, and by nothing that failed.
func TestCompleteRunLog(t *testing.T) {
	long := strings.Repeat("0123456789abcdef", maxRunLog/8) // two files, the first one full
	failed := errors.New("failed")
	for name, test := range map[string]struct {
		heard, whole string
		err          error
		want         string
	}{
		"more":              {heard: "begun\n", whole: "begun\nmore\n", want: "begun\nmore\n"},
		"nothing":           {heard: "begun\n", want: "begun\n"},
		"less":              {heard: "begun\nmore\n", whole: "more\n", want: "begun\nmore\n"},
		"nothing was heard": {whole: "begun\n", want: "begun\n"},
		"fails":             {heard: "begun\n", whole: "begun\nmo", err: failed, want: "begun\n"},
		"a long one":        {heard: "begun\n", whole: long, want: long},
		"less than a long":  {heard: long, whole: "begun\n", want: long},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := Open(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			const block = 1 << 16
			write := func(to io.Writer, text string) {
				for b := range slices.Chunk([]byte(text), block) {
					if _, err := to.Write(b); err != nil {
						t.Fatal(err)
					}
				}
			}
			if test.heard != "" {
				w, err := d.RunLog("run-1")
				if err != nil {
					t.Fatal(err)
				}
				write(w, test.heard)
				w.Close()
			}
			err = d.CompleteRunLog("run-1", func(w io.Writer) error {
				write(w, test.whole)
				return test.err
			})
			if !errors.Is(err, test.err) {
				t.Error(err)
			}
			var b bytes.Buffer
			if err := d.ReadRunLog("run-1", &b); err != nil {
				t.Fatal(err)
			}
			if b.String() != test.want {
				t.Errorf("%d bytes, want %d", b.Len(), len(test.want))
			}
			if left, _ := filepath.Glob(filepath.Join(d.runDir(), "*whole*")); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

func TestRunLog_OldOnesGo(t *testing.T) {
	d, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for n := range keepRunLogs + 20 {
		name := "r" + strings.Repeat("i", n)[:n%200] + "-" + time.Duration(n).String()
		w, err := d.RunLog(name)
		if err != nil {
			t.Fatal(err)
		}
		w.Close()
		at := time.Now().Add(time.Duration(n-1000) * time.Second)
		if err := os.Chtimes(filepath.Join(d.runDir(), name+".log"), at, at); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(d.runDir())
	if err != nil || len(entries) != keepRunLogs {
		t.Errorf("%d logs, want %d: %v", len(entries), keepRunLogs, err)
	}
	if err := d.ReadRunLog("r-0s", &bytes.Buffer{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the oldest: %v", err)
	}
}
