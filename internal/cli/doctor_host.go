package cli

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"conductor/internal/converge"
	"conductor/internal/engine"
	"conductor/internal/fault"
	"conductor/internal/proxy"
	"conductor/internal/spec"
	"conductor/internal/state"
)

// host looks at what runs on the host: the engine, its network, the proxy, and
// the services.
func (d *doctor) host(ctx context.Context, c spec.Config, set spec.Set, p *Parts) {
	if p.Engine == nil {
		return
	}
	info, err := p.Engine.Info(ctx)
	if err != nil {
		if Code(err) == 1 {
			err = fault.New(fault.ErrUnreachable, fault.Hint(err), "%w", err)
		}
		d.fail("engine", "is it running? systemctl start docker; or set engine.host", err)
	} else {
		d.ok("engine", "%s %s, API %s, at %s", info.Name, info.Version, info.APIVersion, info.Endpoint)
		if info.RootDir != "" {
			d.disk("disk", info.RootDir, "images and containers")
		}
		d.network(ctx, c, p.Engine)
	}
	if p.Proxy != nil {
		d.proxy(ctx, set, p)
	}
	if err == nil && p.Core != nil {
		d.services(ctx, set, p.Core)
	}
	d.supervisor(p)
	d.cron(set, c, p)
}

// supervisor sees whether anybody replaces what dies.
func (d *doctor) supervisor(p *Parts) {
	if p.Supervisor == nil {
		return
	}
	pid, since := p.Supervisor()
	if pid == 0 {
		d.warn("supervisor", "start it: systemctl start conductor-supervise, or conductor supervise; or call conductor converge from a timer", "none runs: what dies stays dead")
		return
	}
	d.ok("supervisor", "it runs (process %d) since %s", pid, since.Local().Format(time.DateTime))
}

// cron looks for the daemon that is to run the services' jobs, where any has
// some.
func (d *doctor) cron(set spec.Set, c spec.Config, p *Parts) {
	with := 0
	for _, s := range set.Services {
		if s.Policy.Cron != nil || s.Policy.Kind == spec.Job {
			with++
		}
	}
	if with == 0 || p.CronDaemon == nil {
		return
	}
	if _, err := os.Stat(c.CronDir); err != nil {
		d.fail("cron", "apt-get install cron; or set cron_dir", fault.New(fault.ErrHost, "", "crontabs cannot be installed: %w", err))
		return
	}
	pid, zone := p.CronDaemon()
	if pid == 0 {
		d.warn("cron", "apt-get install cron; systemctl start cron", "no cron daemon runs, and %s with jobs", has(with))
		return
	}
	d.ok("cron", "the daemon runs (process %d), by the clock of %s", pid, zone)
}

func has(services int) string {
	if services == 1 {
		return "there is a service"
	}
	return fmt.Sprintf("there are %d services", services)
}

// network sees whether this host can reach the addresses of live instances:
// each lies in the subnet of one of its interfaces.
func (d *doctor) network(ctx context.Context, c spec.Config, e engine.Engine) {
	all, err := e.List(ctx, map[string]string{converge.LabelNamespace: c.Namespace, converge.LabelKind: converge.KindService})
	if err != nil {
		d.fail("network", "", fmt.Errorf("list the instances: %w", err))
		return
	}
	subnets, err := interfaceSubnets()
	if err != nil {
		d.warn("network", "", "the host's interfaces cannot be listed: %s", err)
		return
	}
	live := 0
	for _, i := range all {
		if i.State != engine.Running || !i.Address.IsValid() {
			continue
		}
		live++
		if !within(subnets, i.Address) {
			d.fail("network", "is the engine on this host? look at: ip address; docker network inspect "+c.Namespace,
				fault.New(fault.ErrHost, "", "no interface of this host leads to %s, the address of %s", i.Address, i.Name))
			return
		}
	}
	if live == 0 {
		d.ok("network", "no live instance; network %s is made with the first one where it is not there", c.Namespace)
		return
	}
	d.ok("network", "the addresses of %s are this host's to reach", plural(live, "live instance"))
}

func interfaceSubnets() ([]netip.Prefix, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var ps []netip.Prefix
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			ps = append(ps, p.Masked())
		}
	}
	return ps, nil
}

func within(ps []netip.Prefix, a netip.Addr) bool {
	for _, p := range ps {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// proxy asks the proxy whether an upgrade could use it. A host without web
// services needs none.
func (d *doctor) proxy(ctx context.Context, set spec.Set, p *Parts) {
	web := 0
	for _, s := range set.Services {
		if s.Policy.HTTP != nil {
			web++
		}
	}
	var routes state.Routes
	if p.Routes != nil {
		r, err := p.Routes()
		if err != nil {
			d.fail("routes", "", err)
			return
		}
		routes = r
	}
	err := p.Proxy.Check(ctx, routes.Table)
	if err != nil && web == 0 {
		d.warn("proxy", "nothing to do until there is a web service", "no web service needs it: %s", err)
		return
	}
	if err != nil {
		if Code(err) == 1 {
			err = fault.New(fault.ErrUnreachable, fault.Hint(err), "%w", err)
		}
		d.fail("proxy", "", err)
		return
	}
	o, err := p.Proxy.Observe(ctx)
	switch {
	case err != nil && len(routes.Table.Routes) == 0:
		d.ok("proxy", "it answers and its configuration passes its test; nothing is routed yet")
	case err != nil:
		d.fail("proxy", "conductor converge", err)
	case len(routes.Table.Routes) > 0 && !o.Routes:
		d.warn("proxy", "conductor converge", "it does not serve the routes of its file")
	default:
		d.ok("proxy", "it serves %s", plural(len(o.Targets), "route"))
		d.drift(routes.Table, o)
	}
}

// drift tells of services whose proved targets are others than were kept.
func (d *doctor) drift(t proxy.Table, o proxy.Observed) {
	var ids []string
	for _, r := range t.Routes {
		if len(o.Targets[r.Service]) != len(r.Targets) {
			ids = append(ids, r.Service)
		}
	}
	if len(ids) > 0 {
		d.warn("proxy", "conductor converge", "it sends requests to other instances than it should: %s", strings.Join(ids, ", "))
	}
}

// services tells of those that are not well, and of orphans.
func (d *doctor) services(ctx context.Context, set spec.Set, core Core) {
	all, err := core.Brief(ctx)
	if err != nil {
		d.fail("services", "", err)
		return
	}
	var orphans, unwell []string
	running, jobs := 0, 0
	for _, s := range all {
		_, valid := set.Services[s.Service]
		_, invalid := set.Invalid[s.Service]
		if !valid && !invalid {
			orphans = append(orphans, s.Service)
		}
		switch s.State {
		case "running":
			running++
		case "job":
			jobs++
		case "down", "degraded":
			unwell = append(unwell, s.Service+" is "+s.State)
		}
	}
	if len(orphans) > 0 {
		d.warn("orphans", "put their definitions back, or: conductor service remove --id "+orphans[0],
			"without a definition: %s", strings.Join(orphans, ", "))
	}
	if len(unwell) > 0 {
		d.warn("services", "conductor service status, then conductor converge", "%s", strings.Join(unwell, ", "))
		return
	}
	if jobs > 0 {
		d.ok("services", "%d of %d run, and those are well; %s", running, len(all)-jobs, plural(jobs, "job"))
		return
	}
	d.ok("services", "%d of %d run, and those are well", running, len(all))
}
