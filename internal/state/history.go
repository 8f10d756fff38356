package state

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"conductor/internal/event"
	"conductor/internal/fault"
)

const (
	keepOperations = 1000 // a service
	keepEvents     = 200  // newest operations of a service that keep their events
	keepLoose      = 5000 // events of a service outside any operation
	maxText        = 64 << 10
)

// History records operations and events in SQLite. It is for people: nothing
// is decided from it, and whatever happens to its file, work goes on. It is
// safe for concurrent use, also by many processes.
type History struct {
	path string
	warn func(error)

	mu      sync.Mutex
	db      *sql.DB
	inode   uint64           // of the file that db is, where it still is that
	off     time.Time        // it failed, and is not tried again before then
	told    bool             // that it is off
	pending []error          // for warn, once mu is free
	current map[string]int64 // operation that is under way, by service
	self    string
}

// retryAfter is how long a history that failed is left alone: a command ends
// before that, a supervisor finds it repaired soon.
const retryAfter = 10 * time.Second

// OpenHistory returns the history in the file at path. Nothing is opened
// before it is needed. warn is told, once, when the history cannot be kept,
// and when a damaged file was moved aside; nil: nobody is. It may use the
// History.
func OpenHistory(path string, warn func(error)) *History {
	if warn == nil {
		warn = func(error) {}
	}
	return &History{path: path, warn: warn, current: map[string]int64{}, self: self()}
}

