package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"testing"

	"conductor/internal/display"
	"conductor/internal/engine"
	"conductor/internal/fault"
	"conductor/internal/proxy"
	"conductor/internal/spec"

	"github.com/google/go-cmp/cmp"
)

// The table of exit codes is a contract with users: this is it, once more.
func TestCode_IsTheContractsTable(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errors.New("anything"), 1},
		{fault.ErrUsage, 2},
		{fault.ErrDefinition, 3},
		{spec.Problems{{File: "shop.yml", Line: 1, Column: 1, Message: "m"}}, 3},
		{fault.ErrImage, 4},
		{fault.ErrUnhealthy, 5},
		{fault.ErrProxyRefused, 6},
		{proxy.ErrRefused, 6},
		{proxy.ErrNotRestored, 6},
		{fault.ErrLocked, 7},
		{fault.ErrUnreachable, 8},
		{engine.ErrUnreachable, 8},
		{proxy.ErrUnreachable, 8},
		{fault.ErrHost, 9},
		{engine.ErrNoSpace, 9},
		{proxy.ErrUnsupported, 9},
		{&fs.PathError{Op: "open", Path: "/x", Err: syscall.ENOSPC}, 9},
		{&fs.PathError{Op: "open", Path: "/x", Err: syscall.EACCES}, 9},
		{fault.ErrTimeout, 124},
		{fault.ErrInterrupted, 130},
	} {
		if got := Code(tt.err); got != tt.want {
			t.Errorf("Code(%v) = %d, want %d", tt.err, got, tt.want)
		}
		if tt.err == nil {
			continue
		}
		if got := Code(fmt.Errorf("upgrade shop: %w", tt.err)); got != tt.want {
			t.Errorf("wrapped: Code(%v) = %d, want %d", tt.err, got, tt.want)
		}
	}
}

// Who wraps an error in a class knows more than who made it.
func TestCode_OutermostClassDecides(t *testing.T) {
	inner := fault.New(fault.ErrHost, "", "disk")
	if got := Code(fmt.Errorf("upgrade: %w", fault.New(fault.ErrImage, "", "pull: %w", inner))); got != 4 {
		t.Errorf("got %d, want 4", got)
	}
}

func TestCode_FirstFailureInOrderOfIDsDecides(t *testing.T) {
	a := fault.New(fault.ErrProxyRefused, "", "a")
	b := fault.New(fault.ErrUsage, "", "b")
	for _, tt := range []struct {
		err  error
		want int
	}{
		{errors.Join(a, b), 6},
		{errors.Join(b, a), 2},
		{errors.Join(nil, errors.New("no class"), a), 6},
	} {
		if got := Code(tt.err); got != tt.want {
			t.Errorf("Code(%q) = %d, want %d", tt.err, got, tt.want)
		}
	}
}

func TestEnded_GivesTheReasonOfTheContext(t *testing.T) {
	for cause, want := range map[error]int{fault.ErrTimeout: 124, fault.ErrInterrupted: 130} {
		ctx, cancel := context.WithCancelCause(context.Background())
		cancel(cause)
		if got := Code(ended(ctx, fmt.Errorf("list: %w", ctx.Err()))); got != want {
			t.Errorf("%v: got %d, want %d", cause, got, want)
		}
		if got := Code(ended(ctx, fault.New(fault.ErrImage, "", "no image"))); got != 4 {
			t.Errorf("%v: another failure became %d", cause, got)
		}
	}
	if got := Code(ended(context.Background(), context.Canceled)); got != 1 {
		t.Errorf("a context that goes on: %d", got)
	}
}

func TestFailures_OneForEachMistake(t *testing.T) {
	ps := spec.Problems{
		{File: "shop.yml", Line: 2, Column: 1, Message: "unknown key", Hint: "did you mean image?"},
		{File: "shop.yml", Line: 3, Column: 4, Message: "no number"},
	}
	err := errors.Join(ps, fault.New(fault.ErrHost, "look", "disk: %w", errors.New("full")))
	want := []display.Failure{
		{Text: "shop.yml:2:1: unknown key", Hint: "did you mean image?"},
		{Text: "shop.yml:3:4: no number"},
		{Text: "disk: full", Hint: "look"},
	}
	if d := cmp.Diff(want, failures(err)); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]display.Failure{{Text: "a: x, y"}}, failures(fmt.Errorf("a: %w, %w", errors.New("x"), errors.New("y")))); d != "" {
		t.Error(d)
	}
}
