package cli

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"syscall"

	"conductor/internal/balancer"
	"conductor/internal/display"
	"conductor/internal/engine"
	"conductor/internal/fault"
	"conductor/internal/proxy"
	"conductor/internal/spec"
)

// exitCodes is the table of exit codes, which is a contract with users. The
// errors of the ports are in it for what no room above has put in a class.
var exitCodes = []struct {
	class error
	code  int
}{
	{fault.ErrUsage, 2},
	{fault.ErrDefinition, 3},
	{fault.ErrImage, 4},
	{fault.ErrUnhealthy, 5},
	{fault.ErrProxyRefused, 6},
	{fault.ErrLocked, 7},
	{fault.ErrUnreachable, 8},
	{fault.ErrHost, 9},
	{fault.ErrTimeout, 124},
	{fault.ErrInterrupted, 130},

	{engine.ErrUnreachable, 8},
	{engine.ErrNoSpace, 9},
	{proxy.ErrRefused, 6},
	{balancer.ErrUnknown, 3},
	{balancer.ErrRefused, 6},
	{balancer.ErrUnreachable, 8},
	{proxy.ErrNotRestored, 6},
	{proxy.ErrUnreachable, 8},
	{proxy.ErrUnsupported, 9},
	{fs.ErrPermission, 9},
	{syscall.ENOSPC, 9},
	{syscall.EDQUOT, 9},
	{syscall.EROFS, 9},
}

// Code returns the exit code of an error: that of the outermost class in its
// chain. Of several errors joined, the first one that has a class decides, and
// they are in the order of the services' ids.
func Code(err error) int {
	if err == nil {
		return 0
	}
	if code := classCode(err); code != 0 {
		return code
	}
	return 1
}

func classCode(err error) int {
	for _, e := range exitCodes {
		if err == e.class {
			return e.code
		}
		if is, ok := err.(interface{ Is(error) bool }); ok && is.Is(e.class) {
			return e.code
		}
	}
	switch u := err.(type) {
	case interface{ Unwrap() error }:
		if e := u.Unwrap(); e != nil {
			return classCode(e)
		}
	case interface{ Unwrap() []error }:
		for _, e := range u.Unwrap() {
			if e == nil {
				continue
			}
			if code := classCode(e); code != 0 {
				return code
			}
		}
	}
	return 0
}

// ended gives an error that is there only because ctx has ended the class of
// the reason for that.
func ended(ctx context.Context, err error) error {
	if ctx == nil || ctx.Err() == nil || classCode(err) != 0 {
		return err
	}
	if !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, fault.ErrTimeout):
		return fault.New(fault.ErrTimeout, "give --timeout more, or leave it away", "--timeout passed: %w", err)
	case errors.Is(cause, fault.ErrInterrupted):
		return fault.New(fault.ErrInterrupted, "", "interrupted: %w", err)
	}
	return err
}

// failures puts an error into words: one failure for each error that is joined
// in it, and for each mistake in a definition, whose place says enough of what
// was tried.
func failures(err error) []display.Failure {
	if parts := joined(err); parts != nil {
		var fs []display.Failure
		for _, e := range parts {
			fs = append(fs, failures(e)...)
		}
		return fs
	}
	if ps, ok := errors.AsType[spec.Problems](err); ok {
		fs := make([]display.Failure, len(ps))
		for i, p := range ps {
			hint := p.Hint
			p.Hint = ""
			fs[i] = display.Failure{Text: p.String(), Hint: hint}
		}
		return fs
	}
	return []display.Failure{{Text: err.Error(), Hint: fault.Hint(err)}}
}

// joined returns the errors that errors.Join put together, nil for any other.
func joined(err error) []error {
	u, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return nil
	}
	parts := u.Unwrap()
	texts := make([]string, 0, len(parts))
	for _, e := range parts {
		texts = append(texts, e.Error())
	}
	if len(parts) == 0 || err.Error() != strings.Join(texts, "\n") {
		return nil // fault.Error and fmt.Errorf say something of their own
	}
	return parts
}
