package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"syscall"
	"time"

	"conductor/test/image"
)

// Event is something that happened to a container.
type Event struct {
	Action string
	Actor  struct {
		ID         string
		Attributes map[string]string // its labels and name
	}
}

// Events calls f with what happens to containers from the call of ready on,
// until ctx is done.
func Events(ctx context.Context, e *image.Engine, ready func(), f func(Event)) error {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", e.Socket)
		}}}
	query := url.Values{"filters": {`{"type":["container"],"event":["die","start"]}`}}
	req, err := http.NewRequestWithContext(ctx, "GET", "http://engine/v1.40/events?"+query.Encode(), nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("events of the engine: %s", resp.Status)
	}
	ready()
	for d := json.NewDecoder(resp.Body); ; {
		var ev Event
		if err := d.Decode(&ev); err != nil {
			return fmt.Errorf("events of the engine: %w", err)
		}
		f(ev)
	}
}

// Process is a container's process, as the host sees it.
type Process struct {
	PID     int
	Started time.Time
	Addr    netip.Addr // on the network that it was asked for
}

// ErrEnded: a container has no process any more.
var ErrEnded = errors.New("it does not run")

// Inspect returns the process of a container that runs; ErrEnded of another.
func Inspect(ctx context.Context, e *image.Engine, id, network string) (Process, error) {
	var out struct {
		State struct {
			Running   bool
			Pid       int
			StartedAt time.Time
		}
		NetworkSettings struct {
			Networks map[string]struct{ IPAddress string }
		}
	}
	if err := e.Do(ctx, "GET", "/containers/"+id+"/json", nil, nil, &out); err != nil {
		return Process{}, err
	}
	p := Process{PID: out.State.Pid, Started: out.State.StartedAt}
	p.Addr, _ = netip.ParseAddr(out.NetworkSettings.Networks[network].IPAddress) // whoever dials it sees whether there is one
	// Process 0 would be whoever sends the signal, 1 the host's first.
	if !out.State.Running || p.PID <= 1 {
		return p, fmt.Errorf("container %.12s: %w", id, ErrEnded)
	}
	return p, nil
}

// Kill kills the process, behind the engine's back.
func (p Process) Kill() error { return syscall.Kill(p.PID, syscall.SIGKILL) }
