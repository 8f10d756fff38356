package spec

import (
	"slices"
	"strings"

	"conductor/internal/fault"
)

// Fleet is fleet.yml with its defaults filled in: the machines that one deploy
// goes to. Its paths are absolute; what it runs itself runs in its folder, and
// never in a shell.
type Fleet struct {
	File     string
	Hosts    []FleetHost    // in the file's order
	Services []FleetService // in the file's order
	Balancer Balancer
	Targets  []FleetTarget // in the file's order
	Hooks    map[HookPoint]Hook
	// Definitions is the folder that has the services' definitions, for those
	// hosts which take them from here; empty: none do.
	Definitions string
	Notify      []NotifyTarget
	SSH         []string // how ssh is called; empty: ssh
}

// FleetHost is a machine that runs services.
type FleetHost struct {
	Name  string   // has the form of an id; unique, and no role has it
	SSH   string   // as ssh takes it: ValidDestination; default: Name
	Port  int      // 0: what ssh's own configuration says
	Roles []string // each has the form of an id
	// Address is where a balancer of kind nginx reaches the host: HOST or
	// HOST:PORT, an IPv6 address in brackets. Default: the host of SSH.
	Address string
	// Server is the host's name at a balancer of kind haproxy. Default: Name.
	Server string
	// Sync: the host takes its definitions from Fleet.Definitions. Default
	// true; false: something else writes them there.
	Sync bool
}

// FleetService is how a service goes over the fleet.
type FleetService struct {
	ID       string
	On       []string // roles and names of hosts
	Strategy Strategy
	Test     []string // a command of the image; nil: there is no test
	Migrate  []string // a command of the image; nil: there is no migration
	// MaxFailed hosts may fail, and are left out, before the deploy stops.
	MaxFailed      int
	DrainTimeout   Duration // of requests at a host that has left the balancer; default 30 s
	TestTimeout    Duration // default 30 m
	MigrateTimeout Duration // default 1 h
	// Ship: the image travels over ssh, from where the deploy runs. Otherwise
	// each host pulls it from its registry.
	Ship bool
}

// StrategyKind is how a revision goes over the hosts of a service.
type StrategyKind string

const (
	StrategyHalves     StrategyKind = "halves"
	StrategyOneAtATime StrategyKind = "one-at-a-time" // the default
	StrategyAll        StrategyKind = "all"
	StrategyPercent    StrategyKind = "percent"
	StrategyFirst      StrategyKind = "first"
)

// Strategy is a StrategyKind with its figures.
type Strategy struct {
	Kind StrategyKind
	// Percent of the hosts go at a time, 1 to 100. With StrategyFirst those
	// after the first; 0: one at a time.
	Percent int
	First   string // the host that goes alone, before all others (StrategyFirst)
	// What comes between the first host and the others: somebody is asked, or
	// so much time passes.
	Confirm bool
	Pause   Duration
}

// Width is how many of n hosts go at a time, at least 1, where they do not go in
// halves. Of a host and a part of one the part is left.
func (s Strategy) Width(n int) int {
	if s.Kind == StrategyAll {
		return max(n, 1)
	}
	return max(n*s.Percent/100, 1)
}

// BalancerKind is what spreads requests over the hosts.
type BalancerKind string

const (
	BalancerNone    BalancerKind = "none" // the default
	BalancerHAProxy BalancerKind = "haproxy"
	BalancerNginx   BalancerKind = "nginx"
	BalancerCommand BalancerKind = "command"
)

// Balancer is what spreads requests over the hosts, and how it is told.
type Balancer struct {
	Kind BalancerKind
	// On is the host it runs on, a name in Hosts or else a destination of ssh
	// (haproxy, nginx). Use Fleet.BalancerHost.
	On      string
	Backend string // haproxy: the backend; nginx: the upstream
	Socket  string // haproxy: of its runtime API; default /run/haproxy/admin.sock
	File    string // nginx: the absolute path of the file that has the upstream
	// Drain and Admit are the commands that take a host out, and put it in
	// again; they run where the deploy does (command).
	Drain, Admit []string
}

