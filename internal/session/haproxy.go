package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"conductor/internal/fault"
)

const (
	// haproxyTimeout bounds one exchange with HAProxy, which takes a millisecond.
	haproxyTimeout = 10 * time.Second
	// haproxyAnswer bounds an answer: 10,000 servers have some 5 MB.
	haproxyAnswer = 8 << 20
	// haproxyRebind is how long a socket may be away or deaf while HAProxy
	// reloads.
	haproxyRebind = time.Second
)

// haproxyCommands are those that a session passes on: a fleet looks, and takes
// servers out and in. No word of them can end the command.
var haproxyCommands = regexp.MustCompile(`^(show (info|stat|servers state)( [A-Za-z0-9_.:-]+)*|set server [A-Za-z0-9_.:-]+/[A-Za-z0-9_.:-]+ state (ready|drain|maint))$`)

// HAProxy sends commands, one a line, over one connection to the socket of
// HAProxy's runtime API on this host, and returns all that it answers.
//
// Errors: fault.ErrUsage for a command that is none of a fleet's,
// fault.ErrUnreachable where nobody answers, fault.ErrHost where this process
// may not ask.
func HAProxy(ctx context.Context, socket, lines string) (string, error) {
	commands := strings.Split(lines, "\n")
	for _, c := range commands {
		if !haproxyCommands.MatchString(c) {
			return "", fault.New(fault.ErrUsage, "", "tell HAProxy %q: a session does not pass that on", c)
		}
	}
	if !filepath.IsAbs(socket) {
		return "", fault.New(fault.ErrDefinition, "write balancer.socket as an absolute path", "HAProxy's socket %q is not an absolute path", socket)
	}
	ctx, cancel := context.WithTimeout(ctx, haproxyTimeout)
	defer cancel()
	conn, err := dialHAProxy(ctx, socket)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if _, err := io.WriteString(conn, strings.Join(commands, ";")+"\n"); err != nil {
		return "", brokenOff(ctx, socket, err)
	}
	text, err := io.ReadAll(io.LimitReader(conn, haproxyAnswer+1))
	if err != nil {
		return "", brokenOff(ctx, socket, err)
	}
	if len(text) > haproxyAnswer {
		return "", fault.New(fault.ErrHost, "", "ask HAProxy at %s: it answers with more than %d MB", socket, haproxyAnswer>>20)
	}
	return string(text), nil
}

// dialHAProxy tries for a moment: a reload may bind the socket anew.
func dialHAProxy(ctx context.Context, socket string) (net.Conn, error) {
	var d net.Dialer
	for began := time.Now(); ; {
		conn, err := d.DialContext(ctx, "unix", socket)
		if err == nil {
			return conn, nil
		}
		gone := errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
		if gone && ctx.Err() == nil && time.Since(began) < haproxyRebind {
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
			continue
		}
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil, fault.New(fault.ErrUnreachable, "start HAProxy; its global section needs: stats socket "+socket+" mode 600 level admin", "ask HAProxy at %s: there is no such socket", socket)
		case errors.Is(err, syscall.ECONNREFUSED):
			return nil, fault.New(fault.ErrUnreachable, "look whether HAProxy runs", "ask HAProxy at %s: nobody listens there", socket)
		case errors.Is(err, fs.ErrPermission):
			return nil, fault.New(fault.ErrHost, "let who runs the session open it, as root or by the socket's mode", "ask HAProxy at %s: %w", socket, err)
		case ctx.Err() != nil:
			return nil, brokenOff(ctx, socket, err)
		}
		return nil, fault.New(fault.ErrUnreachable, "look whether balancer.socket is HAProxy's", "ask HAProxy: %w", err)
	}
}

func brokenOff(ctx context.Context, socket string, err error) error {
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fault.New(fault.ErrUnreachable, "look whether HAProxy hangs", "ask HAProxy at %s: no answer in time: %w", socket, ctx.Err())
	case ctx.Err() != nil:
		return fmt.Errorf("ask HAProxy at %s: %w", socket, ctx.Err())
	}
	return fault.New(fault.ErrUnreachable, "look whether HAProxy runs", "ask HAProxy at %s: it broke off: %w", socket, err)
}
