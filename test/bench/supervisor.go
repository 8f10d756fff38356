package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"regexp"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// supervisor is conductor supervise under way, and what it tells.
type supervisor struct {
	cmd   *exec.Cmd
	began time.Time
	at    string // of its metrics
	errs  bytes.Buffer
	done  chan struct{}

	mu   sync.Mutex
	told []told
	news chan struct{} // closed and replaced at each event
}

// told is one event.
type told struct {
	Time                                time.Time
	Event, Service, Instance, Container string
}

// supervise starts it; it dies with this process.
func (h *host) supervise(ctx context.Context) (*supervisor, error) {
	s := &supervisor{at: fmt.Sprintf("127.0.0.1:%d", h.freePort()), done: make(chan struct{}), news: make(chan struct{})}
	s.cmd = h.command(ctx, "--output", "json", "supervise", "--listen", s.at)
	s.cmd.Stderr = &s.errs
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	s.began = time.Now()
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		s.read(out)
		_ = s.cmd.Wait() // how it ended is seen by stop
		close(s.done)
	}()
	return s, nil
}

func (s *supervisor) read(out io.Reader) {
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var e told
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			continue
		}
		s.mu.Lock()
		s.told = append(s.told, e)
		close(s.news)
		s.news = make(chan struct{})
		s.mu.Unlock()
	}
}

// heard is how many events it has told so far.
func (s *supervisor) heard() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.told)
}

// each calls f with the events from the nth on, until it says that it has
// heard enough.
func (s *supervisor) each(ctx context.Context, n int, f func(told) bool) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	for {
		s.mu.Lock()
		fresh, news := s.told[n:], s.news
		s.mu.Unlock()
		for _, e := range fresh {
			if n++; f(e) {
				return nil
			}
		}
		if len(fresh) > 0 {
			continue
		}
		select {
		case <-news:
		case <-s.done:
			return fmt.Errorf("the supervisor has ended: %s", s.errs.String())
		case <-ctx.Done():
			return fmt.Errorf("not told by the supervisor: %w", ctx.Err())
		}
	}
}

// stop ends it; everything runs on.
func (s *supervisor) stop() error {
	_ = s.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-s.done:
	case <-time.After(10 * time.Second):
		_ = s.cmd.Process.Kill()
		<-s.done
		return errors.New("the supervisor does not end when it is told to")
	}
	if code := s.cmd.ProcessState.ExitCode(); code != 0 {
		return fmt.Errorf("the supervisor ended with code %d: %s", code, s.errs.String())
	}
	return nil
}

var goroutinesLine = regexp.MustCompile(`(?m)^go_goroutines (\d+)$`)

// goroutines is the least number of them that a few scrapes find: a probe
// under way has some of its own.
func (s *supervisor) goroutines(ctx context.Context) (least int, err error) {
	for n := range 10 {
		req, err := http.NewRequestWithContext(ctx, "GET", "http://"+s.at+"/metrics", nil)
		if err != nil {
			return 0, err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return 0, err
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			return 0, err
		}
		m := goroutinesLine.FindSubmatch(text)
		if m == nil {
			return 0, fmt.Errorf("%s/metrics does not tell goroutines: %.200s", s.at, text)
		}
		k, err := strconv.Atoi(string(m[1]))
		if err != nil {
			return 0, err
		}
		if n == 0 || k < least {
			least = k
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return 0, err
		}
	}
	return least, nil
}

// pause waits so long.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// print writes what it told from the nth event on, with times since began.
func (s *supervisor) print(w io.Writer, n int, began time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.told[n:] {
		fmt.Fprintf(w, "%8.1f ms  %s %s\n", float64(e.Time.Sub(began))/1e6, e.Event, e.Instance)
	}
}
