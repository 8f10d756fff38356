package state

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

const (
	// maxRunLog is when the log of a run is begun anew, the part before kept
	// beside it: so a log has at most twice as many bytes, its last ones.
	maxRunLog = 5 << 20
	// keepRunLogs is how many logs are kept, over all services.
	keepRunLogs = 500
)

func (d *Dir) runDir() string { return filepath.Join(d.path, "runs") }

// RunLog makes the log of a run, and deletes the oldest ones where there are
// too many. What is written beyond the disk's room is lost without an error:
// the run matters more.
func (d *Dir) RunLog(run string) (io.WriteCloser, error) {
	if err := makeDir(d.runDir()); err != nil {
		return nil, hostError(d.path, fmt.Errorf("make the log of run %s: %w", run, err))
	}
	d.sweepRunLogs()
	l := &runLog{path: filepath.Join(d.runDir(), filepath.Base(run)+".log")}
	if err := l.open(); err != nil {
		return nil, hostError(d.path, fmt.Errorf("make the log of run %s: %w", run, err))
	}
	return l, nil
}

// CompleteRunLog puts what write gives in the place of the run's log, unless
// write fails or gives less than there is: the engine too forgets what a
// container said, and then what was heard of it is all that is left.
func (d *Dir) CompleteRunLog(run string, write func(io.Writer) error) error {
	w, err := d.RunLog(run + ".whole")
	if err != nil {
		return err
	}
	whole, kept := w.(*runLog).path, filepath.Join(d.runDir(), filepath.Base(run)+".log")
	err = errors.Join(write(w), w.Close())
	if err != nil || runLogSize(whole) < runLogSize(kept) {
		_ = os.Remove(whole)
		_ = os.Remove(whole + ".1")
		return err
	}
	_ = os.Remove(kept + ".1")
	_ = os.Rename(whole+".1", kept+".1") // there is one only of a long log
	return os.Rename(whole, kept)
}

// runLogSize is how many bytes there are of a log.
func runLogSize(path string) (n int64) {
	for _, p := range []string{path, path + ".1"} {
		if i, err := os.Stat(p); err == nil {
			n += i.Size()
		}
	}
	return n
}

// ReadRunLog writes the log of a run that has ended, or as much as there is.
// fs.ErrNotExist: there is none, or no more.
func (d *Dir) ReadRunLog(run string, to io.Writer) error {
	path := filepath.Join(d.runDir(), filepath.Base(run)+".log")
	found := false
	for _, p := range []string{path + ".1", path} {
		f, err := os.Open(p)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return hostError(d.path, err)
		}
		found = true
		_, err = io.Copy(to, f)
		_ = f.Close()
		if err != nil {
			return err
		}
	}
	if !found {
		return fmt.Errorf("log of run %s: %w", run, fs.ErrNotExist)
	}
	return nil
}

// sweepRunLogs deletes the oldest logs. Failing costs disk space only.
func (d *Dir) sweepRunLogs() {
	entries, err := os.ReadDir(d.runDir())
	if err != nil || len(entries) < keepRunLogs {
		return
	}
	type log struct {
		path string
		at   int64
	}
	var logs []log
	for _, e := range entries {
		if i, err := e.Info(); err == nil && strings.HasSuffix(e.Name(), ".log") {
			logs = append(logs, log{filepath.Join(d.runDir(), e.Name()), i.ModTime().UnixNano()})
		}
	}
	slices.SortFunc(logs, func(a, b log) int { return cmp.Compare(b.at, a.at) })
	for _, l := range logs[min(len(logs), keepRunLogs-1):] {
		_ = os.Remove(l.path)
		_ = os.Remove(l.path + ".1")
	}
}

// runLog is safe for concurrent use: stdout and stderr go into one.
type runLog struct {
	path string
	mu   sync.Mutex
	f    *os.File
	n    int
}

func (l *runLog) open() (err error) {
	// Output may have secrets in it.
	l.f, err = os.OpenFile(l.path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	l.n = 0
	return err
}

func (l *runLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		return len(b), nil
	}
	if l.n > 0 && l.n+len(b) > maxRunLog {
		_ = l.f.Close()
		_ = os.Rename(l.path, l.path+".1")
		if l.open() != nil {
			l.f = nil
			return len(b), nil
		}
	}
	n, _ := l.f.Write(b)
	l.n += n
	return len(b), nil
}

func (l *runLog) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		return nil
	}
	f := l.f
	l.f = nil
	return f.Close()
}
