package state_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"conductor/internal/fault"
)

func TestRecycling(t *testing.T) {
	path := t.TempDir()
	d := open(t, path)
	r, err := d.Recycling()
	if err != nil || !r.Last.IsZero() || !r.Begun.IsZero() || r.Boot == "" {
		t.Errorf("never: %+v, %v", r, err)
	}
	now := time.Unix(1e9, 0)
	if err := d.BeginRecycling(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	if r, err := open(t, path).Recycling(); err != nil || !r.Last.IsZero() || !r.Begun.Equal(now) {
		t.Errorf("begun: %+v, %v", r, err)
	}
	if err := d.EndRecycling(t.Context(), now.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if r, err := open(t, path).Recycling(); err != nil || !r.Last.Equal(now.Add(time.Minute)) || !r.Begun.IsZero() {
		t.Errorf("done: %+v, %v", r, err)
	}
	if err := os.WriteFile(filepath.Join(path, "recycling.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Recycling(); !errors.Is(err, fault.ErrHost) || fault.Hint(err) == "" {
		t.Errorf("damaged: %v", err)
	}
}
