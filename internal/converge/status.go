package converge

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"conductor/internal/engine"
	"conductor/internal/goal"
	"conductor/internal/health"
	"conductor/internal/plan"
	"conductor/internal/proxy"
	"conductor/internal/spec"
	"conductor/internal/state"
)

// cpuWindow is the time over which the use of processors is measured.
const cpuWindow = 150 * time.Millisecond

// Status says what the services are and should be, in the order of their ids.
// Every running instance is probed once; nothing is changed.
func (h *Host) Status(ctx context.Context, ids ...string) ([]Status, error) {
	return h.statuses(ctx, true, ids)
}

// Brief is Status without what the instances use of memory and processors, which
// takes a while to be measured.
func (h *Host) Brief(ctx context.Context, ids ...string) ([]Status, error) {
	return h.statuses(ctx, false, ids)
}

func (h *Host) statuses(ctx context.Context, use bool, ids []string) ([]Status, error) {
	// A goal that cannot be read is told of its service; the others are shown.
	goals, unreadable := h.Store.Goals()
	byID := map[string]goal.Goal{}
	for _, g := range goals {
		byID[g.Service] = g
	}
	all := len(ids) == 0
	if all {
		ids = h.everyID(byID)
	}
	for _, id := range ids {
		if _, ok := byID[id]; ok {
			continue
		}
		if _, err := h.Definitions.Get(id); err != nil && !(all && h.Definitions.Invalid[id] != nil) {
			return nil, err
		}
	}
	s, err := h.snapshot(ctx)
	if err != nil {
		return nil, err
	}
	s.unreadable = unreadable != nil
	out := make([]Status, len(ids))
	for n, id := range ids {
		out[n] = h.status(id, byID[id], s)
	}
	s.probe(ctx, h.Prober, out, byID)
	if use {
		s.use(ctx, out)
	}
	for n := range out {
		out[n].sumUp(byID[out[n].Service])
	}
	return out, nil
}

