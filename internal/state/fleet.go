package state

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
)

// How the names of locks begin: of deploys over a fleet, of their migrations,
// and of what is noted of revisions, which are held for a moment. No service's
// id has a dot.
const (
	fleetLocks     = "fleet."
	migrationLocks = "migration."
	markLocks      = "marks."
)

// LockFleet takes the lock of deploys of the service that come from elsewhere.
// It dies with the process, which is one end of a connection, and so with that.
// A lock that is taken is waited for until ctx is done or, without wait, is
// fault.ErrLocked naming the holder.
func (d *Dir) LockFleet(ctx context.Context, service string, wait bool, h Holder) (release func(), err error) {
	if err := checkID(service); err != nil {
		return nil, err
	}
	return d.lockOrRefuse(ctx, fleetLocks+service, wait, h)
}

// FleetHolder tells whose deploy of the service is under way; ok is false for
// nobody's.
func (d *Dir) FleetHolder(service string) (h Holder, ok bool) {
	if checkID(service) != nil {
		return Holder{}, false
	}
	return d.holds(fleetLocks + service)
}

// LockMigration sees that there is one migration of the service at a time. Who
// has it is waited for until ctx is done.
func (d *Dir) LockMigration(ctx context.Context, service string, h Holder) (release func(), err error) {
	if err := checkID(service); err != nil {
		return nil, err
	}
	return d.lockOrRefuse(ctx, migrationLocks+service, true, h)
}

// keepMarks is of how many revisions of a service marks are kept.
const keepMarks = 100

type marksFile struct {
	Version   int      `json:"version"`
	Revisions []marked `json:"revisions"` // the last one that was marked last
}

type marked struct {
	Revision string   `json:"revision"`
	Marks    []string `json:"marks"`
}

func (d *Dir) marksPath(service string) string {
	return filepath.Join(d.path, "fleet", service+".json")
}

// Marks are what is known of a revision over the whole fleet.
func (d *Dir) Marks(service, revision string) ([]string, error) {
	f, err := d.marks(service)
	if err != nil {
		return nil, err
	}
	for _, m := range f.Revisions {
		if m.Revision == revision {
			return m.Marks, nil
		}
	}
	return nil, nil
}

// Mark notes something of a revision, so that it survives a power cut.
func (d *Dir) Mark(ctx context.Context, service, revision, mark string) error {
	if err := checkID(service); err != nil {
		return err
	}
	l, err := d.lock(ctx, markLocks+service, Holder{}, waitAll)
	if err != nil {
		return err
	}
	defer l.release()
	f, err := d.marks(service)
	if err != nil {
		return err
	}
	m := marked{Revision: revision}
	if n := slices.IndexFunc(f.Revisions, func(m marked) bool { return m.Revision == revision }); n >= 0 {
		m = f.Revisions[n]
		f.Revisions = slices.Delete(f.Revisions, n, n+1)
	}
	if slices.Contains(m.Marks, mark) {
		return nil
	}
	m.Marks = append(m.Marks, mark)
	f.Version, f.Revisions = formatVersion, append(f.Revisions, m)
	f.Revisions = f.Revisions[max(0, len(f.Revisions)-keepMarks):]
	if err = makeDir(filepath.Dir(d.marksPath(service))); err == nil {
		err = writeJSON(d.marksPath(service), f)
	}
	if err != nil {
		return hostError(d.path, fmt.Errorf("note that %s of %s is %s: %w", revision, service, mark, err))
	}
	return nil
}

func (d *Dir) marks(service string) (f marksFile, err error) {
	if err := checkID(service); err != nil {
		return f, err
	}
	_, err = readJSON(d.marksPath(service), &f, "move it away: a deploy then tests and migrates again what it has tested and migrated")
	return f, err
}
