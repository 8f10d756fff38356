// Package container makes the engine calls that no deployment can do without,
// and no others, in plain HTTP: what the benchmarks measure Conductor against.
//
// The floor program and the benchmarks' driver use it; the product does not.
package container

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"conductor/test/image"
)

// Label is on everything that the benchmarks make, with the namespace as value.
const Label = "conductor.bench"

// Spec is what a container is made from.
type Spec struct {
	Name, Image string
	Env         []string
	Namespace   string
	Network     string
	Addr        netip.AddrPort
	Restart     string        // the engine's restart policy; empty: none
	Check       []string      // command of a health check by the engine; nil: none
	Every       time.Duration // between two of them
}

// Create makes a container as Conductor makes an instance: an address of its
// own, an init process, the local log driver, and unless it is asked for, no
// health check by the engine.
func Create(ctx context.Context, e *image.Engine, s Spec) (id string, err error) {
	check := map[string]any{"Test": []string{"NONE"}}
	if s.Check != nil {
		check = map[string]any{"Test": append([]string{"CMD"}, s.Check...), "Interval": s.Every, "Timeout": s.Every}
	}
	body := map[string]any{
		"Image": s.Image, "Env": s.Env,
		"Labels":      map[string]string{Label: s.Namespace},
		"Healthcheck": check,
		"StopTimeout": 10,
		"HostConfig": map[string]any{
			"NetworkMode": s.Network, "Init": true,
			"RestartPolicy": map[string]string{"Name": s.Restart},
			"LogConfig":     map[string]any{"Type": "local", "Config": map[string]string{"max-size": "10m", "max-file": "3"}},
		},
		"NetworkingConfig": map[string]any{"EndpointsConfig": map[string]any{
			s.Network: map[string]any{"IPAMConfig": map[string]any{"IPv4Address": s.Addr.Addr().String()}},
		}},
	}
	var out struct{ ID string }
	err = e.Do(ctx, "POST", "/containers/create", url.Values{"name": {s.Name}}, body, &out)
	return out.ID, err
}

// Start starts it.
func Start(ctx context.Context, e *image.Engine, id string) error {
	return e.Do(ctx, "POST", "/containers/"+id+"/start", nil, nil, nil)
}

// Stop sends the stop signal and returns when the process has ended.
func Stop(ctx context.Context, e *image.Engine, id string) error {
	return e.Do(ctx, "POST", "/containers/"+id+"/stop", url.Values{"t": {"10"}}, nil, nil)
}

// Remove removes a container that has ended.
func Remove(ctx context.Context, e *image.Engine, id string) error {
	return e.Do(ctx, "DELETE", "/containers/"+id, url.Values{"v": {"1"}}, nil, nil)
}

// answerGap is the time between two probes: shorter than Conductor's, since a
// floor has no reason to be polite.
const answerGap = 5 * time.Millisecond

// Answer returns once GET /health is answered well.
func Answer(ctx context.Context, addr netip.AddrPort) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       (&net.Dialer{Timeout: 2 * time.Second}).DialContext,
	}}
	for {
		req, err := http.NewRequestWithContext(ctx, "GET", "http://"+addr.String()+"/health", nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
			err = fmt.Errorf("GET /health: %s", resp.Status)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s does not answer: %w", addr, err)
		case <-time.After(answerGap):
		}
	}
}

// ImageID resolves a name to the ID that runs.
func ImageID(ctx context.Context, e *image.Engine, ref string) (string, error) {
	var out struct{ ID string }
	err := e.Do(ctx, "GET", "/images/"+ref+"/json", nil, nil, &out)
	return out.ID, err
}
