// Package remote is the port to the conductors of other hosts: a request goes
// there, is done by the conductor of that host, and its answer comes back.
//
// Two kinds of program meet here. The near end, where somebody deploys, asks
// through a Transport (remote/ssh is it for real, remotetest in memory). The far
// end is "conductor session" (internal/session), which reads what wire.go and
// request.go describe. Both may import this room; it imports fault alone.
package remote

import (
	"context"
	"errors"
	"io"
	"strings"
	"unicode"

	"conductor/internal/fault"
)

// Transport reaches hosts.
//
// Its methods are safe for concurrent use. Constructors connect nothing.
type Transport interface {
	// Do opens a session on the host, sends the request, gives its streams, and
	// returns when the session is over. It tries once: whether a request may be
	// repeated is for whoever knows what it does. A host takes so many sessions
	// at once (10 over ssh, each Hold is one); Do waits for its turn.
	//
	// Errors:
	//   - fault.ErrUnreachable: the connection could not be had, or was cut. If
	//     errors.Is(err, ErrCut), the session had begun: what was asked may have
	//     been done, may go on, or may have stopped half-way. Else nothing of it
	//     has happened.
	//   - fault.ErrHost: the host was reached, and its conductor could not be
	//     started: not installed (ErrNoConductor), or sudo refuses. Nothing of
	//     the request has happened.
	//   - *ExitError: the host's conductor did not end with exit code 0. But for
	//     Exec, whose codes are those of what it ran, it also has the class of
	//     fault that the code stands for. That may be fault.ErrUnreachable again,
	//     of the host's own engine; Unreached tells them apart.
	//   - fault.ErrUsage: the host's address or the request cannot be used. No
	//     connection was tried.
	//   - otherwise the context's cause, or an error of a stream's own.
	//
	// When ctx ends, what comes next is by Request.Do.Input: where the far end
	// can be told, it is, and Do goes on until it has come to its clean end, whose
	// outcome is returned, nil included; it is given a while for that. Otherwise
	// the session is closed at once, and the context's cause returned.
	Do(ctx context.Context, host Host, r Request, s Streams) error

	// Close ends all connections; sessions that are under way are cut. Do fails
	// from then on. It may be called more than once.
	Close() error
}

// Streams are what passes in a session. Any may be nil.
type Streams struct {
	// Stdin is read for requests whose Input is Bytes, from the moment on that
	// the far end runs until EOF or the end of the session. Do does not wait for
	// a Read that is under way when the session ends; what that one gets is lost.
	Stdin io.Reader
	// Take, closed, tells the far end of a Hold that attends to take the lock.
	Take <-chan struct{}
	// Stdout and Stderr get what the far end writes, without what login shells
	// say before it begins. Each is written to by one goroutine at a time, by
	// none once Do has returned. An error of a write ends the session.
	Stdout, Stderr io.Writer
}

// Host is where a host is.
type Host struct {
	Name string // as people call it, for messages
	SSH  string // the destination as ssh takes it: "deploy@192.0.2.1", "jobs1"
	Port int    // 0: as ssh is configured, else 22
}

// Check says whether the host's address may be given to ssh at all, in which
// neither an option nor anything for a shell can hide: ssh's own configuration
// may put the name of a host into a command (ProxyCommand, Match exec).
func (h Host) Check() error {
	const hint = "give a name of ~/.ssh/config, a host name or an address, with USER@ before it where needed"
	wrong := func(why string) error {
		return fault.New(fault.ErrUsage, hint, "host %s: the ssh destination %q %s", h.Name, h.SSH, why)
	}
	user, name, has := cutLast(h.SSH, "@")
	switch {
	case h.SSH == "":
		return wrong("is empty")
	case name == "" || has && user == "":
		return wrong("has nothing before or after its @")
	case strings.HasPrefix(user, "-") || strings.HasPrefix(name, "-"):
		return wrong("begins with -, as an option does")
	case strings.ContainsFunc(h.SSH, func(r rune) bool {
		return unicode.IsSpace(r) || !unicode.IsPrint(r) || r == unicode.ReplacementChar || strings.ContainsRune("'\"`$\\;&|<>(){}*?!#~,^=/", r)
	}):
		return wrong("has a character in it that no destination has")
	case h.Port < 0 || h.Port > 65535:
		return fault.New(fault.ErrUsage, "a port is 1 to 65535", "host %s: port %d cannot be", h.Name, h.Port)
	}
	return nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return "", s, false
}

// Unreached says whether err is of the connection, and not of what the host's
// conductor answered.
func Unreached(err error) bool {
	_, answered := errors.AsType[*ExitError](err)
	return !answered && errors.Is(err, fault.ErrUnreachable)
}

var (
	// ErrCut is beside fault.ErrUnreachable where a session had begun.
	ErrCut = errors.New("cut")
	// ErrNoConductor is beside fault.ErrHost where the host has none, or one
	// that knows no sessions.
	ErrNoConductor = errors.New("no conductor")
	// ErrClosed: the transport was closed.
	ErrClosed = errors.New("the connections were closed")
)
