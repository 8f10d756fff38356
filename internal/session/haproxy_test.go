package session

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"conductor/internal/fault"
)

// serve listens at a socket like HAProxy's, for one connection.
func serve(t *testing.T, answer func(line string, c net.Conn)) (socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "ct-session-") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket = filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		line, err := bufio.NewReader(c).ReadString('\n')
		if err == nil {
			answer(line, c)
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return socket
}

func TestHAProxy_SendsAllOverOneConnection(t *testing.T) {
	socket := serve(t, func(line string, c net.Conn) { fmt.Fprintf(c, "it was told %q", line) })
	got, err := HAProxy(t.Context(), socket, "set server shop/web1 state ready\nset server shop/web-2.x:1_ state drain\nshow servers state shop\nshow stat shop 4 -1\nshow info")
	want := `it was told "set server shop/web1 state ready;set server shop/web-2.x:1_ state drain;show servers state shop;show stat shop 4 -1;show info\n"`
	if err != nil || got != want {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
}

func TestHAProxy_PassesNothingElseOn(t *testing.T) {
	for _, lines := range []string{
		"", "\n", "help", "show info\n", "show info;shutdown frontend web", "show env", "show cli sockets", "disable server shop/web1",
		"set server shop/web1 addr 192.0.2.1", "set server shop/web1 state ready;quit", "set server shop/web1 state ready\nset server shop/web2 weight 0",
		"@1 show info", " show info", "show stat shop\\", "show info\r", "set server shop/we\x00b state drain", "set server shop/a/b state drain",
	} {
		if _, err := HAProxy(t.Context(), "/nowhere", lines); !errors.Is(err, fault.ErrUsage) {
			t.Errorf("%q: %v, want ErrUsage", lines, err)
		}
	}
}

func TestHAProxy_EndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	socket := serve(t, func(_ string, c net.Conn) {
		cancel() // and it never answers
		_, _ = io.Copy(io.Discard, c)
	})
	if _, err := HAProxy(ctx, socket, "show info"); !errors.Is(err, context.Canceled) {
		t.Errorf("HAProxy: %v, want canceled", err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	socket = serve(t, func(_ string, c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	if _, err := HAProxy(ctx, socket, "show info"); !errors.Is(err, fault.ErrUnreachable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("HAProxy: %v, want ErrUnreachable", err)
	}
}

func TestHAProxy_BoundsTheAnswer(t *testing.T) {
	socket := serve(t, func(_ string, c net.Conn) {
		line := strings.Repeat("x", 1<<20)
		for range haproxyAnswer>>20 + 1 {
			if _, err := io.WriteString(c, line); err != nil {
				return // it has had enough
			}
		}
	})
	if _, err := HAProxy(t.Context(), socket, "show info"); !errors.Is(err, fault.ErrHost) {
		t.Errorf("HAProxy: %v, want ErrHost", err)
	}
}

func TestHAProxy_WaitsForAReload(t *testing.T) {
	dir, err := os.MkdirTemp("", "ct-session-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "s")
	done := make(chan error, 1)
	go func() {
		text, err := HAProxy(t.Context(), socket, "show info")
		if err == nil && text != "here" {
			err = fmt.Errorf("it answered %q", text)
		}
		done <- err
	}()
	later := time.AfterFunc(100*time.Millisecond, func() {
		l, err := net.Listen("unix", socket)
		if err != nil {
			return
		}
		defer l.Close()
		if c, err := l.Accept(); err == nil {
			_, _ = bufio.NewReader(c).ReadString('\n')
			fmt.Fprint(c, "here")
			c.Close()
		}
	})
	defer later.Stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestHAProxy_SaysWhatIsNotThere(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		socket string
		class  error
		words  string
	}{
		{filepath.Join(dir, "none"), fault.ErrUnreachable, "there is no such socket"},
		{file, fault.ErrUnreachable, "nobody listens there"},
		{"admin.sock", fault.ErrDefinition, "not an absolute path"},
	} {
		if _, err := HAProxy(t.Context(), c.socket, "show info"); !errors.Is(err, c.class) || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v, want %v, %q", c.socket, err, c.class, c.words)
		}
	}
}
