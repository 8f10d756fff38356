package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"conductor/internal/converge"
	"conductor/internal/engine"
	"conductor/internal/event"
	"conductor/internal/fault"
	"conductor/internal/goal"
	"conductor/internal/spec"
	"conductor/internal/state"
)

// fakeHost is a host that does at once what it is asked, and remembers it in
// state_dir/host.json, so that a script can go on with the next command. What
// goes wrong is set by the script: env HOST=unhealthy.
type fakeHost struct {
	setup    Setup
	file     string
	wrong    string
	Services map[string]*fakeService
	Ops      []state.Operation
}

type fakeService struct {
	Revision string
	Kept     []string
	Replicas *int
	Stopped  bool
}

// openFake is the Opener of the tests.
func openFake(_ context.Context, s Setup) (*Parts, error) {
	h := &fakeHost{setup: s, file: filepath.Join(s.Config.StateDir, "host.json"), wrong: os.Getenv("HOST"), Services: map[string]*fakeService{}}
	if h.wrong == "state" {
		return &Parts{Engine: &fakeEngine{host: h}, Proxy: fakeProxy{h.wrong}}, fault.New(fault.ErrHost, "run as root", "open state folder: mkdir %s: permission denied", s.Config.StateDir)
	}
	if b, err := os.ReadFile(h.file); err == nil {
		if err := json.Unmarshal(b, h); err != nil {
			return nil, err
		}
	}
	if h.wrong == "history" {
		s.Warn(fault.New(fault.ErrHost, "history alone is concerned", "record in the history: disk I/O error"))
	}
	return &Parts{
		Core: h, Engine: &fakeEngine{host: h}, Proxy: fakeProxy{h.wrong}, History: h,
		Routes: func() (state.Routes, error) { return state.Routes{}, nil },
		CronDaemon: func() (int, *time.Location) {
			zone, err := time.LoadLocation("Europe/Berlin")
			if err != nil {
				panic(err)
			}
			return 1, zone
		},
		Close: func() error { return nil },
	}, nil
}

func (h *fakeHost) emit(e event.Event) {
	e.Time = time.Now()
	h.setup.Emit(e)
}

// done remembers what a verb did.
func (h *fakeHost) done(ctx context.Context, o converge.Outcome, err error) (converge.Outcome, error) {
	op := state.Operation{
		ID: int64(len(h.Ops) + 1), Service: o.Service, Verb: o.Verb, User: h.setup.User, From: o.From, To: o.To,
		Outcome: "done", Started: time.Now().Add(-1200 * time.Millisecond), Ended: time.Now(), Code: Code(err),
	}
	if err != nil {
		op.Outcome, op.Error = "failed", err.Error()
	}
	h.Ops = append(h.Ops, op)
	b, jerr := json.Marshal(h)
	if jerr == nil {
		_ = os.MkdirAll(filepath.Dir(h.file), 0o700)
		jerr = os.WriteFile(h.file, b, 0o600)
	}
	return o, errors.Join(err, jerr)
}

func (h *fakeHost) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[string]any{"Services": h.Services, "Ops": h.Ops})
}

func (h *fakeHost) goal(id string) (*fakeService, error) {
	if s := h.Services[id]; s != nil {
		return s, nil
	}
	if _, err := h.setup.Definitions.Get(id); err != nil {
		return nil, err
	}
	return nil, fault.New(fault.ErrUsage, "conductor service upgrade --id "+id+" --revision REV", "%s is not deployed", id)
}

func (h *fakeHost) broken(ctx context.Context, id, to string) error {
	switch h.wrong {
	case "unhealthy":
		h.emit(event.Event{Event: event.Failed, Service: id, Revision: to, Instance: instanceName(id, to, 1), Detail: "exited 1 after 0.4 s"})
		h.emit(event.Event{Event: event.Restored, Service: id, Revision: h.Services[id].Revision, Detail: h.Services[id].Revision + " serves on"})
		return fault.New(fault.ErrUnhealthy, "mend the release, then upgrade again",
			"upgrade %s to %s: %s exited 1 after 0.4 s; %s serves on; its last lines:\nreading config\n\x1b[31mpanic: no DATABASE_URL\x1b[0m", id, to, instanceName(id, to, 1), h.Services[id].Revision)
	case "locked":
		return state.Locked(id, state.Holder{PID: 4711, Start: time.Now(), Verb: "upgrade", Revision: "v9", User: "alice"})
	case "image":
		return fault.New(fault.ErrImage, "push it, or log in: docker login", "upgrade %s to %s: registry.example.com/%s:%s: not found", id, to, id, to)
	case "proxy":
		return fault.New(fault.ErrProxyRefused, "nginx -t", "upgrade %s to %s: nginx refused the configuration", id, to)
	case "engine":
		return fmt.Errorf("upgrade %s to %s: %w", id, to, engine.ErrUnreachable)
	case "bug":
		return errors.New("invariant broken")
	case "slow":
		h.emit(event.Event{Event: event.Created, Service: id, Revision: to, Instance: instanceName(id, to, 1)})
		<-ctx.Done()
		return fmt.Errorf("upgrade %s to %s: %w; the candidate was dropped", id, to, context.Cause(ctx))
	}
	return nil
}

