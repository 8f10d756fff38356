// Package event has the things that happen while a host is brought to its
// goal, as the contract with users names them.
//
// Any room may import it; it imports none. internal/converge emits events,
// internal/display shows them and internal/state records them.
package event

import "time"

// Name is what happened.
type Name string

// The events, in the order in which they happen to one instance.
const (
	Pulled     Name = "pulled"     // an image was fetched
	Created    Name = "created"    // the container exists
	Started    Name = "started"    // its process runs
	Healthy    Name = "healthy"    // its health check passed
	Configured Name = "configured" // the proxy's file with it is written
	Reloaded   Name = "reloaded"   // the proxy read its file again
	Routed     Name = "routed"     // the proxy proved that it sends requests
	Unrouted   Name = "unrouted"   // the proxy proved that it sends no more
	Drained    Name = "drained"    // no request in flight, or the deadline passed
	Stopped    Name = "stopped"    // its process has ended at our word
	Removed    Name = "removed"    // the container is gone
	Failed     Name = "failed"     // it, or its release, did not work out
	Restored   Name = "restored"   // what served before serves again

	Committed   Name = "committed"   // the candidate is the current release now
	Scheduled   Name = "scheduled"   // the crontab is installed
	Unscheduled Name = "unscheduled" // the crontab is taken away

	Shipped   Name = "shipped"   // a host has the image
	Tested    Name = "tested"    // the test command has passed
	Migrated  Name = "migrated"  // the fleet's migration is done
	Withdrawn Name = "withdrawn" // the balancer sends a host nothing new
	Upgraded  Name = "upgraded"  // a host runs the revision
	Verified  Name = "verified"  // a host answers from outside
	Admitted  Name = "admitted"  // the balancer sends a host requests

	Installed Name = "installed" // conductor and its packages are on a host
	Synced    Name = "synced"    // a host has the definitions of its services
	Refreshed Name = "refreshed" // packages or images of a host are the newest
	Restarted Name = "restarted" // a service's instances on a host are fresh ones
	Rebooted  Name = "rebooted"  // a host has booted anew
	Recycled  Name = "recycled"  // a host is fresh, and serves again

	Note    Name = "note"    // something a person should know
	Warning Name = "warning" // something a person should look at
)

// Event is one thing that happened. Its JSON form is part of the contract.
type Event struct {
	Time      time.Time `json:"time"`
	Event     Name      `json:"event"`
	Host      string    `json:"host,omitempty"` // of a fleet
	Service   string    `json:"service,omitempty"`
	Revision  string    `json:"revision,omitempty"`
	Instance  string    `json:"instance,omitempty"`  // container name
	Container string    `json:"container,omitempty"` // full ID
	// Reason is what the instance before it failed of, in one word: exited, unhealthy, ….
	Reason string `json:"reason,omitempty"`
	Cause  string `json:"cause,omitempty"`
	Detail string `json:"detail,omitempty"`
}

// Sink takes events. It must not block for long and is safe for concurrent use.
type Sink func(Event)
