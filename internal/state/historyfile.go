package state

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"modernc.org/sqlite"

	"conductor/internal/fault"
)

// patience of the history: longer than any transaction of another conductor
// takes, and short enough that a forgotten sqlite3 shell does not hold up work.
const busyTimeout = 2 * time.Second

// SQLite's primary result codes.
const (
	codePermission = 3
	codeBusy       = 5
	codeReadOnly   = 8
	codeCorrupt    = 11
	codeFull       = 13
	codeCannotOpen = 14
	codeNotADB     = 26
)

var errNewer = errors.New("it was written by a newer conductor")

// migrations bring the schema from version i to i+1; user_version counts them.
// One that was released is never changed.
var migrations = []string{`
CREATE TABLE operations (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	service TEXT NOT NULL,
	verb TEXT NOT NULL,
	user TEXT NOT NULL DEFAULT '',
	"from" TEXT NOT NULL DEFAULT '',
	"to" TEXT NOT NULL DEFAULT '',
	"release" TEXT NOT NULL DEFAULT '',
	outcome TEXT NOT NULL DEFAULT '', -- '': it still runs, if process does
	error TEXT NOT NULL DEFAULT '',
	detail TEXT NOT NULL DEFAULT '',
	code INTEGER NOT NULL DEFAULT 0,
	process TEXT NOT NULL, -- boot/PID/start of the process
	started TEXT NOT NULL, -- RFC 3339, UTC
	ended TEXT NOT NULL DEFAULT ''
);
CREATE INDEX operations_service ON operations (service, id);
CREATE TABLE events (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	operation INTEGER, -- NULL: outside of any
	time TEXT NOT NULL,
	event TEXT NOT NULL,
	service TEXT NOT NULL,
	revision TEXT NOT NULL,
	instance TEXT NOT NULL,
	container TEXT NOT NULL,
	cause TEXT NOT NULL,
	detail TEXT NOT NULL
);
CREATE INDEX events_operation ON events (operation, id);
CREATE INDEX events_service ON events (service, operation, id);
`, `
CREATE TABLE runs (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	name TEXT NOT NULL UNIQUE,
	service TEXT NOT NULL,
	revision TEXT NOT NULL,
	"release" TEXT NOT NULL,
	container TEXT NOT NULL,
	command TEXT NOT NULL, -- JSON
	lock TEXT NOT NULL,
	user TEXT NOT NULL,
	process TEXT NOT NULL, -- boot/PID/start of the process
	started TEXT NOT NULL, -- RFC 3339, UTC
	ended TEXT NOT NULL DEFAULT '',
	outcome TEXT NOT NULL DEFAULT '', -- '': it still runs, if process does
	code INTEGER NOT NULL DEFAULT 0,
	error TEXT NOT NULL DEFAULT '',
	memory INTEGER NOT NULL DEFAULT 0 -- bytes
);
CREATE INDEX runs_service ON runs (service, id);
`, `
ALTER TABLE operations ADD COLUMN reason TEXT NOT NULL DEFAULT '';
`}