func instanceName(id, revision string, slot int) string {
	return fmt.Sprintf("%s.%s.1a2b-%d-1", id, revision, slot)
}

func (h *fakeHost) replicas(id string) int {
	if s := h.Services[id]; s != nil && s.Replicas != nil {
		return *s.Replicas
	}
	if d, ok := h.setup.Definitions.Services[id]; ok {
		return d.Policy.Replicas
	}
	return 1
}

func (h *fakeHost) Bring(ctx context.Context, id, revision string) (string, error) {
	return "sha256:" + revision, nil
}

func (h *fakeHost) Upgrade(ctx context.Context, u converge.UpgradeRequest) (converge.Outcome, error) {
	id, revision := u.Service, u.Revision
	o := converge.Outcome{Service: id, Verb: "upgrade", To: revision, Took: spec.Duration(1200 * time.Millisecond)}
	if _, err := h.setup.Definitions.Get(id); err != nil {
		return o, err
	}
	s := h.Services[id]
	if s == nil {
		s = &fakeService{}
	}
	h.Services[id] = s
	o.From = s.Revision
	if err := h.broken(ctx, id, revision); err != nil {
		return h.done(ctx, o, err)
	}
	if s.Revision == revision {
		o.Note = "nothing to do: " + revision + " already runs"
		return h.done(ctx, o, nil)
	}
	h.replace(id, s.Revision, revision)
	if s.Revision != "" {
		s.Kept = slices.Insert(s.Kept, 0, s.Revision)
	}
	s.Revision, s.Stopped, o.Changed = revision, false, true
	if h.wrong == "warning" {
		o.Warnings = []string{"the definition's replicas are 1: a restart is a gap"}
	}
	return h.done(ctx, o, nil)
}

func (h *fakeHost) replace(id, from, to string) {
	for slot := range h.replicas(id) {
		e := event.Event{Service: id, Revision: to, Instance: instanceName(id, to, slot+1), Container: strings.Repeat("c", 64)}
		for _, step := range []event.Event{
			{Event: event.Created, Cause: "the candidate has 0 of 2 instances"},
			{Event: event.Started},
			{Event: event.Healthy, Detail: "GET :3000/health: 200 OK"},
			{Event: event.Routed},
		} {
			e.Event, e.Cause, e.Detail = step.Event, step.Cause, step.Detail
			h.emit(e)
		}
	}
	if from == "" {
		return
	}
	for slot := range h.replicas(id) {
		e := event.Event{Service: id, Revision: from, Instance: instanceName(id, from, slot+1)}
		for _, n := range []event.Name{event.Unrouted, event.Drained, event.Stopped, event.Removed} {
			e.Event = n
			h.emit(e)
		}
	}
}

func (h *fakeHost) Rollback(ctx context.Context, id, revision string) (converge.Outcome, error) {
	o := converge.Outcome{Service: id, Verb: "rollback", Took: spec.Duration(time.Second)}
	s, err := h.goal(id)
	if err != nil {
		return o, err
	}
	if len(s.Kept) == 0 {
		return o, fault.New(fault.ErrUsage, "conductor service status --id "+id, "roll %s back: no release before %s is kept", id, s.Revision)
	}
	o.From, o.To, o.Changed = s.Revision, s.Kept[0], true
	h.replace(id, o.From, o.To)
	s.Revision, s.Kept = s.Kept[0], s.Kept[1:]
	return h.done(ctx, o, nil)
}

func (h *fakeHost) PlanUpgrade(_ context.Context, id, revision string) ([]converge.Step, error) {
	if _, err := h.setup.Definitions.Get(id); err != nil {
		return nil, err
	}
	if s := h.Services[id]; s != nil && s.Revision == revision {
		return nil, nil
	}
	return []converge.Step{
		{Do: "create " + instanceName(id, revision, 1), Cause: "the candidate has 0 of 1 instances"},
		{Do: "route " + id, Cause: "all instances of the candidate are healthy"},
	}, nil
}

