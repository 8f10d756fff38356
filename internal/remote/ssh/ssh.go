// Package ssh reaches hosts by the system's own ssh, so that people's
// configuration, keys, agents and jump hosts work as they do by hand.
//
// Each host has one connection, a master (see ControlMaster in ssh_config(5))
// that is a child of this process and dies with it; each request is a session on
// it. What a host is made to run is one constant command: what is asked is never
// in an argument or in a shell, here or there.
//
// It is an adapter of remote.Transport: cmd alone imports it.
package ssh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"conductor/internal/fault"
	"conductor/internal/remote"
	"conductor/internal/scratch"
)

// Options are what may be other than the default.
type Options struct {
	// Command is how ssh is called, "ssh" by default; ["ssh", "-F", "FILE"] for
	// instance. Where it has options that are also set here, its own win.
	Command []string
	Dir     string // where it runs; empty: here
	// Grace is how long a request that was interrupted may take to come to its
	// clean end. Default: 2 minutes.
	Grace time.Duration
}

// Transport is remote.Transport over ssh.
type Transport struct {
	command []string
	dir     string
	grace   time.Duration

	mu      sync.Mutex
	closed  bool
	folder  *scratch.Folder // of sockets and logs; nil: not made yet
	count   int             // of what was put into it
	masters map[key]*master
	open    sync.WaitGroup // sessions and masters
}

// key is what makes a connection: hosts of different names may share one.
type key struct {
	destination string
	port        int
}

// New returns a transport that has no connections yet.
func New(o Options) *Transport {
	t := &Transport{command: slices.Clone(o.Command), dir: o.Dir, grace: o.Grace, masters: map[key]*master{}}
	if len(t.command) == 0 {
		t.command = []string{"ssh"}
	}
	if t.grace == 0 {
		t.grace = 2 * time.Minute
	}
	return t
}

// Do is remote.Transport's.
func (t *Transport) Do(ctx context.Context, host remote.Host, r remote.Request, s remote.Streams) error {
	if err := host.Check(); err != nil {
		return err
	}
	line, err := r.Encode()
	if err != nil {
		return err
	}
	return t.session(ctx, host, func() *exchange {
		return &exchange{far: farCommand, request: r, line: line, streams: s}
	})
}

// Root is remote.Bare's.
func (t *Transport) Root(ctx context.Context, host remote.Host, script io.Reader, s remote.Streams) error {
	if err := host.Check(); err != nil {
		return err
	}
	s.Stdin = script
	return t.session(ctx, host, func() *exchange {
		return &exchange{far: rootCommand, request: remote.Request{Do: remote.Root}, line: []byte(remote.Preamble()), streams: s}
	})
}

// session has an exchange on the host's connection.
func (t *Transport) session(ctx context.Context, host remote.Host, exchange func() *exchange) error {
	for anew := 0; ; {
		m, err := t.master(host)
		if err != nil {
			return err
		}
		if err := m.connected(ctx, host); err != nil {
			return err
		}
		x := exchange()
		x.transport, x.master, x.host = t, m, host
		leave, err := m.places.enter(ctx, x.request.Do.Lasts())
		switch {
		case errors.Is(err, errRefused):
			return refusal(host)
		case err != nil:
			return fmt.Errorf("%s: wait for one of its %d sessions to end: %w", host.Name, m.places.most(), err)
		}
		if m.ended() && anew == 0 { // while it waited
			leave(false)
			anew++
			continue
		}
		err = x.run(ctx)
		if again := leave(errors.Is(err, errRefused)); !again {
			return err
		}
	}
}

// master returns the host's connection, a new one where there is none or it
// has ended. It may not be connected yet.
func (t *Transport) master(host remote.Host) (*master, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, fmt.Errorf("%s: %w", host.Name, remote.ErrClosed)
	}
	k := key{host.SSH, host.Port}
	if m := t.masters[k]; m != nil && !m.ended() {
		return m, nil
	}
	if err := t.makeFolder(); err != nil {
		return nil, fault.New(fault.ErrHost, "set TMPDIR to a folder with room", "make a folder for ssh's sockets: %w", err)
	}
	m := newMaster(t.command, t.dir, host, t.path("m"), t.path("m.log"))
	t.masters[k] = m
	t.open.Go(m.run)
	return m, nil
}

// longest is how long a socket's path may be, less what ssh adds while it makes
// it.
const longest = 104 - 18

// makeFolder makes the folder, which nobody else can look into.
func (t *Transport) makeFolder() (err error) {
	if t.folder != nil {
		return nil
	}
	parent := os.TempDir()
	if len(parent) > longest-len("/conductor-1234567890/m12345") {
		parent = "/tmp"
	}
	t.folder, err = scratch.New(parent, "conductor-")
	return err
}

// path is that of a new file in the folder; t.mu is held.
func (t *Transport) path(name string) string {
	t.count++
	return filepath.Join(t.folder.Path, fmt.Sprintf("%s%d", name, t.count))
}

// begin makes a session's log, unless the transport was closed.
func (t *Transport) begin() (log string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return "", remote.ErrClosed
	}
	t.open.Add(1)
	return t.path("s.log"), nil
}

// Close is remote.Transport's.
func (t *Transport) Close() error {
	t.mu.Lock()
	first := !t.closed
	t.closed = true
	t.mu.Unlock()
	for _, m := range t.masters { // nobody writes to it any more
		m.stop()
	}
	t.open.Wait()
	if !first || t.folder == nil {
		return nil
	}
	return t.folder.Close()
}
