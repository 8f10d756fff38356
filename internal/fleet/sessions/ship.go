package sessions

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	"conductor/internal/engine"
	"conductor/internal/fault"
	"conductor/internal/fleet"
	"conductor/internal/remote"
	"conductor/internal/ship"
)

// Shipper sends images of this machine's engine to hosts.
type Shipper struct {
	Engine engine.Archives
	Hosts  *Hosts

	mu       sync.Mutex
	archives map[string]*ship.Archive // by reference
}

// Ship has the host have the image of the revision, by the name that the host's
// definition gives it, and says what that took. What the host has does not
// travel.
func (s *Shipper) Ship(ctx context.Context, host, service, revision string) (string, error) {
	seen, err := s.Hosts.Look(ctx, host, fleet.Question{Service: service, Revision: revision})
	if err != nil {
		return "", err
	}
	a, err := s.archive(ctx, seen.Reference)
	if err != nil {
		return "", err
	}
	report, err := ship.Send(ctx, a, target{s.Hosts, host, service, revision}, []string{seen.Reference}, nil)
	if err != nil {
		return "", fmt.Errorf("%s: %w", host, err)
	}
	return report.String(), nil
}

// archive is the image, opened once for all hosts.
func (s *Shipper) archive(ctx context.Context, reference string) (*ship.Archive, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.archives[reference]; a != nil {
		return a, nil
	}
	a, err := ship.Open(ctx, s.Engine, reference, "")
	if errors.Is(err, engine.ErrNotFound) {
		return nil, fault.New(fault.ErrImage, "build it here; or leave image: ship away in fleet.yml, and hosts pull it", "image %s is not on this machine, which is to send it", reference)
	}
	if err != nil {
		return nil, err
	}
	if s.archives == nil {
		s.archives = map[string]*ship.Archive{}
	}
	s.archives[reference] = a
	return a, nil
}

// Close removes what was unpacked here.
func (s *Shipper) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, a := range s.archives {
		errs = append(errs, a.Close())
	}
	s.archives = nil
	return errors.Join(errs...)
}

// target is a host that images are sent to.
type target struct {
	*Hosts
	host, service, revision string
}

var _ ship.Target = target{}

func (t target) Layers(ctx context.Context, q ship.Question) (a ship.Answer, err error) {
	err = t.ask(ctx, remote.Layers, q, nil, &a)
	return a, err
}

func (t target) Put(ctx context.Context, p ship.Part, frames io.Reader) (h ship.Held, err error) {
	err = t.ask(ctx, remote.Receive, p, frames, &h)
	return h, err
}

// Load sends the manifest as what follows the request, which it may be longer
// than.
func (t target) Load(ctx context.Context, m ship.Manifest) (l ship.Loaded, err error) {
	text, err := json.Marshal(m)
	if err != nil {
		return l, err
	}
	err = t.ask(ctx, remote.Load, nil, bytes.NewReader(text), &l)
	return l, err
}

func (t target) ask(ctx context.Context, do remote.Do, body any, stdin io.Reader, answer any) error {
	r := t.held(do, t.service, t.revision)
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		r.Body = b
	}
	var out bytes.Buffer
	if err := t.Transport.Do(ctx, t.At[t.host], r, remote.Streams{Stdin: stdin, Stdout: &out}); err != nil {
		return err
	}
	if err := json.Unmarshal(out.Bytes(), answer); err != nil {
		return fmt.Errorf("%s: read the answer to %s: %w", t.host, do, err)
	}
	return nil
}
