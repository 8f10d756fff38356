package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"conductor/internal/atomicfile"
	"conductor/internal/fault"
)

// patience is whom a lock is waited for.
type patience int

const (
	waitSupervisor patience = iota // a supervisor, which lets go between steps
	waitAll                        // anybody: these locks are held for a moment
	waitNobody                     // but who only looks, see holds
)

// Lock takes the service's lock, which dies with the process. Where another
// command holds it, it returns fault.ErrLocked naming the holder; a
// supervisor's lock is waited for, until ctx is done. release may be called
// more than once.
func (d *Dir) Lock(ctx context.Context, service string, h Holder) (release func(), err error) {
	if err := checkID(service); err != nil {
		return nil, err
	}
	l, err := d.lock(ctx, service, h, waitSupervisor)
	if err != nil {
		return nil, err
	}
	atomicfile.Sweep(d.goalPath(service))
	return l.release, nil
}

// LockSupervisor sees that there is one supervisor. Where there is one already
// it returns fault.ErrLocked.
func (d *Dir) LockSupervisor(ctx context.Context, h Holder) (release func(), err error) {
	l, err := d.lock(ctx, ".supervisor", h, waitSupervisor)
	if err != nil {
		return nil, err
	}
	return l.release, nil
}

// Supervisor tells who supervises; ok is false where nobody does.
func (d *Dir) Supervisor() (h Holder, ok bool) { return d.holds(".supervisor") }

// holds tells who has the lock of that name; ok is false where nobody has. It has
// the lock itself for an instant, and no signature.
func (d *Dir) holds(name string) (h Holder, ok bool) {
	l, err := openLock(filepath.Join(d.lockDir(), name+".lock"))
	if err != nil {
		return Holder{}, false
	}
	defer l.f.Close()
	if free, err := l.try(); err != nil || free {
		return Holder{}, false // closing it lets go
	}
	return l.holder()
}

// LockProxy takes the proxy's lock. Whoever holds it is waited for, until ctx
// is done.
func (d *Dir) LockProxy(ctx context.Context) (release func(), err error) {
	l, err := d.lock(ctx, ".proxy", Holder{}, waitAll)
	if err != nil {
		return nil, err
	}
	atomicfile.Sweep(d.routesPath())
	return l.release, nil
}

// fileLock is a flock. It belongs to the open file, so the kernel drops it
// when the process ends, however it ends. The file is never unlinked: two
// processes could hold two files of one name otherwise.
type fileLock struct {
	f    *os.File
	once sync.Once
}

func (l *fileLock) release() {
	l.once.Do(func() {
		_ = l.f.Truncate(0)
		// Unlocked by name and not by close alone: a child between fork and
		// exec still has the file open.
		_ = syscall.Flock(int(l.f.Fd()), syscall.LOCK_UN)
		_ = l.f.Close()
	})
}

// lock takes the lock of that name. It goes through a turnstile: who waits for
// the lock holds the turnstile meanwhile, so a supervisor that lets go and
// wants the lock again at once comes after who waited.
func (d *Dir) lock(ctx context.Context, name string, h Holder, p patience) (*fileLock, error) {
	turn, err := openLock(filepath.Join(d.lockDir(), name+".turn"))
	if err == nil {
		defer turn.release()
		var l *fileLock
		if l, err = openLock(filepath.Join(d.lockDir(), name+".lock")); err == nil {
			if err = take(ctx, turn, l, name, p); err == nil {
				l.sign(h)
				return l, nil
			}
			_ = l.f.Close()
		}
	}
	if _, told := errors.AsType[*fault.Error](err); told || ctx.Err() != nil {
		return nil, err
	}
	return nil, hostError(d.path, fmt.Errorf("take %s: %w", lockName(name), err))
}

func openLock(path string) (*fileLock, error) {
	// os.OpenFile sets O_CLOEXEC, so no child keeps the lock.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	return &fileLock{f: f}, nil
}

// take tries until it has the turnstile and the lock. flock(2) can wait by
// itself, but not until a context is done without leaving a thread behind.
func take(ctx context.Context, turn, l *fileLock, name string, p patience) error {
	var holder Holder
	var known bool
	unknown := 0               // times in a row that the holder could not be told
	entered := p == waitNobody // who waits for the lock does not keep it from being refused
	pause := time.Millisecond
	for {
		if ctx.Err() != nil {
			err := fmt.Errorf("take %s: %w", lockName(name), context.Cause(ctx))
			if known {
				err = fmt.Errorf("wait for %s: %s has held it since %s (PID %d): %w",
					lockName(name), holder.what(name), holder.since(), holder.PID, context.Cause(ctx))
			}
			return err
		}
		if !entered {
			ok, err := turn.try()
			if err != nil {
				return err
			}
			entered = ok
		}
		if entered {
			ok, err := l.try()
			if ok || err != nil {
				return err
			}
			if holder, known = l.holder(); known {
				unknown = 0
			} else {
				unknown++
			}
			// A holder needs a moment to sign. One that never does had no
			// room on the disk for it.
			waits := p == waitAll || p == waitSupervisor && holder.Supervisor
			if !waits && (known || unknown > 20) {
				return Locked(name, holder)
			}
		}
		t := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-t.C:
		}
		t.Stop()
		pause = min(pause*3/2, 20*time.Millisecond)
	}
}

