package session

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"time"

	"conductor/internal/event"
	"conductor/internal/fault"
	"conductor/internal/fleet"
	"conductor/internal/provision"
	"conductor/internal/remote"
	"conductor/internal/state"
)

// Recycler is what a host does to be made fresh.
type Recycler struct {
	*Station
	Packages func(ctx context.Context, note func(string)) (provision.Refreshed, error)
	Pull     func(ctx context.Context, reference string) error
	State    RecyclingState
	Reboot   []string // the command that boots the host anew
}

// RecyclingState is when that was; state.Dir is it for real.
type RecyclingState interface {
	Recycling() (state.Recycling, error)
	BeginRecycling(ctx context.Context, now time.Time) error
	EndRecycling(ctx context.Context, now time.Time) error
}

// Handlers are what fleet recycle asks of the host.
func (r *Recycler) Handlers() map[remote.Do]Handler {
	return map[remote.Do]Handler{
		remote.Recycling:     r.recycling,
		remote.HoldAll:       r.holdAll,
		remote.Refresh:       r.refresh,
		remote.RefreshImages: r.refreshImages,
		remote.Reboot:        r.reboot,
	}
}

// recycling answers with a fleet.Recycling, as it is once the note is taken.
func (r *Recycler) recycling(ctx context.Context, c Call) (err error) {
	var note fleet.RecycleNote
	if len(c.Body) > 0 {
		if err := body(c, &note); err != nil {
			return err
		}
	}
	switch note {
	case fleet.RecycleBegun:
		err = r.State.BeginRecycling(ctx, time.Now())
	case fleet.RecycleDone:
		err = r.State.EndRecycling(ctx, time.Now())
	case "":
	default:
		err = fault.New(fault.ErrUsage, "", "%q is nothing that can be noted of recycling", note)
	}
	if err != nil {
		return err
	}
	s, err := r.State.Recycling()
	if err != nil {
		return err
	}
	return answer(c.Stdout, fleet.Recycling{Last: s.Last, Begun: s.Begun, Boot: s.Boot})
}

// holdAll keeps the locks of several services by one session.
func (r *Recycler) holdAll(ctx context.Context, c Call) error {
	var services []string
	if err := body(c, &services); err != nil {
		return err
	}
	slices.Sort(services)
	for _, id := range slices.Compact(services) {
		release, err := r.Station.State.LockFleet(ctx, id, c.Wait, state.Holder{Verb: "recycling", User: c.By, Token: c.Token})
		if err != nil {
			return err
		}
		defer release()
	}
	return keep(ctx, c)
}

// refresh answers with events.
func (r *Recycler) refresh(ctx context.Context, c Call) error {
	emit := emitter(c.Stdout)
	done, err := r.Packages(ctx, func(line string) { emit(event.Note, "", line) })
	if err != nil {
		return err
	}
	emit(event.Refreshed, "", "packages: "+done.Packages)
	if done.Reboot {
		emit(event.Note, "", "a package says that the host should be rebooted")
	}
	return nil
}

// refreshImages fetches the images of live releases again, by the digests that
// their registries gave them: what is whole there costs nothing. That a registry
// has one no more is for a person to know, and keeps nobody from running what is
// here. It answers with events.
func (r *Recycler) refreshImages(ctx context.Context, c Call) error {
	all, err := r.Services.Brief(ctx)
	if err != nil {
		return err
	}
	emit := emitter(c.Stdout)
	for _, s := range all {
		if s.Image == "" {
			continue
		}
		img, err := r.Image(ctx, s.Image)
		if err != nil {
			return fmt.Errorf("image of %s: %w", s.Service, err)
		}
		for _, reference := range img.Digests {
			if err := r.Pull(ctx, reference); err != nil {
				emit(event.Warning, s.Service, fmt.Sprintf("its image cannot be fetched again: %v", err))
				continue
			}
			emit(event.Pulled, s.Service, reference)
		}
	}
	return nil
}

// reboot answers before it is too late to.
func (r *Recycler) reboot(_ context.Context, c Call) error {
	s, err := r.State.Recycling()
	if err != nil {
		return err
	}
	if s.Begun.IsZero() {
		return fault.New(fault.ErrUsage, "", "the host is rebooted only while it is recycled")
	}
	if _, err := exec.LookPath(r.Reboot[0]); err != nil {
		return fault.New(fault.ErrHost, "leave --reboot away", "reboot the host: %w", err)
	}
	if err := answer(c.Stdout, fleet.Recycling{Last: s.Last, Begun: s.Begun, Boot: s.Boot}); err != nil {
		return err
	}
	if out, err := exec.Command(r.Reboot[0], r.Reboot[1:]...).CombinedOutput(); err != nil {
		return fault.New(fault.ErrHost, "try it by hand", "reboot the host: %w: %s", err, remote.LastLines(string(out)))
	}
	return nil
}

// emitter writes events, as the verbs of --output json do. Nobody may be there to
// read them, and what is done matters more.
func emitter(to io.Writer) func(name event.Name, service, detail string) {
	out := &patient{to: to}
	return func(name event.Name, service, detail string) {
		b, err := json.Marshal(event.Event{Time: time.Now(), Event: name, Service: service, Detail: detail})
		if err == nil {
			_, _ = out.Write(append(b, '\n')) // patient
		}
	}
}