// open opens the database and brings its schema up to date. Processes do that
// one after the other: SQLite answers "busy" without waiting while another
// changes the journal's mode.
func (h *History) open() error {
	if h.db != nil {
		return nil
	}
	release, err := h.lockFile()
	if err != nil {
		return err
	}
	defer release()
	f, err := os.OpenFile(h.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	var st syscall.Stat_t
	err = errors.Join(syscall.Fstat(int(f.Fd()), &st), f.Close())
	if err != nil {
		return err
	}
	h.inode = st.Ino

	q := url.Values{"_txlock": {"immediate"}, "_pragma": {
		fmt.Sprintf("busy_timeout(%d)", busyTimeout.Milliseconds()), "journal_mode(WAL)", "synchronous(NORMAL)"}}
	u := url.URL{Scheme: "file", Opaque: (&url.URL{Path: h.path}).EscapedPath(), RawQuery: q.Encode()}
	db, err := sql.Open("sqlite", u.String())
	if err != nil {
		return err
	}
	db.SetMaxOpenConns(1)
	if err := migrate(db); err != nil {
		return errors.Join(err, db.Close())
	}
	h.db = db
	return nil
}

func migrate(db *sql.DB) error {
	var version int
	if err := db.QueryRow("PRAGMA user_version").Scan(&version); err != nil {
		return err
	}
	if version > len(migrations) {
		return errNewer
	}
	for ; version < len(migrations); version++ {
		tx, err := db.Begin()
		if err != nil {
			return err
		}
		_, err = tx.Exec(migrations[version] + fmt.Sprintf("PRAGMA user_version = %d;", version+1))
		if err != nil {
			_ = tx.Rollback()
			return err
		}
		if err := tx.Commit(); err != nil {
			return err
		}
	}
	return nil
}

// refresh lets go of a database whose file is not there any more: what is
// written into that is lost.
func (h *History) refresh() {
	var st syscall.Stat_t
	if h.db != nil && (syscall.Stat(h.path, &st) != nil || st.Ino != h.inode) {
		_ = h.db.Close()
		h.db = nil
		clear(h.current)
	}
}

// renew moves a damaged database aside, unless another process already has,
// so that the next open begins a fresh one.
func (h *History) renew(cause error) error {
	if h.db != nil {
		_ = h.db.Close()
		h.db = nil
	}
	release, err := h.lockFile()
	if err != nil {
		return err
	}
	defer release()
	var st syscall.Stat_t
	if err := syscall.Stat(h.path, &st); err != nil || st.Ino != h.inode {
		return nil
	}
	aside := h.path + ".corrupt-" + time.Now().UTC().Format("20060102T150405.000")
	if err := os.Rename(h.path, aside); err != nil {
		return err
	}
	for _, s := range []string{"-wal", "-shm"} { // they belong to the damaged one
		_ = os.Rename(h.path+s, aside+s)
	}
	clear(h.current) // their ids mean nothing in the fresh one
	h.pending = append(h.pending, fault.New(fault.ErrHost,
		"nothing needs to be done: all but the history so far is untouched; look at the damaged one with sqlite3, or delete it",
		"the history was damaged (%w): it is now %s, and a fresh one is begun", cause, aside))
	return nil
}

// lockFile keeps other processes from opening or moving the database.
func (h *History) lockFile() (release func(), err error) {
	l, err := openLock(h.path + ".lock")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(context.Background(), busyTimeout, errors.New("another process keeps it locked"))
	defer cancel()
	// Only one lock is needed here, so it is its own turnstile.
	turn := &fileLock{f: l.f}
	if err := take(ctx, turn, l, "."+filepath.Base(h.path), waitAll); err != nil {
		_ = l.f.Close()
		return nil, err
	}
	return l.release, nil
}

// interrupt marks the service's operations that have not ended and whose
// process has, or that are mine: a process has one of a service at a time.
func interrupt(tx *sql.Tx, service string, mine int64) error {
	rows, err := tx.Query(`SELECT id, process FROM operations WHERE service = ? AND outcome = ''`, service)
	if err != nil {
		return err
	}
	var ids []int64
	for rows.Next() {
		var id int64
		var process string
		if err := rows.Scan(&id, &process); err != nil {
			return errors.Join(err, rows.Close())
		}
		if id == mine || !alive(process) {
			ids = append(ids, id)
		}
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return err
	}
	for _, id := range ids {
		// The last event is the last that is known of it.
		if _, err := tx.Exec(`UPDATE operations SET outcome = ?, ended =
			coalesce((SELECT max(time) FROM events WHERE operation = operations.id), started) WHERE id = ?`,
			Interrupted, id); err != nil {
			return err
		}
	}
	return nil
}

func prune(tx *sql.Tx, service string) error {
	for _, s := range []struct {
		delete string
		keep   int
	}{
		{`DELETE FROM operations WHERE service = ?1 AND id <=
			(SELECT id FROM operations WHERE service = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)`, keepOperations},
		{`DELETE FROM events WHERE service = ?1 AND operation <=
			(SELECT id FROM operations WHERE service = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)`, keepEvents},
		{`DELETE FROM events WHERE service = ?1 AND operation IS NULL AND id <=
			(SELECT id FROM events WHERE service = ?1 AND operation IS NULL ORDER BY id DESC LIMIT 1 OFFSET ?2)`, keepLoose},
	} {
		if _, err := tx.Exec(s.delete, service, s.keep); err != nil {
			return err
		}
	}
	return nil
}

func isCode(err error, code int) bool {
	e, ok := errors.AsType[*sqlite.Error](err)
	return ok && e.Code()&0xff == code
}

func damaged(err error) bool { return isCode(err, codeCorrupt) || isCode(err, codeNotADB) }

// self names this process so that no later one, of this boot or another, is
// taken for it.
func self() string {
	return process(os.Getpid())
}

func process(pid int) string {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return ""
	}
	// The name, in parentheses, may have anything in it; the start is the
	// 22nd field, the name the second.
	i := bytes.LastIndexByte(stat, ')')
	fields := strings.Fields(string(stat[i+1:]))
	if i < 0 || len(fields) < 20 || fields[0] == "Z" {
		return ""
	}
	return fmt.Sprintf("%s/%d/%s", strings.TrimSpace(string(boot)), pid, fields[19])
}

func alive(p string) bool {
	parts := strings.Split(p, "/")
	if len(parts) != 3 {
		return false
	}
	pid, err := strconv.Atoi(parts[1])
	return err == nil && process(pid) == p
}
