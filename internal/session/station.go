package session

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"conductor/internal/converge"
	"conductor/internal/engine"
	"conductor/internal/fault"
	"conductor/internal/fleet"
	"conductor/internal/remote"
	"conductor/internal/ship"
	"conductor/internal/spec"
	"conductor/internal/state"
)

// Station is this host, as the handlers of a fleet's requests need it.
type Station struct {
	Version, Commit string
	Hostname        string
	Services        Services
	State           State
	// Definition returns a service as it is written here, and the digest of that.
	Definition  func(id string) (spec.Service, string, error)
	ServicesDir string // where definitions are
	// Image returns the ID of what a reference names on this host.
	Image func(ctx context.Context, reference string) (engine.Image, error)
	// Ship takes images that are sent to this host.
	Ship ship.Target
	// Nginx changes what nginx runs, where that is the balancer of a fleet.
	Nginx NginxBalancer
	// Troubles are what keeps the host from an upgrade, a line each.
	Troubles func(ctx context.Context) []string
}

// Services are this host's; converge.Host is it for real.
type Services interface {
	Brief(ctx context.Context, ids ...string) ([]converge.Status, error)
	Bring(ctx context.Context, id, revision string) (image string, err error)
	Run(ctx context.Context, r converge.RunRequest) (converge.RunResult, error)
}

// State is what this host knows of the fleet; state.Dir is it for real.
type State interface {
	LockFleet(ctx context.Context, service string, wait bool, h state.Holder) (release func(), err error)
	FleetHolder(service string) (h state.Holder, ok bool)
	LockMigration(ctx context.Context, service string, h state.Holder) (release func(), err error)
	Marks(service, revision string) ([]string, error)
	Mark(ctx context.Context, service, revision, mark string) error
}

// Handlers are what a fleet asks of the host.
func (s *Station) Handlers() map[remote.Do]Handler {
	return map[remote.Do]Handler{
		remote.Observe: s.observe,
		remote.Hold:    s.hold,
		remote.Bring:   s.bring,
		remote.Migrate: s.migrate,
		remote.Mark:    s.mark,
		remote.Verify:  s.verify,

		remote.Definitions:      s.definitions,
		remote.WriteDefinitions: s.writeDefinitions,

		remote.Layers:  s.layers,
		remote.Receive: s.receive,
		remote.Load:    s.load,

		remote.HAProxy:   questions(askHAProxy),
		remote.NginxFile: questions(s.Nginx.Do),
	}
}

// Holds says whether the request's token has the fleet's lock of its service.
func (s *Station) Holds(_ context.Context, r remote.Request) error {
	h, ok := s.State.FleetHolder(r.Service)
	switch {
	case !ok:
		return fault.New(fault.ErrLocked, "run the deploy again", "the deploy of %s has lost its lock here, and nobody has it", r.Service)
	case h.Token != r.Hold:
		return fault.New(fault.ErrLocked, "wait until it has ended, and run the deploy again", "the deploy lock of %s has been taken by %s since", r.Service, h.User)
	}
	return nil
}

// observe answers with a fleet.Seen.
func (s *Station) observe(ctx context.Context, c Call) error {
	seen, err := s.look(ctx, c)
	if err != nil {
		return err
	}
	return answer(c.Stdout, seen)
}

// Looking has an answer that went well end with a remote.Sight, where one is
// asked for. Without it the near end asks once more.
func (s *Station) Looking(h Handler) Handler {
	return func(ctx context.Context, c Call) error {
		if err := h(ctx, c); err != nil || !c.Look {
			return err
		}
		_ = s.sight(ctx, c)
		return nil
	}
}

func (s *Station) sight(ctx context.Context, c Call) error {
	seen, err := s.look(ctx, c)
	if err != nil {
		return err
	}
	text, err := json.Marshal(seen)
	if err != nil {
		return err
	}
	return answer(c.Stdout, remote.Sight{Event: remote.SightEvent, Seen: text})
}

func (s *Station) look(ctx context.Context, c Call) (fleet.Seen, error) {
	seen := fleet.Seen{Version: s.Version, Commit: s.Commit, Hostname: s.Hostname, Time: time.Now()}
	if c.Whole {
		seen.Troubles = s.Troubles(ctx)
	}
	if c.Service != "" {
		if err := s.service(ctx, c.Request, &seen); err != nil {
			return seen, err
		}
	}
	return seen, nil
}