func (h *Host) everyID(goals map[string]goal.Goal) []string {
	seen := map[string]bool{}
	for id := range goals {
		seen[id] = true
	}
	for id := range h.Definitions.Services {
		seen[id] = true
	}
	for id := range h.Definitions.Invalid {
		if spec.ValidID(id) {
			seen[id] = true
		}
	}
	ids := make([]string, 0, len(seen))
	for id := range seen {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// snapshot is one look at the whole host.
type snapshot struct {
	containers map[string][]engine.Container // by service
	routes     state.Routes
	seen       proxy.Observed
	proxyErr   error
	unreadable bool // some goal cannot be read
}

func (h *Host) snapshot(ctx context.Context) (*snapshot, error) {
	s := &snapshot{containers: map[string][]engine.Container{}}
	list, err := h.Engine.List(ctx, h.mine("", KindService))
	if err != nil {
		return nil, err
	}
	errs := make([]error, len(list))
	inParallel(len(list), 8, func(n int) {
		c, err := h.Engine.Inspect(ctx, list[n].ID)
		if err == nil {
			list[n] = c
		} else if !notFound(err) {
			errs[n] = err
		}
	})
	for n, c := range list {
		if errs[n] != nil {
			return nil, errs[n]
		}
		s.containers[c.Labels[LabelService]] = append(s.containers[c.Labels[LabelService]], c)
	}
	if s.routes, err = h.Store.Routes(); err != nil {
		return nil, err
	}
	if len(s.routes.Table.Routes) > 0 {
		s.seen, s.proxyErr = h.Proxy.Observe(ctx)
	}
	return s, nil
}

// status is what the files and the snapshot say of one service.
func (h *Host) status(id string, g goal.Goal, s *snapshot) Status {
	st := Status{Service: id, Kind: g.Policy.Kind, Replicas: g.Count(g.Policy), Override: g.Replicas != nil}
	def, defined := h.Definitions.Services[id]
	if g.Current == nil && defined {
		st.Kind, st.Replicas = def.Policy.Kind, g.Count(def.Policy)
	}
	if g.Current != nil {
		st.Revision, st.Release, st.Image = g.Current.Revision, g.Current.Short(), g.Current.Image
	}
	if g.Candidate != nil {
		st.Candidate = g.Candidate.Revision
	}
	if g.Policy.HTTP != nil {
		st.Routes = g.Policy.HTTP.URLs()
	}
	for _, k := range g.Kept {
		if k.Undone {
			st.Undone = append(st.Undone, k.Revision)
		} else {
			st.Kept = append(st.Kept, k.Revision)
		}
	}
	if c := g.Crontab; c != nil {
		st.Crontab = c.Release.Revision + ", " + jobs(c)
	}
	st.Notes = h.notes(id, g, def, defined, s)
	if g.Service == "" && s.unreadable {
		if _, _, err := h.Store.Goal(id); err != nil {
			st.Notes = append(st.Notes, err.Error())
		}
	}
	file, hasFile := s.routes.Table.Route(id)
	served := s.seen.Targets[id]
	for _, c := range s.containers[id] {
		i := instance(c)
		is := InstanceStatus{Name: c.Name, Container: c.ID, Slot: i.Slot, Revision: i.Revision, Release: fmt.Sprintf("%.12s", i.Release),
			State: string(c.State), Started: c.StartedAt, Restarts: i.Attempt, Address: address(i.Addr), pid: c.PID}
		if r, ok := releaseOf(g, i.Release); ok {
			is.Limit = r.Container.Limits.Memory
		}
		switch {
		case c.State == engine.Exited:
			is.Health, is.Cause = "dead", ending(c)
		case c.State == engine.Removing && c.Error != "":
			is.Cause = "its removal failed, the next converge tries again: " + c.Error
		}
		if hasFile {
			is.Route = routeWord(i.Name, file.Targets, served, s.proxyErr)
			is.InFlight = s.seen.InFlight[i.Addr]
			if _, drains := s.routes.Drains[i.Name]; drains && is.Route == "out" && i.Running() {
				is.Route = "draining"
			}
		}
		st.Instances = append(st.Instances, is)
	}
	if st.Instances == nil {
		st.Instances = []InstanceStatus{}
	}
	if g.Running && g.Current != nil {
		nextTries(st.Instances, g.Current.Short())
	}
	slices.SortFunc(st.Instances, func(a, b InstanceStatus) int {
		if a.Slot != b.Slot {
			return a.Slot - b.Slot
		}
		return b.Started.Compare(a.Started)
	})
	return st
}

// nextTries fills in when slots without a live instance are filled again.
func nextTries(is []InstanceStatus, release string) {
	last := map[int]*InstanceStatus{} // by slot
	for n := range is {
		i := &is[n]
		switch l := last[i.Slot]; {
		case i.Release != release:
		case i.State == string(engine.Running) || i.State == string(engine.Created):
			last[i.Slot] = &InstanceStatus{Started: i.Started.AddDate(100, 0, 0)} // it is filled
		case l == nil || i.Started.After(l.Started):
			last[i.Slot] = i
		}
	}
	for _, i := range last {
		if i.State == "" || i.Started.IsZero() {
			continue
		}
		i.NextTry = i.Started
		if i.Restarts > 0 {
			i.NextTry = i.Started.Add(plan.RestartInterval)
		}
	}
}

// notes say what a person should know about the service.
func (h *Host) notes(id string, g goal.Goal, def spec.Service, defined bool, s *snapshot) []string {
	var notes []string
	deployed := g.Current != nil || g.Candidate != nil
	switch {
	case h.Definitions.Invalid[id] != nil:
		notes = append(notes, "its definition is not valid: `conductor validate` tells")
	case !defined && deployed:
		notes = append(notes, "orphan: its definition is gone; `conductor service remove --id "+id+"` forgets it")
	case defined && g.Current != nil:
		if what := changed(g.Current.Container, def.Container); what != "" {
			notes = append(notes, "definition changed, not applied: "+what+" (upgrade applies it)")
		}
		if what := changed(g.Policy, def.Policy); what != "" {
			notes = append(notes, "definition changed, not applied: "+what+" (converge or upgrade applies it)")
		}
	}
	if g.Candidate != nil {
		notes = append(notes, fmt.Sprintf("an upgrade to %s is not finished since %s: it runs, or it was cut off and `conductor converge` goes on with it", g.Candidate.Revision, g.Candidate.Since.Local().Format(time.DateTime)))
	}
	if note := h.cronNote(g); note != "" && g.Crontab != nil {
		notes = append(notes, note)
	}
	if g.Paused {
		notes = append(notes, "supervision is paused: `conductor supervise --resume "+id+"` takes it up again")
	}
	if g.Removing {
		notes = append(notes, "its removal is not finished: remove it again")
	}
	if s.proxyErr != nil && g.Policy.HTTP != nil {
		notes = append(notes, "the proxy does not say what it serves: "+s.proxyErr.Error())
	}
	return notes
}

// changed names the keys in which two parts of a definition differ.
func changed(a, b any) string {
	var x, y map[string]json.RawMessage
	for _, p := range []struct {
		from any
		to   *map[string]json.RawMessage
	}{{a, &x}, {b, &y}} {
		data, err := json.Marshal(p.from)
		if err == nil {
			err = json.Unmarshal(data, p.to)
		}
		if err != nil {
			return err.Error()
		}
	}
	keys := map[string]bool{}
	for k := range x {
		keys[k] = string(x[k]) != string(y[k])
	}
	for k := range y {
		keys[k] = string(x[k]) != string(y[k])
	}
	var names []string
	for k, differs := range keys {
		if differs {
			names = append(names, k)
		}
	}
	for n := range names {
		if names[n] == "http_port" {
			names[n] = "http.port" // as the definition writes it
		}
	}
	slices.Sort(names)
	return join(names)
}

func releaseOf(g goal.Goal, digest string) (goal.Release, bool) {
	for _, r := range g.Releases() {
		if r.Digest == digest {
			return r, true
		}
	}
	return goal.Release{}, false
}

func address(a netip.AddrPort) string {
	if !a.Addr().IsValid() {
		return ""
	}
	if a.Port() == 0 {
		return a.Addr().String()
	}
	return a.String()
}

func ending(c engine.Container) string {
	switch {
	case c.Error != "":
		return c.Error
	case c.OOMKilled:
		return "killed: out of memory"
	}
	return fmt.Sprintf("exited %d", c.ExitCode)
}

func routeWord(name string, file, served []proxy.Target, err error) string {
	has := func(ts []proxy.Target) bool {
		return slices.ContainsFunc(ts, func(t proxy.Target) bool { return t.Instance == name })
	}
	switch {
	case err != nil:
		return "unknown"
	case has(file) != has(served):
		return "unproved"
	case has(served):
		return "in"
	}
	return "out"
}

// probe asks every running instance once.
func (s *snapshot) probe(ctx context.Context, p health.Prober, out []Status, goals map[string]goal.Goal) {
	type ask struct{ service, instance int }
	var asks []ask
	for n := range out {
		for m := range out[n].Instances {
			if out[n].Instances[m].State == string(engine.Running) {
				asks = append(asks, ask{n, m})
			}
		}
	}
	inParallel(len(asks), 32, func(n int) {
		st := &out[asks[n].service]
		is := &st.Instances[asks[n].instance]
		g := goals[st.Service]
		l := &loop{goal: g}
		var c engine.Container
		for _, c = range s.containers[st.Service] {
			if c.ID == is.Container {
				break
			}
		}
		i := instance(c)
		r := p.Probe(ctx, l.target(i), l.healthOf(i))
		switch {
		case r.OK:
			is.Health = "healthy"
		case time.Since(i.StartedAt) < l.healthOf(i).StartTimeout.D() && is.Route != "in":
			is.Health, is.Cause = "starting", r.Text
		default:
			is.Health, is.Cause = "unhealthy", r.Text
		}
	})
}

// sumUp says in one word how the service is.
func (st *Status) sumUp(g goal.Goal) {
	for _, i := range st.Instances {
		if i.Health == "healthy" && g.Current != nil && i.Release == g.Current.Short() {
			st.Healthy++
		}
	}
	switch {
	case g.Current == nil && g.Candidate == nil:
		st.State = "not deployed"
	case g.Candidate != nil:
		st.State = "upgrading"
	case !g.Running:
		st.State = "stopped"
	case st.Kind == spec.Job:
		st.State = "job"
	case st.Healthy >= st.Replicas:
		st.State = "running"
	case st.Healthy > 0:
		st.State = "degraded"
	default:
		st.State = "down"
	}
}