func (h *fakeHost) PlanRollback(ctx context.Context, id, revision string) ([]converge.Step, error) {
	s, err := h.goal(id)
	if err != nil {
		return nil, err
	}
	return h.PlanUpgrade(ctx, id, s.Kept[0])
}

func (h *fakeHost) verb(ctx context.Context, id, verb string, change func(*fakeService)) (converge.Outcome, error) {
	o := converge.Outcome{Service: id, Verb: verb, Took: spec.Duration(800 * time.Millisecond)}
	s, err := h.goal(id)
	if err != nil {
		return o, err
	}
	if h.wrong != "" {
		if err := h.broken(ctx, id, ""); err != nil {
			return o, err
		}
	}
	o.To, o.From, o.Changed = s.Revision, s.Revision, true
	change(s)
	return h.done(ctx, o, nil)
}

func (h *fakeHost) Stop(ctx context.Context, id string) (converge.Outcome, error) {
	return h.verb(ctx, id, "stop", func(s *fakeService) { s.Stopped = true })
}

func (h *fakeHost) Start(ctx context.Context, id string) (converge.Outcome, error) {
	return h.verb(ctx, id, "start", func(s *fakeService) { s.Stopped = false })
}

func (h *fakeHost) Restart(ctx context.Context, id string) (converge.Outcome, error) {
	return h.verb(ctx, id, "restart", func(s *fakeService) {})
}

func (h *fakeHost) Scale(ctx context.Context, id string, n *int) (converge.Outcome, error) {
	return h.verb(ctx, id, "scale", func(s *fakeService) { s.Replicas = n })
}

func (h *fakeHost) Pause(ctx context.Context, id string, paused bool) (converge.Outcome, error) {
	return h.verb(ctx, id, map[bool]string{true: "pause", false: "resume"}[paused], func(*fakeService) {})
}

func (h *fakeHost) Remove(ctx context.Context, id string) (converge.Outcome, error) {
	return h.verb(ctx, id, "remove", func(*fakeService) { delete(h.Services, id) })
}

func (h *fakeHost) Converge(ctx context.Context, ids ...string) ([]converge.Outcome, error) {
	if len(ids) == 0 {
		ids = slices.Sorted(maps.Keys(h.Services))
	}
	var os []converge.Outcome
	var errs []error
	for _, id := range ids {
		s, err := h.goal(id)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		o := converge.Outcome{Service: id, Verb: "converge", To: s.Revision, From: s.Revision}
		switch h.wrong + " " + id {
		case "two-fail blog":
			errs = append(errs, fault.New(fault.ErrImage, "push it", "converge blog: its image is gone"))
			continue
		case "two-fail shop":
			errs = append(errs, fault.New(fault.ErrUsage, "", "converge shop: something else"))
			continue
		}
		os = append(os, o)
	}
	return os, errors.Join(errs...)
}

func (h *fakeHost) Prune(_ context.Context, ids ...string) ([]converge.Outcome, error) {
	return []converge.Outcome{{Service: "shop", Verb: "prune", Changed: true, Note: "2 images let go", Took: spec.Duration(time.Second)}}, nil
}

func (h *fakeHost) Brief(ctx context.Context, ids ...string) ([]converge.Status, error) {
	return h.Status(ctx, ids...)
}

func (h *fakeHost) Status(_ context.Context, ids ...string) ([]converge.Status, error) {
	if h.wrong == "engine" {
		return nil, fmt.Errorf("status: %w", engine.ErrUnreachable)
	}
	if len(ids) == 0 {
		all := map[string]bool{}
		for id := range h.Services {
			all[id] = true
		}
		for _, id := range h.setup.Definitions.IDs() {
			all[id] = true
		}
		ids = slices.Sorted(maps.Keys(all))
	}
	var out []converge.Status
	for _, id := range ids {
		d, err := h.setup.Definitions.Get(id)
		s := h.Services[id]
		if err != nil && s == nil {
			return nil, err
		}
		st := converge.Status{Service: id, Kind: d.Policy.Kind, State: "not deployed", Instances: []converge.InstanceStatus{}}
		if err != nil {
			st.Notes = append(st.Notes, "orphan: its definition is gone")
		}
		if s == nil {
			out = append(out, st)
			continue
		}
		st.State, st.Revision, st.Kept, st.Replicas = "running", s.Revision, s.Kept, h.replicas(id)
		if s.Stopped {
			st.State = "stopped"
		} else {
			st.Instances = h.instances(id, s.Revision, st.Replicas)
			st.Healthy = st.Replicas
		}
		if d.Policy.HTTP != nil {
			st.Routes = []string{"http://" + id + ".example.com/"}
		}
		out = append(out, st)
	}
	return out, nil
}