func (s *Station) service(ctx context.Context, r remote.Request, seen *fleet.Seen) error {
	def, digest, err := s.Definition(r.Service)
	switch {
	case errors.Is(err, fault.ErrDefinition) && digest == "":
		return nil // there is none, which is for whoever asks to judge
	case err != nil:
		return err
	}
	seen.Definition, seen.Routed = digest, def.Policy.HTTP != nil
	all, err := s.Services.Brief(ctx, r.Service)
	if err != nil {
		return err
	}
	for _, st := range all {
		seen.Live, seen.State = st.Revision, st.State
		seen.Kept = slices.Concat(st.Kept, st.Undone)
		if st.Candidate != "" {
			seen.Kept = append(seen.Kept, st.Candidate) // a rollback that was cut off goes on
		}
		seen.Sound = st.State == "running" && st.Healthy >= st.Replicas || st.State == "job" && st.Revision != ""
		for _, i := range st.Instances {
			seen.InFlight += i.InFlight
		}
	}
	if h, ok := s.State.FleetHolder(r.Service); ok {
		seen.Holder = h.User
	}
	if r.Revision == "" {
		return nil
	}
	marks, err := s.State.Marks(r.Service, r.Revision)
	if err != nil {
		return err
	}
	for _, m := range marks {
		seen.Marks = append(seen.Marks, fleet.Mark(m))
	}
	ref, err := def.Container.Reference(r.Revision)
	if err != nil {
		return err
	}
	seen.Reference = ref
	img, err := s.Image(ctx, ref)
	if err != nil && !errors.Is(err, engine.ErrNotFound) {
		return err
	}
	seen.Image = img.ID
	return nil
}

// hold keeps the lock until the near end is gone. Where it attends it has looked
// before, for troubles, too, which need not be looked for again.
func (s *Station) hold(ctx context.Context, c Call) error {
	if c.Attend {
		if err := s.sight(ctx, c); err != nil {
			return err
		}
		select {
		case <-c.Take:
		case <-ctx.Done():
			return ended(ctx)
		}
		c.Whole = false
	}
	release, err := s.State.LockFleet(ctx, c.Service, c.Wait, state.Holder{Verb: "deploy", Revision: c.Revision, User: c.By, Token: c.Token})
	if err != nil {
		return err
	}
	defer release()
	if c.Look {
		if err := s.sight(ctx, c); err != nil {
			return err
		}
	}
	return keep(ctx, c)
}

// keep says that the locks are held, and returns when the near end is gone.
func keep(ctx context.Context, c Call) error {
	if _, err := c.Stdout.Write(remote.Held); err != nil {
		return err
	}
	<-ctx.Done()
	return ended(ctx)
}

// ended is the error of a session by which the near end kept something, or might
// have: it may let go.
func ended(ctx context.Context) error {
	if cause := context.Cause(ctx); !errors.Is(cause, remote.ErrGone) {
		return cause
	}
	return nil
}

func (s *Station) bring(ctx context.Context, c Call) error {
	image, err := s.Services.Bring(ctx, c.Service, c.Revision)
	if err != nil {
		return err
	}
	return answer(c.Stdout, map[string]string{"image": image})
}

// migrate runs the migration and notes that it is done, as one: also when
// nobody is there any more to hear of it.
func (s *Station) migrate(ctx context.Context, c Call) error {
	release, err := s.State.LockMigration(ctx, c.Service, state.Holder{Verb: "migration", Revision: c.Revision, User: c.By})
	if err != nil {
		return err
	}
	defer release()
	marks, err := s.State.Marks(c.Service, c.Revision)
	if err != nil || slices.Contains(marks, string(fleet.Migrated)) {
		return err
	}
	run := converge.RunRequest{Service: c.Service, Revision: c.Revision, Command: c.Command, Kind: converge.RunCommand}
	out := &patient{to: c.Stdout}
	run.Streams.Stdout, run.Streams.Stderr = out, out
	res, err := s.Services.Run(context.WithoutCancel(ctx), run)
	if err != nil {
		return err
	}
	if res.Code != 0 {
		return fault.New(fault.ErrUnhealthy, "conductor runs logs on this host shows all that it said", "the migration (%s) ended with exit code %d", res.Name, res.Code)
	}
	return s.State.Mark(context.WithoutCancel(ctx), c.Service, c.Revision, string(fleet.Migrated))
}

// patient writes as long as somebody reads, and is content when nobody does.
type patient struct {
	to   io.Writer
	gone bool
}

func (p *patient) Write(b []byte) (int, error) {
	if !p.gone {
		_, err := p.to.Write(b)
		p.gone = err != nil
	}
	return len(b), nil
}

func (s *Station) mark(ctx context.Context, c Call) error {
	if c.Mark != string(fleet.Tested) && c.Mark != string(fleet.Migrated) {
		return fault.New(fault.ErrUsage, "", "%q is nothing that can be noted of a revision", c.Mark)
	}
	return s.State.Mark(ctx, c.Service, c.Revision, c.Mark)
}

// body reads what a request asks with. What this conductor does not know is
// nothing that it may leave out.
func body(c Call, to any) error { return read(c.Do, c.Body, to) }

func read(do remote.Do, text []byte, to any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(to); err != nil {
		return fault.New(fault.ErrHost, "bring both to one version", "read what %q asks with: %w", do, err)
	}
	return nil
}

// answer writes the one document of a question's answer.
func answer(to io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(to, "%s\n", b)
	return err
}
