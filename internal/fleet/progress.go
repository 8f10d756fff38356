package fleet

import (
	"slices"
	"sync"
	"time"

	"conductor/internal/rollout"
)

// Progress is how far a deploy is: a whole picture, and whoever gets it may keep
// it.
type Progress struct {
	Revision string // that the hosts are brought to
	Back     bool   // it is one that they have kept
	Stage    string // in words: "looking at the hosts", "wave 2 of 3"
	Hosts    []HostProgress
}

// HostProgress is how far a host is.
type HostProgress struct {
	Host     string
	Revision string // that it runs; "" as long as that is not known
	Balanced bool   // the balancer knows it
	In       bool   // and sends it requests
	// Doing is what is done there, a rollout.Do, look or wait; "" for nothing.
	Doing, Cause string
	Since        time.Time // when Doing began
	Done         bool      // it runs the revision, and takes requests where it should
	Failure      string    // why it was given up
}

// doing is what is done on a host at the moment.
type doing struct {
	what, cause string
	since       time.Time
}

// does notes what is done on the host from now on, unless that is known.
func (h *host) does(what, cause string) {
	if h.doing.what != what || h.doing.cause != cause {
		h.doing = doing{what, cause, time.Now()}
	}
}

// looks tells that all hosts are looked at. answered tells that one has
// answered, and is for whoever asked it.
func (l *loop) looks() (answered func(*host)) {
	if l.Watch == nil {
		return func(*host) {}
	}
	for _, h := range l.hosts {
		h.does("look", "")
	}
	p := l.progress("looking at the hosts")
	l.Watch(p)
	var mu sync.Mutex
	return func(h *host) {
		h.does("", "")
		mu.Lock()
		defer mu.Unlock()
		p.Hosts = slices.Clone(p.Hosts) // the one before is whoever watches'
		p.Hosts[slices.Index(l.hosts, h)] = l.progressOf(h)
		l.Watch(p)
	}
}

// underWay tells how far it is when steps are begun.
func (l *loop) underWay(waits []rollout.Wait) {
	if l.Watch == nil {
		return
	}
	awaited := map[string]string{}
	for _, w := range waits {
		awaited[w.Host] = w.Cause
	}
	in := l.view()
	for n, h := range l.hosts {
		h.done = in.Hosts[n].Done()
		switch cause := awaited[h.name]; {
		case h.busy != "": // noted when it began
		case cause != "":
			h.does("wait", cause)
		default:
			h.does("", "")
		}
	}
	l.tell(rollout.Stage(in))
}

// tell has whoever watches know how far it is.
func (l *loop) tell(stage string) {
	if l.Watch != nil {
		l.Watch(l.progress(stage))
	}
}

func (l *loop) progress(stage string) Progress {
	p := Progress{Revision: l.d.Revision, Back: l.d.Rollback, Stage: stage}
	for _, h := range l.hosts {
		p.Hosts = append(p.Hosts, l.progressOf(h))
	}
	return p
}

func (l *loop) progressOf(h *host) HostProgress {
	s, known := l.at[h.name]
	p := HostProgress{
		Host: h.name, Revision: h.seen.Live, Balanced: known, In: s.In, Done: h.done,
		Doing: h.doing.what, Cause: h.doing.cause, Since: h.doing.since,
	}
	if h.err != nil {
		p.Failure = h.err.Error()
	}
	return p
}
