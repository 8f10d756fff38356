// Package fault gives an error the next thing to do, and a class that decides
// the exit code.
//
// Any room may import it; it imports none.
package fault

import (
	"errors"
	"fmt"
)

// The classes of failure that a caller can tell apart. Each is one exit code
// of the command line (internal/cli holds the table).
var (
	// ErrUsage: the request itself is wrong.
	ErrUsage = errors.New("wrong usage")
	// ErrDefinition: the service is unknown, or its definition is not valid,
	// or two services claim one route.
	ErrDefinition = errors.New("definition")
	// ErrImage: the image of the revision cannot be had.
	ErrImage = errors.New("image")
	// ErrUnhealthy: the new release did not become healthy.
	ErrUnhealthy = errors.New("unhealthy")
	// ErrProxyRefused: the proxy refused or did not take the configuration.
	ErrProxyRefused = errors.New("proxy refused")
	// ErrLocked: another command holds the lock of the service.
	ErrLocked = errors.New("locked")
	// ErrUnreachable: the engine or the proxy does not answer.
	ErrUnreachable = errors.New("unreachable")
	// ErrHost: the host cannot: disk, permission, a secret that cannot be read.
	ErrHost = errors.New("host")
	// ErrTimeout: the time that the caller allowed is over.
	ErrTimeout = errors.New("timeout")
	// ErrInterrupted: the caller asked to stop.
	ErrInterrupted = errors.New("interrupted")
)

// Error is an error with its class and the next thing to do.
type Error struct {
	Class error  // one of the Err values of this package
	Hint  string // what to do next, in words; may be empty
	Err   error  // what happened
}

func (e *Error) Error() string { return e.Err.Error() }

// Unwrap lets errors.Is find both the class and the cause.
func (e *Error) Unwrap() []error { return []error{e.Class, e.Err} }

// New returns an error of the class, with a hint, its text formatted as by
// fmt.Errorf.
func New(class error, hint, format string, args ...any) error {
	return &Error{Class: class, Hint: hint, Err: fmt.Errorf(format, args...)}
}

// Hint returns the hint of the outermost error in err's chain that has one.
func Hint(err error) string {
	var e *Error
	for errors.As(err, &e) {
		if e.Hint != "" {
			return e.Hint
		}
		err = e.Err
	}
	return ""
}