// FleetTarget is something else that the same deploy brings to the revision, by
// a command where the deploy runs.
type FleetTarget struct {
	Name     string // has the form of an id; unique
	Command  []string
	Timeout  Duration // default 30 m
	Services []string // with whose deploys it goes; empty: all
}

// HookPoint is when a hook runs.
type HookPoint string

const (
	BeforeDeploy HookPoint = "before_deploy"
	BeforeHost   HookPoint = "before_host"
	AfterHost    HookPoint = "after_host"
	AfterDeploy  HookPoint = "after_deploy"
	OnFailure    HookPoint = "on_failure"
)

// Hook is a command that runs where the deploy does.
type Hook struct {
	Command []string
	Timeout Duration // default 5 m
}

// Host returns the host of that name.
func (f Fleet) Host(name string) (FleetHost, bool) {
	i := slices.IndexFunc(f.Hosts, func(h FleetHost) bool { return h.Name == name })
	if i < 0 {
		return FleetHost{}, false
	}
	return f.Hosts[i], true
}

// Service returns the service, or fault.ErrDefinition where the fleet has none
// of that id.
func (f Fleet) Service(id string) (FleetService, error) {
	var known []string
	for _, s := range f.Services {
		if s.ID == id {
			return s, nil
		}
		known = append(known, s.ID)
	}
	hint := didYouMean(id, known)
	if hint == "" {
		hint = "say in " + f.File + " where it runs: services: {" + printable(id) + ": {on: [ROLE]}}"
	}
	return FleetService{}, fault.New(fault.ErrDefinition, hint, "the fleet has no service %s", quote(id))
}

// HostsOf returns the hosts of a service in the file's order; none where the
// fleet has no such service.
func (f Fleet) HostsOf(id string) []FleetHost {
	for _, s := range f.Services {
		if s.ID == id {
			return f.named(s.On)
		}
	}
	return nil
}

// HostsNamed returns the hosts that the words name, as roles or by their names,
// in the file's order; fault.ErrUsage for a word that names none.
func (f Fleet) HostsNamed(words ...string) ([]FleetHost, error) {
	for _, w := range words {
		if len(f.named([]string{w})) == 0 {
			hint := didYouMean(w, f.words())
			if hint == "" {
				hint = "there are " + strings.Join(f.words(), ", ")
			}
			return nil, fault.New(fault.ErrUsage, hint, "%s has no host and no role %s", f.File, quote(w))
		}
	}
	return f.named(words), nil
}

// named are the hosts that have one of the words as name or role.
func (f Fleet) named(words []string) (hosts []FleetHost) {
	for _, h := range f.Hosts {
		if slices.Contains(words, h.Name) || slices.ContainsFunc(h.Roles, func(r string) bool { return slices.Contains(words, r) }) {
			hosts = append(hosts, h)
		}
	}
	return hosts
}

// words are the names and roles of all hosts, each once.
func (f Fleet) words() (words []string) {
	for _, h := range f.Hosts {
		words = append(append(words, h.Name), h.Roles...)
	}
	slices.Sort(words)
	return slices.Compact(words)
}

// TargetsOf returns the targets that go with deploys of a service.
func (f Fleet) TargetsOf(id string) (targets []FleetTarget) {
	for _, t := range f.Targets {
		if len(t.Services) == 0 || slices.Contains(t.Services, id) {
			targets = append(targets, t)
		}
	}
	return targets
}

// BalancerHost returns the host that the balancer runs on: one of Hosts, or one
// that has nothing but its destination, which is its name too. ok is false
// where there is no balancer, or where commands reach it.
func (f Fleet) BalancerHost() (h FleetHost, ok bool) {
	if f.Balancer.On == "" {
		return h, false
	}
	if h, ok := f.Host(f.Balancer.On); ok {
		return h, true
	}
	return FleetHost{Name: f.Balancer.On, SSH: f.Balancer.On}, true
}
