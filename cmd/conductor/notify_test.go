package main

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"
)

// listen is where systemd would listen; said returns what was told since the
// last time that it was asked.
func listen(t *testing.T) (said func() []string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return func() (all []string) {
		// Datagrams of this process lie in the socket once they are sent: who
		// reads with a deadline that has passed would not see them.
		end := []byte("end of what was said")
		if _, err := conn.WriteToUnix(end, &net.UnixAddr{Name: path, Net: "unixgram"}); err != nil {
			t.Fatal(err)
		}
		for b := make([]byte, 4096); ; {
			n, err := conn.Read(b)
			if err != nil {
				t.Fatal(err)
			}
			if string(b[:n]) == string(end) {
				return all
			}
			all = append(all, string(b[:n]))
		}
	}
}

func TestNotifier_GivesSignsOfLifeInHalfTheTime(t *testing.T) {
	said := listen(t)
	t.Setenv("WATCHDOG_USEC", "30000000")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	count, err := 1, error(nil)
	n := newNotifier(func() (int, error) { return count, err })
	now := time.Now()
	for _, step := range []struct {
		name string
		do   func()
		want []string
	}{
		{"ready", func() { n.ready(now) }, []string{"READY=1\nSTATUS=looks after 1 service"}},
		{"too soon", func() { n.beat(now.Add(14 * time.Second)) }, nil},
		{"half the time", func() { count = 3; n.beat(now.Add(15 * time.Second)) }, []string{"WATCHDOG=1\nSTATUS=looks after 3 services"}},
		{"again too soon", func() { n.beat(now.Add(29 * time.Second)) }, nil},
		{"the number cannot be had", func() { err = errors.New("disk"); n.beat(now.Add(30 * time.Second)) }, []string{"WATCHDOG=1"}},
		{"the end", n.stopping, []string{"STOPPING=1\nSTATUS=ends; everything that runs runs on"}},
	} {
		step.do()
		if got := said(); !slices.Equal(got, step.want) {
			t.Errorf("%s: told %q, want %q", step.name, got, step.want)
		}
	}
}

// The watchdog of another process, as of the shell that started this one, is
// none of ours.
func TestNotifier_WatchdogOfSomebodyElse(t *testing.T) {
	t.Setenv("WATCHDOG_USEC", "1000000")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getppid()))
	if n := newNotifier(nil); n.every != signOfLife {
		t.Errorf("a sign of life every %s, want every %s", n.every, signOfLife)
	}
}

func TestNotifier_NobodyListens(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	n := newNotifier(func() (int, error) { return 0, nil })
	n.ready(time.Now())
	n.beat(time.Now().Add(time.Hour))
	n.stopping()
}
