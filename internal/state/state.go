// Package state keeps what must survive: goals, routes and the cursor of
// addresses as files, the locks around them, the host's key, and the history of
// operations in SQLite.
//
// The files are the truth; the history is for people, and anything may happen
// to it. It imports goal, proxy (types only), event and fault; converge and cmd
// use it. statetest has an in-memory store and the suite that both run.
package state

import (
	"time"

	"conductor/internal/proxy"
)

// Holder says who holds a service's lock, for those who find it taken.
type Holder struct {
	PID      int       // 0: this process
	Start    time.Time // when it took the lock; zero: now
	Verb     string    // upgrade, stop, …
	Revision string    // may be empty
	User     string    // may be empty
	Token    string    // by which others say that they act for the holder; may be empty
	// Supervisor: it lets go between steps, so others wait for it.
	Supervisor bool
}

// Routes are what the proxy serves, and the instances that are leaving it.
type Routes struct {
	// BootID is the kernel's ID of the boot in which the rest was true. Store
	// fills it in. After another boot nothing is routed and nothing drains.
	BootID string      `json:"boot_id"`
	Table  proxy.Table `json:"table"`
	// Drains are the instances that the proxy has proved to have let go, by
	// container name, with the time of the proof.
	Drains map[string]time.Time `json:"drains,omitempty"`
	// Changing are the services whose route itself, not its targets alone, was
	// written here and is not proved to have reached the proxy.
	Changing map[string]bool `json:"changing,omitempty"`
}

// Operation is one run of a verb, as the history keeps it.
type Operation struct {
	ID      int64     `json:"id"`
	Service string    `json:"service"`
	Verb    string    `json:"verb"`
	User    string    `json:"user,omitempty"`
	Reason  string    `json:"reason,omitempty"`  // that was given
	From    string    `json:"from,omitempty"`    // revision before
	To      string    `json:"to,omitempty"`      // revision after, or asked for
	Release string    `json:"release,omitempty"` // digest
	Outcome string    `json:"outcome"`           // in one word; empty: it still runs
	Error   string    `json:"error,omitempty"`
	Detail  string    `json:"detail,omitempty"`
	Code    int       `json:"code"` // exit code
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended,omitzero"`
}

// Interrupted is the outcome of an operation whose process ended without
// saying how it went.
const Interrupted = "interrupted"
