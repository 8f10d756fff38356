package state

import (
	"context"
	"database/sql"
	"encoding/json"
	"time"
)

// Run is one one-off container, as the history keeps it.
type Run struct {
	Name      string    `json:"name"` // of the container
	Service   string    `json:"service"`
	Revision  string    `json:"revision"`
	Release   string    `json:"release"` // digest
	Container string    `json:"container,omitempty"`
	Command   []string  `json:"command"`
	Lock      string    `json:"lock,omitempty"`
	User      string    `json:"user,omitempty"` // who asked
	Started   time.Time `json:"started"`
	Ended     time.Time `json:"ended,omitzero"`
	Code      int       `json:"code"`             // exit code
	Outcome   string    `json:"outcome"`          // in one word; empty: it still runs
	Error     string    `json:"error,omitempty"`  // why it could not run, or was ended
	Memory    int64     `json:"memory,omitempty"` // the most that it held, bytes; 0: unknown
}

// keepRuns is how many runs of a service the history keeps.
const keepRuns = 1000

// BeginRun records that a run has begun. A name is recorded once.
func (h *History) BeginRun(r Run) {
	h.mu.Lock()
	defer h.unlock()
	h.refresh()
	h.write(func(tx *sql.Tx) error {
		command, err := json.Marshal(r.Command)
		if err != nil {
			return err
		}
		_, err = tx.Exec(`INSERT INTO runs (name, service, revision, "release", container, command, lock, user, process, started)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO NOTHING`,
			r.Name, r.Service, r.Revision, r.Release, r.Container, short(string(command)), r.Lock, r.User, h.self, stamp(r.Started))
		return err
	})
}

// EndRun records how a run ended, unless it was recorded before.
func (h *History) EndRun(r Run) {
	h.mu.Lock()
	defer h.unlock()
	h.write(func(tx *sql.Tx) error {
		if _, err := tx.Exec(`UPDATE runs SET outcome = ?, code = ?, error = ?, memory = ?, ended = ? WHERE name = ? AND outcome = ''`,
			r.Outcome, r.Code, short(r.Error), r.Memory, stamp(r.Ended), r.Name); err != nil {
			return err
		}
		_, err := tx.Exec(`DELETE FROM runs WHERE service = ?1 AND id <=
			(SELECT id FROM runs WHERE service = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)`, r.Service, keepRuns)
		return err
	})
}

// Runs returns runs, newest first, at most limit (0: all), of one service or,
// with an empty id, of all. One whose process has ended without a word is
// Interrupted.
func (h *History) Runs(ctx context.Context, service string, limit int) ([]Run, error) {
	if limit <= 0 {
		limit = -1
	}
	var runs []Run
	err := h.read(ctx, func(rows *sql.Rows) error {
		var r Run
		var command, process, started, ended string
		if err := rows.Scan(&r.Name, &r.Service, &r.Revision, &r.Release, &r.Container, &command, &r.Lock, &r.User,
			&process, &started, &ended, &r.Code, &r.Outcome, &r.Error, &r.Memory); err != nil {
			return err
		}
		if json.Unmarshal([]byte(command), &r.Command) != nil {
			r.Command = []string{command} // it was too long to be kept whole
		}
		r.Started, r.Ended = parse(started), parse(ended)
		if r.Outcome == "" && !Alive(process) {
			r.Outcome = Interrupted
		}
		runs = append(runs, r)
		return nil
	}, `SELECT name, service, revision, "release", container, command, lock, user, process, started, ended, code, outcome, error, memory
		FROM runs WHERE service = ?1 OR ?1 = '' ORDER BY id DESC LIMIT ?2`, service, limit)
	return runs, err
}

// Self names this process so that no later one, of this boot or another, is
// taken for it. Empty where the kernel does not tell.
func Self() string { return self() }

// Alive tells whether the process that Self named still runs.
func Alive(process string) bool { return alive(process) }
