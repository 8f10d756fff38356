package converge

import (
	"net/netip"
	"strconv"
	"time"

	"conductor/internal/engine"
	"conductor/internal/goal"
	"conductor/internal/plan"
)

// The labels by which containers are found, and known for what they are. They
// are part of the contract.
const (
	LabelNamespace = "conductor.namespace"
	LabelService   = "conductor.service"
	LabelRevision  = "conductor.revision"
	LabelRelease   = "conductor.release"
	LabelSlot      = "conductor.slot"
	LabelN         = "conductor.n"
	LabelEpoch     = "conductor.epoch"
	LabelKind      = "conductor.kind"
	LabelRun       = "conductor.run"            // what a run is for
	LabelLock      = "conductor.lock"           // that a run holds
	LabelProcess   = "conductor.process"        // that attends to a run
	LabelPort      = "conductor.port"           // http.port; absent: none
	LabelGrace     = "conductor.grace"          // stop_grace_period
	LabelAttempt   = "conductor.attempt"        // restarts of the slot before this one
	LabelPrevious  = "conductor.previous_start" // RFC 3339, of the instance before
)

// The kinds of container.
const (
	KindService = "service"
	KindRun     = "run"
)

// What runs are for.
const (
	RunBefore   = "before"   // upgrade.before
	RunCommand  = "command"  // conductor run
	RunGenerate = "generate" // generate-cron
)

// mine selects the containers of one kind of a service; service "" is all.
func (h *Host) mine(service, kind string) map[string]string {
	m := map[string]string{LabelNamespace: h.Namespace}
	if service != "" {
		m[LabelService] = service
	}
	if kind != "" {
		m[LabelKind] = kind
	}
	return m
}

// labels are those of an instance that a step creates.
func (h *Host) labels(service string, r goal.Release, epoch int, s plan.Step) map[string]string {
	m := h.mine(service, KindService)
	m[LabelRevision] = r.Revision
	m[LabelRelease] = r.Digest
	m[LabelSlot] = strconv.Itoa(s.Slot)
	m[LabelN] = strconv.Itoa(s.N)
	m[LabelEpoch] = strconv.Itoa(epoch)
	m[LabelGrace] = r.Container.StopGracePeriod.String()
	if p := r.Container.HTTPPort; p != 0 {
		m[LabelPort] = strconv.Itoa(int(p))
	}
	if s.Attempt > 0 {
		m[LabelAttempt] = strconv.Itoa(s.Attempt)
		m[LabelPrevious] = s.PreviousStart.UTC().Format(time.RFC3339Nano)
	}
	return m
}

// instance reads a container as the planner's instance. Labels that were
// tampered with read as zero, which no goal names.
func instance(c engine.Container) plan.Instance {
	number := func(label string) int {
		n, _ := strconv.Atoi(c.Labels[label])
		return n
	}
	previous, _ := time.Parse(time.RFC3339Nano, c.Labels[LabelPrevious])
	port, _ := strconv.ParseUint(c.Labels[LabelPort], 10, 16)
	broken := ""
	if c.State == engine.Created {
		broken = c.Error
	}
	return plan.Instance{
		Name: c.Name, ID: c.ID,
		Release: c.Labels[LabelRelease], Revision: c.Labels[LabelRevision],
		Slot: number(LabelSlot), N: number(LabelN), Epoch: number(LabelEpoch),
		Attempt: number(LabelAttempt), PreviousStart: previous,
		State: c.State, Created: c.Created, StartedAt: c.StartedAt, FinishedAt: c.FinishedAt,
		ExitCode: c.ExitCode, OOMKilled: c.OOMKilled, Broken: broken,
		Addr: netip.AddrPortFrom(c.Address, uint16(port)),
	}
}
