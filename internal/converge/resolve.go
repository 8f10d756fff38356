package converge

import (
	"context"
	"errors"
	"fmt"
	"time"

	"conductor/internal/engine"
	"conductor/internal/event"
	"conductor/internal/fault"
	"conductor/internal/goal"
	"conductor/internal/proxy"
	"conductor/internal/spec"
)

// secretsTimeout bounds the reading of all of a release's secrets, whose
// commands may ask somebody far away.
const secretsTimeout = 2 * time.Minute

// resolve turns a revision into a release, once: from then on the image ID is
// what runs, whatever becomes of the tag.
func (h *Host) resolve(ctx context.Context, s spec.Service, revision string) (goal.Release, error) {
	ref, err := s.Container.Reference(revision)
	if err != nil {
		return goal.Release{}, err
	}
	r := goal.Release{Revision: revision, Reference: ref, Container: s.Container}
	img, pulled, err := h.image(ctx, s, revision, ref)
	if err != nil {
		return r, err
	}
	r.Image, r.Pulled = img.ID, pulled
	reading, cancel := context.WithTimeout(ctx, secretsTimeout)
	defer cancel()
	m, err := h.Secrets.Read(reading, s.Container)
	if err != nil {
		return r, err
	}
	r.Sum(m.Sum)
	return r, nil
}

// image finds the image on this host, or fetches it, as pull_policy says.
func (h *Host) image(ctx context.Context, s spec.Service, revision, ref string) (img engine.Image, pulled bool, err error) {
	policy := s.Policy.PullPolicy
	if policy != spec.PullAlways {
		err = limited(ctx, func(ctx context.Context) (err error) {
			img, err = h.Engine.Image(ctx, ref)
			return err
		})
		if err == nil || !notFound(err) {
			return img, false, err
		}
		if policy == spec.PullNever {
			return img, false, fault.New(fault.ErrImage, "build or load it on this host, or set pull_policy: missing",
				"image %s is not on this host, and pull_policy is never", ref)
		}
	}
	img, err = h.Engine.Pull(ctx, ref)
	if err != nil {
		if ctx.Err() != nil || errors.Is(err, engine.ErrUnreachable) || errors.Is(err, engine.ErrNoSpace) {
			return img, false, err
		}
		return img, false, fault.New(fault.ErrImage,
			"check the revision, the registry's name and `docker login`; or put the image on this host yourself",
			"image %s cannot be had: %w", ref, err)
	}
	h.tell(event.Event{Event: event.Pulled, Service: s.ID, Revision: revision, Detail: ref})
	return img, true, nil
}

// definition returns the service as it is written, where it is written and its
// routes conflict with no other.
func (h *Host) definition(id string) (spec.Service, error) {
	s, err := h.Definitions.Get(id)
	if err != nil {
		return s, err
	}
	return s, h.Definitions.Conflicts(id)
}

// checkProxy fails early: whatever would keep the proxy from taking the
// service's route is found before anything that serves is touched. The proxy's
// own test takes its time, so it runs beside the start of instances, unless
// something that cannot be taken back comes first.
func (h *Host) checkProxy(ctx context.Context, r *request, p spec.Policy) error {
	if p.HTTP == nil {
		return nil
	}
	routes, err := h.Store.Routes()
	if err != nil {
		return err
	}
	route, _ := routes.Table.Route(r.Service)
	route.Service, route.HTTP = r.Service, *p.HTTP
	if err := claimed(routes.Table.Without(r.Service), route); err != nil {
		return err
	}
	check := func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, routeTimeout)
		defer cancel()
		release, err := h.Store.LockProxy(ctx)
		if err != nil {
			return err
		}
		defer release()
		routes, err := h.Store.Routes()
		if err != nil {
			return err
		}
		return h.Proxy.Check(ctx, routes.Table.With(route))
	}
	err = limited(ctx, func(ctx context.Context) error {
		_, err := h.Proxy.Observe(ctx) // one that is not there is known at once
		return err
	})
	if err != nil || p.Upgrade.Order == spec.StopFirst || len(p.Upgrade.Before) > 0 {
		return check(ctx)
	}
	r.check = check
	return nil
}

// claimed refuses a route that a service without a definition still has: the
// definitions' own conflicts are found among the definitions.
func claimed(t proxy.Table, r proxy.Route) error {
	for _, o := range t.Routes {
		if o.HTTP.Listen == r.HTTP.Listen && o.HTTP.Path == r.HTTP.Path && share(o.HTTP.Hosts, r.HTTP.Hosts) {
			return fault.New(fault.ErrDefinition, fmt.Sprintf("conductor service remove --id %s, or give one of them another host or path", o.Service),
				"route %s%s of %s is the route of %s, which still runs", first(r.HTTP.Hosts), r.HTTP.Path, r.Service, o.Service)
		}
	}
	return nil
}

func first(hosts []string) string {
	if len(hosts) == 0 {
		return "*"
	}
	return hosts[0]
}

func share(a, b []string) bool {
	if len(a) == 0 && len(b) == 0 {
		return true
	}
	for _, x := range a {
		for _, y := range b {
			if x == y {
				return true
			}
		}
	}
	return false
}
