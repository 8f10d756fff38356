package state

import (
	"context"
	"regexp"

	"conductor/internal/fault"
)

var runLockName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

// LockRun takes the lock of that name among runs. The kernel keeps it: it dies
// with the process. A lock that is taken is waited for until ctx is done or,
// without wait, is fault.ErrLocked naming the holder.
func (d *Dir) LockRun(ctx context.Context, name string, wait bool, h Holder) (release func(), err error) {
	if !runLockName.MatchString(name) {
		return nil, fault.New(fault.ErrUsage, "a lock's name has letters, digits, dots, dashes and underscores, at most 128",
			"%q is no name for a lock", name)
	}
	return d.lockOrRefuse(ctx, runLocks+name, wait, h)
}

// lockOrRefuse takes a lock that commands hold for as long as they please.
func (d *Dir) lockOrRefuse(ctx context.Context, file string, wait bool, h Holder) (release func(), err error) {
	p := waitNobody
	if wait {
		p = waitAll
	}
	l, err := d.lock(ctx, file, h, p)
	if err != nil {
		return nil, err
	}
	return l.release, nil
}

// runLocks begins the names of the locks of runs. No service's id has a dot.
const runLocks = "run."
