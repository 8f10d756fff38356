package sessions

import (
	"bytes"
	"context"
	"encoding/json"

	"conductor/internal/event"
	"conductor/internal/fleet"
	"conductor/internal/remote"
)

var _ fleet.Recyclers = (*Hosts)(nil)

// Recycling asks when the host was recycled, and notes something there first,
// unless note is empty.
func (h *Hosts) Recycling(ctx context.Context, host string, note fleet.RecycleNote) (was fleet.Recycling, err error) {
	r := h.request(remote.Recycling)
	if note != "" {
		if r.Body, err = json.Marshal(note); err != nil {
			return was, err
		}
	}
	err = remote.Ask(ctx, h.Transport, h.At[host], r, &was)
	return was, err
}

// HoldAll takes the locks of several services there by one session.
func (h *Hosts) HoldAll(ctx context.Context, host string, services []string) (held fleet.Held, err error) {
	r := h.request(remote.HoldAll)
	r.Token = h.lock()
	if r.Body, err = json.Marshal(services); err != nil {
		return held, err
	}
	return h.keep(ctx, host, r).held(ctx)
}

// Refresh upgrades the packages there.
func (h *Hosts) Refresh(ctx context.Context, host string, emit event.Sink) error {
	return h.Transport.Do(ctx, h.At[host], h.request(remote.Refresh), remote.Streams{Stdout: &events{emit: emit}})
}

// Images fetches the images of live releases again, and lets go of those that
// nobody needs.
func (h *Hosts) Images(ctx context.Context, host string, emit event.Sink) error {
	if err := h.Transport.Do(ctx, h.At[host], h.request(remote.RefreshImages), remote.Streams{Stdout: &events{emit: emit}}); err != nil {
		return err
	}
	r := h.request(remote.Command)
	r.Args = []string{"prune"}
	return h.Transport.Do(ctx, h.At[host], r, remote.Streams{Stdout: &events{emit: emit}})
}

// Restart replaces all instances of a service by fresh ones.
func (h *Hosts) Restart(ctx context.Context, host, service string, emit event.Sink) error {
	r := h.held(remote.Command, service, "")
	r.Args = []string{"service", "restart", "--id", service}
	return h.Transport.Do(ctx, h.At[host], r, remote.Streams{Stdout: &events{emit: emit}})
}

// Reboot has the host boot anew. That the connection is cut by it is no error,
// once the host has said that it is about to.
func (h *Hosts) Reboot(ctx context.Context, host string) error {
	var said bytes.Buffer
	err := h.Transport.Do(ctx, h.At[host], h.request(remote.Reboot), remote.Streams{Stdout: &said})
	if err != nil && said.Len() > 0 && remote.Unreached(err) {
		return nil
	}
	return err
}