func (h *fakeHost) instances(id, revision string, n int) []converge.InstanceStatus {
	is := []converge.InstanceStatus{}
	for slot := range n {
		is = append(is, converge.InstanceStatus{
			Name: instanceName(id, revision, slot+1), Container: strings.Repeat("c", 64), Slot: slot + 1, Revision: revision,
			Release: "1a2b3c4d5e6f", State: "running", Health: "healthy", Route: "in", Address: fmt.Sprintf("127.0.0.%d", slot+2),
			Started: time.Now().Add(-90*time.Second - 500*time.Millisecond), Memory: 118 << 20, Limit: 512 << 20, CPU: 0.02,
		})
	}
	return is
}

func (h *fakeHost) List(_ context.Context, service string, limit int) ([]state.Operation, error) {
	var ops []state.Operation
	for _, op := range slices.Backward(h.Ops) {
		if op.Service == service && (limit == 0 || len(ops) < limit) {
			ops = append(ops, op)
		}
	}
	return ops, nil
}

func (h *fakeHost) Run(context.Context, converge.RunRequest) (converge.RunResult, error) {
	return converge.RunResult{}, nil
}

// fakeJobs are what each job that is deployed prints.
const fakeJobs = "# Settles the day.\n30 2 * * * bin/settle\n# conductor: on-lock=skip\n*/10 * * * * bin/poll | tee /tmp/polled\n@reboot bin/warm\n"

func (h *fakeHost) GenerateCrontab(_ context.Context, r converge.CrontabRequest) (goal.Crontab, error) {
	c := goal.Crontab{
		Release: goal.Release{Revision: r.Revision}, Source: fakeJobs,
		Conductor: "/bin/sh", Config: h.setup.Caller.Config,
	}
	if r.OnLock != nil {
		c.OnLock = *r.OnLock
	}
	if r.Jitter != nil {
		c.Jitter = spec.Duration(*r.Jitter)
	}
	_, err := h.setup.Definitions.Get(r.Service)
	return c, err
}

func (h *fakeHost) InstallCrontab(ctx context.Context, r converge.CrontabRequest) (converge.Outcome, error) {
	h.Services[r.Service] = &fakeService{Revision: r.Revision}
	return h.verb(ctx, r.Service, "cron install", func(*fakeService) {})
}

func (h *fakeHost) RemoveCrontab(ctx context.Context, id string) (converge.Outcome, error) {
	return h.verb(ctx, id, "cron remove", func(s *fakeService) {})
}

func (h *fakeHost) Crons(ctx context.Context, ids ...string) ([]converge.Cron, error) {
	var crons []converge.Cron
	for _, id := range slices.Sorted(maps.Keys(h.Services)) {
		if def := h.setup.Definitions.Services[id]; def.Policy.Kind != spec.Job || len(ids) > 0 && ids[0] != id {
			continue
		}
		c, err := h.GenerateCrontab(ctx, converge.CrontabRequest{Service: id, Revision: h.Services[id].Revision})
		if err != nil {
			return nil, err
		}
		crons = append(crons, converge.Cron{Service: id, Crontab: c})
	}
	return crons, nil
}

func (h *fakeHost) Runs(context.Context, string, int) ([]state.Run, error) {
	at := time.Date(2026, 11, 20, 3, 0, 0, 0, time.UTC)
	return []state.Run{
		{Name: "jobs.v1.1a2b-run-2", Service: "jobs", Command: []string{"/bin/sh", "-c", "bin/poll | tee /tmp/polled"}, Lock: "jobs.x", Started: at},
		{Name: "jobs.v1.1a2b-run-1", Service: "jobs", Command: []string{"bin/settle"}, Started: at, Ended: at.Add(time.Second), Code: 3, Outcome: "failed"},
	}, nil
}

func (h *fakeHost) LiveRuns(context.Context, string) ([]engine.Container, error) { return nil, nil }
func (h *fakeHost) StopRun(context.Context, string) error                        { return nil }
func (h *fakeHost) SweepRuns(context.Context) error                              { return nil }
