package docker

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"conductor/internal/engine"
	"conductor/internal/fault"
)

// fail turns an error of the client into one of the port, under a text that
// names what was done to what: "stop container shop.v1".
func (e *Engine) fail(ctx context.Context, err error, format string, args ...any) error {
	what := fmt.Sprintf(format, args...)
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", what, ctx.Err())
	}
	msg := tidy(err)
	switch kind(err, msg) {
	case engine.ErrUnreachable:
		return fault.New(fault.ErrUnreachable, e.unreachableHint(msg), "%s: %w: %s", what, engine.ErrUnreachable, msg)
	case engine.ErrNoSpace:
		return fault.New(fault.ErrHost, "make room on the disk that holds the engine's data (docker system df)",
			"%s: %w: %s", what, engine.ErrNoSpace, msg)
	case engine.ErrNotFound:
		return fmt.Errorf("%s: %w: %s", what, engine.ErrNotFound, msg)
	case engine.ErrConflict:
		return fmt.Errorf("%s: %w: %s", what, engine.ErrConflict, msg)
	case engine.ErrCannotRun:
		return fmt.Errorf("%s: %w: %s", what, engine.ErrCannotRun, msg)
	}
	return fmt.Errorf("%s: %s", what, msg)
}

// failStart is fail for the start of a container, where whatever the engine
// itself answers means that this container cannot be started.
func (e *Engine) failStart(ctx context.Context, err error, format string, args ...any) error {
	msg := tidy(err)
	switch kind(err, msg) {
	case engine.ErrUnreachable, engine.ErrNoSpace, engine.ErrConflict:
		return e.fail(ctx, err, format, args...)
	case engine.ErrNotFound:
		// Its network may be what is not found: then it is there itself.
		if strings.Contains(strings.ToLower(msg), "no such container") {
			return e.fail(ctx, err, format, args...)
		}
	}
	if ctx.Err() != nil {
		return e.fail(ctx, err, format, args...)
	}
	return fmt.Errorf("%s: %w: %s", fmt.Sprintf(format, args...), engine.ErrCannotRun, msg)
}

// kind finds the port's error for an error of the client, or nil.
func kind(err error, msg string) error {
	if client.IsErrConnectionFailed(err) {
		return engine.ErrUnreachable
	}
	if m := refusal.FindStringSubmatch(msg); m != nil {
		return refusals[m[1]]
	}
	low := strings.ToLower(msg)
	for _, t := range noSpace {
		if strings.Contains(low, t) {
			return engine.ErrNoSpace
		}
	}
	if !answered(err) || cerrdefs.IsUnavailable(err) {
		return engine.ErrUnreachable
	}
	if cerrdefs.IsInternal(err) {
		for _, t := range engineDown {
			if strings.Contains(low, t) {
				return engine.ErrUnreachable
			}
		}
	}
	switch {
	case cerrdefs.IsNotFound(err):
		return engine.ErrNotFound
	case cerrdefs.IsConflict(err), strings.Contains(low, "is already in use by"):
		return engine.ErrConflict
	case strings.Contains(low, "bind source path does not exist"):
		return engine.ErrCannotRun
	}
	return nil
}

// refusal is all that the client tells of an answer other than a connection to
// carry streams over: its status.
var refusal = regexp.MustCompile(`^unable to upgrade to \S+, received (\d+)$`)

var refusals = map[string]error{"404": engine.ErrNotFound, "409": engine.ErrConflict, "503": engine.ErrUnreachable}

var (
	noSpace = []string{"no space left on device", "disk quota exceeded"}
	// engineDown are answers of an engine that is going down, or has lost the
	// containerd below it: nothing is wrong with what was asked.
	engineDown = []string{
		"cannot connect to the docker daemon", "daemon is shutting down", "containerd.sock",
		"transport is closing", "error reading from server: eof", "context canceled", "failed to dial",
	}
)

// answered says whether the error is an answer of the engine, or the client's
// own about the arguments: not a connection that broke before the answer.
func answered(err error) bool {
	for _, is := range []func(error) bool{
		cerrdefs.IsInvalidArgument, cerrdefs.IsNotFound, cerrdefs.IsConflict, cerrdefs.IsPermissionDenied,
		cerrdefs.IsUnauthorized, cerrdefs.IsInternal, cerrdefs.IsUnavailable, cerrdefs.IsNotImplemented,
		cerrdefs.IsNotModified, cerrdefs.IsUnknown, cerrdefs.IsAlreadyExists, cerrdefs.IsFailedPrecondition,
		cerrdefs.IsResourceExhausted, cerrdefs.IsDeadlineExceeded,
	} {
		if is(err) {
			return true
		}
	}
	var known *answer
	return errors.As(err, &known)
}

// answer marks an error that came with an answer of the engine, or before
// anything was asked.
type answer struct{ error }

func (a *answer) Unwrap() error { return a.error }

// unreachableHint says what to do when the engine does not answer.
func (e *Engine) unreachableHint(msg string) string {
	if strings.Contains(msg, "permission denied") {
		return "run as root, or as a member of the group that owns " + strings.TrimPrefix(e.endpoint, "unix://")
	}
	return "is the engine running? systemctl status docker; or set engine.host to its socket"
}

// noise is what the layers below a container put before the cause.
var noise = []*regexp.Regexp{
	regexp.MustCompile(`^Error response from daemon: `),
	regexp.MustCompile(`^error during connect: `),
	regexp.MustCompile(`^(failed to create (shim task|shim|task for container): )`),
	regexp.MustCompile(`^(OCI runtime (create|start|exec) failed|runc (create|start|exec) failed|crun): `),
	regexp.MustCompile(`^(container_linux|process_linux|rootfs_linux|exec|standard_init_linux)\.go:\d+: `),
	regexp.MustCompile(`^(starting container process caused|container init caused|unable to start (container|init) process|unable to start container process|error during container init|exec failed): `),
	regexp.MustCompile(`^(Handler for [A-Z]+ \S+ returned error): `),
	regexp.MustCompile(`^container [0-9a-f]{64}: `), // who asks says which one
	regexp.MustCompile(`(?i)^cannot (kill|stop|start|restart) container:? \S+: `),
	regexp.MustCompile(`^(\w+ )?"?http://[^ ]*docker\.sock[^ ]*"?: `),
}

// tidy returns the part of an engine's message that says what is wrong.
func tidy(err error) string {
	msg := strings.TrimSpace(err.Error())
	for again := true; again; {
		again = false
		for _, n := range noise {
			if cut := n.ReplaceAllString(msg, ""); cut != msg && cut != "" {
				msg, again = cut, true
			}
		}
		// The message of older runtimes is wrapped in quotes of its own.
		if in, ok := strings.CutPrefix(msg, `"`); ok && strings.HasSuffix(in, `"`) && strings.Contains(in, ": ") {
			msg, again = strings.TrimSuffix(in, `"`), true
		}
	}
	msg = strings.TrimSuffix(msg, ": unknown")
	return strings.TrimSpace(msg)
}