func (l *fileLock) try() (bool, error) {
	for {
		err := syscall.Flock(int(l.f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch err {
		case nil:
			return true, nil
		case syscall.EWOULDBLOCK:
			return false, nil
		case syscall.EINTR:
			continue
		}
		return false, &os.PathError{Op: "flock", Path: l.f.Name(), Err: err}
	}
}

type holderFile struct {
	PID      int       `json:"pid"`
	Start    time.Time `json:"start"`
	Kind     string    `json:"kind"` // command or supervisor
	Verb     string    `json:"verb"`
	Revision string    `json:"revision,omitempty"`
	User     string    `json:"user,omitempty"`
	Token    string    `json:"token,omitempty"`
}

// sign writes who holds the lock. The lock holds without it: failing to write
// only makes other commands' messages poorer.
func (l *fileLock) sign(h Holder) {
	h = h.filled()
	f := holderFile{PID: h.PID, Start: h.Start, Kind: "command", Verb: h.Verb, Revision: h.Revision, User: h.User, Token: h.Token}
	if h.Supervisor {
		f.Kind = "supervisor"
	}
	b, err := json.Marshal(f)
	if err != nil {
		return
	}
	_ = l.f.Truncate(0)
	_, _ = l.f.WriteAt(append(b, '\n'), 0)
}

// holder reads who holds the lock. It does not know while the holder signs,
// nor while the signature is one that a killed process left.
func (l *fileLock) holder() (Holder, bool) {
	b, err := os.ReadFile(l.f.Name())
	if err != nil {
		return Holder{}, false
	}
	var f holderFile
	if json.Unmarshal(b, &f) != nil || f.PID <= 0 {
		return Holder{}, false
	}
	if err := syscall.Kill(f.PID, 0); errors.Is(err, syscall.ESRCH) {
		return Holder{}, false
	}
	return Holder{PID: f.PID, Start: f.Start, Verb: f.Verb, Revision: f.Revision, User: f.User, Token: f.Token, Supervisor: f.Kind == "supervisor"}, true
}

func (h Holder) filled() Holder {
	if h.PID == 0 {
		h.PID = os.Getpid()
	}
	if h.Start.IsZero() {
		h.Start = time.Now()
	}
	return h
}

func (h Holder) what(service string) string {
	var b strings.Builder
	switch {
	case h.Verb != "":
		b.WriteString(h.Verb)
	case h.Supervisor:
		b.WriteString("the supervisor")
	default:
		b.WriteString("a command")
	}
	if !strings.HasPrefix(service, ".") && !strings.HasPrefix(service, runLocks) {
		b.WriteString(" of " + strings.TrimPrefix(strings.TrimPrefix(service, fleetLocks), migrationLocks))
	}
	if h.Revision != "" {
		b.WriteString(" to " + h.Revision)
	}
	if h.User != "" {
		b.WriteString(" by " + h.User)
	}
	return b.String()
}

func (h Holder) since() string {
	if time.Since(h.Start) > 12*time.Hour {
		return h.Start.Local().Format("2006-01-02 15:04:05")
	}
	return h.Start.Local().Format("15:04:05")
}

func lockName(name string) string {
	if run, ok := strings.CutPrefix(name, runLocks); ok {
		return "lock " + run
	}
	for prefix, what := range map[string]string{fleetLocks: "deploy lock of ", markLocks: "marks of ", migrationLocks: "migration lock of "} {
		if service, ok := strings.CutPrefix(name, prefix); ok {
			return what + service
		}
	}
	if svc, ok := strings.CutPrefix(name, "."); ok {
		return "lock of " + svc
	}
	return "lock of service " + name
}

// Locked is the error of a service's lock that another command holds; a zero
// Holder where it is not known which.
func Locked(service string, h Holder) error {
	const hint = "wait until it has ended and run the same command again; what it has done by then stands"
	if h.PID == 0 {
		return fault.New(fault.ErrLocked, hint, "take %s: another process holds it", lockName(service))
	}
	return fault.New(fault.ErrLocked, hint, "take %s: %s has held it since %s (PID %d)",
		lockName(service), h.what(service), h.since(), h.PID)
}
