package state_test

import (
	"testing"

	"conductor/internal/state"
	"conductor/internal/state/statetest"
)

func open(t *testing.T, path string) *state.Dir {
	t.Helper()
	d, err := state.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestDir_PassesSuite(t *testing.T) {
	statetest.Suite(t, func(t *testing.T) func() statetest.Store {
		path := t.TempDir()
		return func() statetest.Store { return open(t, path) }
	})
}
