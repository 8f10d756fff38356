// Package image makes container images without a registry, for tests: a static
// binary becomes an image FROM scratch, and revisions of it differ in their
// environment alone, so that one takes milliseconds.
//
// It speaks to the engine in plain HTTP over its socket, not through the
// product's adapter, so that what tests see does not depend on what they test.
package image

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Engine is a container engine at a unix socket.
type Engine struct {
	Socket string
	client *http.Client
}

// NewEngine returns the engine at the socket; it does not connect yet.
func NewEngine(socket string) *Engine {
	return &Engine{Socket: socket, client: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
	}}}
}

// StatusError is an answer that is no success.
type StatusError struct {
	Status  int
	Message string
}

func (e *StatusError) Error() string { return fmt.Sprintf("engine: %d: %s", e.Status, e.Message) }

// Do calls the engine's API. A body that is no io.Reader is sent as JSON, and
// the answer is decoded into out unless that is nil.
func (e *Engine) Do(ctx context.Context, method, path string, query url.Values, body, out any) error {
	var r io.Reader
	kind := "application/json"
	switch b := body.(type) {
	case nil:
	case io.Reader:
		r, kind = b, "application/x-tar"
	default:
		j, err := json.Marshal(b)
		if err != nil {
			return err
		}
		r = bytes.NewReader(j)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://engine/v1.40"+path+"?"+query.Encode(), r)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", kind)
	resp, err := e.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 && resp.StatusCode != http.StatusNotModified {
		var m struct{ Message string }
		if json.Unmarshal(b, &m) != nil || m.Message == "" {
			m.Message = strings.TrimSpace(string(b))
		}
		return &StatusError{Status: resp.StatusCode, Message: m.Message}
	}
	switch out := out.(type) {
	case nil:
		return nil
	case *[]byte:
		*out = b
		return nil
	}
	return json.Unmarshal(b, out)
}

// Ping says whether the engine answers.
func (e *Engine) Ping(ctx context.Context) error {
	return e.Do(ctx, "GET", "/_ping", nil, nil, nil)
}

// Container is a container as a list of the engine shows it.
type Container struct {
	ID              string `json:"Id"`
	Names           []string
	Image, ImageID  string
	Labels          map[string]string
	State, Status   string
	Created         int64
	NetworkSettings struct {
		Networks map[string]struct{ IPAddress string }
	}
}

// Name is the container's name.
func (c Container) Name() string {
	if len(c.Names) == 0 {
		return c.ID
	}
	return strings.TrimPrefix(c.Names[0], "/")
}

// Containers lists containers in any state with all the labels (key or key=value).
func (e *Engine) Containers(ctx context.Context, labels ...string) ([]Container, error) {
	var cs []Container
	err := e.Do(ctx, "GET", "/containers/json", url.Values{"all": {"1"}, "filters": {filters(labels)}}, nil, &cs)
	return cs, err
}

// RemoveContainer kills and removes a container with its volumes. Where somebody
// else is removing it, it waits for that.
func (e *Engine) RemoveContainer(ctx context.Context, id string) error {
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		err := gone(e.Do(ctx, "DELETE", "/containers/"+id, url.Values{"force": {"1"}, "v": {"1"}}, nil, nil))
		se, ok := err.(*StatusError)
		// 500: a dead container's file system may be busy for a moment.
		if !ok || se.Status != http.StatusConflict && se.Status != http.StatusInternalServerError || time.Now().After(deadline) {
			return err
		}
	}
}

// Network is a network of the engine.
type Network struct {
	ID     string `json:"Id"`
	Name   string
	Labels map[string]string
}

// Networks lists all networks.
func (e *Engine) Networks(ctx context.Context) ([]Network, error) {
	var ns []Network
	err := e.Do(ctx, "GET", "/networks", nil, nil, &ns)
	return ns, err
}

// RemoveNetwork removes a network. At times the engine counts endpoints of
// containers that are gone, and keeps a network that has nobody in it until it
// is restarted (moby#42119); that is no error, as nothing of ours is left in it.
func (e *Engine) RemoveNetwork(ctx context.Context, id string) error {
	err := gone(e.Do(ctx, "DELETE", "/networks/"+id, nil, nil, nil))
	se, ok := err.(*StatusError)
	if !ok || se.Status != http.StatusForbidden {
		return err
	}
	var n struct{ Containers map[string]any }
	if e.Do(ctx, "GET", "/networks/"+id, nil, nil, &n) == nil && len(n.Containers) == 0 {
		return nil
	}
	return err
}

// Tags lists the names of all local images that begin with the prefix.
func (e *Engine) Tags(ctx context.Context, prefix string) ([]string, error) {
	var is []struct{ RepoTags []string }
	if err := e.Do(ctx, "GET", "/images/json", nil, nil, &is); err != nil {
		return nil, err
	}
	var tags []string
	for _, i := range is {
		for _, t := range i.RepoTags {
			if strings.HasPrefix(t, prefix) {
				tags = append(tags, t)
			}
		}
	}
	return tags, nil
}

// RemoveImage takes a name away, and the image with its last one.
func (e *Engine) RemoveImage(ctx context.Context, ref string) error {
	return gone(e.Do(ctx, "DELETE", "/images/"+ref, url.Values{"force": {"1"}}, nil, nil))
}

// gone is nil where what should go was not there.
func gone(err error) error {
	if se, ok := err.(*StatusError); ok && se.Status == http.StatusNotFound {
		return nil
	}
	return err
}

func filters(labels []string) string {
	b, _ := json.Marshal(map[string][]string{"label": labels})
	return string(b)
}
