package state

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Recycling is when this host was taken out of its fleet to be made fresh.
type Recycling struct {
	Last  time.Time // when it was last done; zero: never
	Begun time.Time // when it was begun, and not done since; zero: it is not under way
	Boot  string    // the ID of this boot
}

type recyclingFile struct {
	Version int       `json:"version"`
	Last    time.Time `json:"last,omitzero"`
	Begun   time.Time `json:"begun,omitzero"`
}

const recyclingLock = ".recycling"

func (d *Dir) recyclingPath() string { return filepath.Join(d.path, "recycling.json") }

// Recycling tells when the host was last recycled.
func (d *Dir) Recycling() (Recycling, error) {
	f, err := d.recycling()
	if err != nil {
		return Recycling{}, err
	}
	boot, err := os.ReadFile(d.BootFile)
	if err != nil {
		return Recycling{}, hostError(d.path, fmt.Errorf("read the boot ID: %w", err))
	}
	return Recycling{f.Last, f.Begun, strings.TrimSpace(string(boot))}, nil
}

func (d *Dir) recycling() (f recyclingFile, err error) {
	_, err = readJSON(d.recyclingPath(), &f, "move it away: the host then counts as never recycled")
	return f, err
}

// BeginRecycling notes that it is under way, EndRecycling that it is done, so
// that it survives a power cut.
func (d *Dir) BeginRecycling(ctx context.Context, now time.Time) error {
	return d.noteRecycling(ctx, func(f *recyclingFile) { f.Begun = now.UTC() })
}

// EndRecycling notes that the host is fresh.
func (d *Dir) EndRecycling(ctx context.Context, now time.Time) error {
	return d.noteRecycling(ctx, func(f *recyclingFile) { f.Last, f.Begun = now.UTC(), time.Time{} })
}

func (d *Dir) noteRecycling(ctx context.Context, change func(*recyclingFile)) error {
	l, err := d.lock(ctx, recyclingLock, Holder{}, waitAll)
	if err != nil {
		return err
	}
	defer l.release()
	f, err := d.recycling()
	if err != nil {
		return err
	}
	f.Version = formatVersion
	change(&f)
	if err := writeJSON(d.recyclingPath(), f); err != nil {
		return hostError(d.path, fmt.Errorf("note when the host was recycled: %w", err))
	}
	return nil
}