// Begin records that an operation has begun, now where op.Started is zero, and
// returns its id, 0 where it could not be recorded. Earlier operations of the
// service whose process has ended without a word become Interrupted.
func (h *History) Begin(op Operation) (id int64) {
	h.mu.Lock()
	defer h.unlock()
	if op.Started.IsZero() {
		op.Started = time.Now()
	}
	h.refresh()
	mine := h.current[op.Service]
	h.write(func(tx *sql.Tx) error {
		if err := interrupt(tx, op.Service, mine); err != nil {
			return err
		}
		r, err := tx.Exec(`INSERT INTO operations (service, verb, user, reason, "from", "to", "release", process, started)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			op.Service, op.Verb, op.User, short(op.Reason), op.From, op.To, op.Release, h.self, stamp(op.Started))
		if err != nil {
			return err
		}
		id, err = r.LastInsertId()
		return err
	})
	h.current[op.Service] = id
	return id
}

// End records how the operation ended. Empty fields leave what Begin said.
func (h *History) End(id int64, op Operation) {
	h.mu.Lock()
	defer h.unlock()
	if h.current[op.Service] == id {
		delete(h.current, op.Service)
	}
	if id == 0 {
		return
	}
	if op.Ended.IsZero() {
		op.Ended = time.Now()
	}
	if op.Outcome == "" {
		op.Outcome = "done"
		if op.Error != "" || op.Code != 0 {
			op.Outcome = "failed"
		}
	}
	h.write(func(tx *sql.Tx) error {
		_, err := tx.Exec(`UPDATE operations SET outcome = ?, error = ?, detail = ?, code = ?, ended = ?,
			"from" = coalesce(nullif(?, ''), "from"), "to" = coalesce(nullif(?, ''), "to"),
			"release" = coalesce(nullif(?, ''), "release") WHERE id = ?`,
			op.Outcome, short(op.Error), short(op.Detail), op.Code, stamp(op.Ended), op.From, op.To, op.Release, id)
		if err != nil {
			return err
		}
		return prune(tx, op.Service)
	})
}

// Event records what happened, with the operation of its service that this
// process has under way.
func (h *History) Event(e event.Event) {
	h.mu.Lock()
	defer h.unlock()
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	h.write(func(tx *sql.Tx) error {
		_, err := tx.Exec(`INSERT INTO events (operation, time, event, service, revision, instance, container, cause, detail)
			VALUES (nullif(?, 0), ?, ?, ?, ?, ?, ?, ?, ?)`,
			h.current[e.Service], stamp(e.Time), string(e.Event), e.Service, e.Revision, e.Instance, e.Container, short(e.Cause), short(e.Detail))
		return err
	})
}

// Close lets go of the file. It need not be called before the process ends.
func (h *History) Close() error {
	h.mu.Lock()
	defer h.unlock()
	if h.db == nil {
		return nil
	}
	err := h.db.Close()
	h.db = nil
	return err
}

// unlock frees the mutex and tells what came up, in this order: who is told
// may emit an event, which comes here again.
func (h *History) unlock() {
	pending := h.pending
	h.pending = nil
	h.mu.Unlock()
	for _, err := range pending {
		h.warn(err)
	}
}

// write runs f in a transaction. A damaged file is moved aside, once; any
// other failure switches the history off for a while.
func (h *History) write(f func(tx *sql.Tx) error) {
	if time.Now().Before(h.off) {
		return
	}
	err := h.try(f)
	if err != nil && damaged(err) {
		if err = h.renew(err); err == nil {
			err = h.try(f)
		}
	}
	if err == nil {
		h.told = false
		return
	}
	h.off = time.Now().Add(retryAfter)
	if !h.told {
		h.told = true
		h.pending = append(h.pending, h.fault("record in the history", err))
	}
}

func (h *History) try(f func(tx *sql.Tx) error) error {
	if err := h.open(); err != nil {
		return err
	}
	tx, err := h.db.Begin()
	if err != nil {
		return err
	}
	if err := f(tx); err != nil {
		_ = tx.Rollback()
		return err
	}
	return tx.Commit()
}

func (h *History) fault(what string, err error) error {
	hint := "history alone is concerned, all else works; check " + h.path
	switch {
	case errors.Is(err, errNewer):
		hint = "history alone is concerned; install the newer conductor again, or move " + h.path + " away to begin another"
	case isCode(err, codeFull), errors.Is(err, syscall.ENOSPC):
		hint = "history alone is concerned; free space on the disk of " + h.path
	case isCode(err, codeReadOnly), isCode(err, codeCannotOpen), isCode(err, codePermission), errors.Is(err, os.ErrPermission), errors.Is(err, syscall.EROFS):
		hint = "history alone is concerned; make " + h.path + " and its folder writable"
	case isCode(err, codeBusy):
		hint = "history alone is concerned; end the program that keeps " + h.path + " locked (fuser " + h.path + ")"
	}
	return fault.New(fault.ErrHost, hint, "%s: %s: %w", what, h.path, err)
}

// List returns the service's operations, newest first, at most limit; 0: all.
// An empty service means all of them.
func (h *History) List(ctx context.Context, service string, limit int) ([]Operation, error) {
	if limit <= 0 {
		limit = -1
	}
	return h.operations(ctx, "WHERE service = ?1 OR ?1 = '' ORDER BY id DESC LIMIT ?2", service, limit)
}

// Upgrades returns those that ended after the time, of all services, in the
// order in which they began.
func (h *History) Upgrades(ctx context.Context, after time.Time) ([]Operation, error) {
	// As texts, times of one second are in any order: the second is enough.
	ops, err := h.operations(ctx, "WHERE verb = 'upgrade' AND ended >= ? ORDER BY id", after.UTC().Format("2006-01-02T15:04:05"))
	return slices.DeleteFunc(ops, func(op Operation) bool { return !op.Ended.After(after) }), err
}

func (h *History) operations(ctx context.Context, which string, args ...any) ([]Operation, error) {
	var ops []Operation
	err := h.read(ctx, func(rows *sql.Rows) error {
		var op Operation
		var process, started, ended string
		if err := rows.Scan(&op.ID, &op.Service, &op.Verb, &op.User, &op.Reason, &op.From, &op.To, &op.Release, &op.Outcome,
			&op.Error, &op.Detail, &op.Code, &started, &ended, &process); err != nil {
			return err
		}
		op.Started, op.Ended = parse(started), parse(ended)
		if op.Outcome == "" && !alive(process) {
			op.Outcome = Interrupted
		}
		ops = append(ops, op)
		return nil
	}, `SELECT id, service, verb, user, reason, "from", "to", "release", outcome, error, detail, code, started, ended, process
		FROM operations `+which, args...)
	return ops, err
}

// Events returns the events of one operation, in order.
func (h *History) Events(ctx context.Context, operation int64) ([]event.Event, error) {
	var events []event.Event
	err := h.read(ctx, func(rows *sql.Rows) error {
		var e event.Event
		var at string
		if err := rows.Scan(&at, &e.Event, &e.Service, &e.Revision, &e.Instance, &e.Container, &e.Cause, &e.Detail); err != nil {
			return err
		}
		e.Time = parse(at)
		events = append(events, e)
		return nil
	}, `SELECT time, event, service, revision, instance, container, cause, detail
		FROM events WHERE operation = ? ORDER BY id`, operation)
	return events, err
}

func (h *History) read(ctx context.Context, row func(*sql.Rows) error, query string, args ...any) error {
	h.mu.Lock()
	defer h.unlock()
	err := h.query(ctx, row, query, args...)
	if err != nil && damaged(err) {
		if err = h.renew(err); err == nil {
			err = h.query(ctx, row, query, args...)
		}
	}
	if err != nil {
		return h.fault("read the history", err)
	}
	return nil
}

func (h *History) query(ctx context.Context, row func(*sql.Rows) error, query string, args ...any) error {
	if err := h.open(); err != nil {
		return err
	}
	rows, err := h.db.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := row(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

func parse(s string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return time.Time{}
	}
	return t
}

func short(s string) string {
	if len(s) <= maxText {
		return s
	}
	return fmt.Sprintf("%s… (%d bytes more)", strings.ToValidUTF8(s[:maxText], ""), len(s)-maxText)
}
