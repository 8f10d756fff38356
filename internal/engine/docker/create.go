package docker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"conductor/internal/engine"
	"conductor/internal/spec"
)

// Create makes a container and does not start it. A path of the host that is
// to be mounted and is not there is ErrCannotRun: Docker would make an empty
// folder of it in the old way of naming mounts, which is not used here.
func (e *Engine) Create(ctx context.Context, c engine.Create) (string, error) {
	what := "create container " + c.Name
	host, err := hostConfig(c)
	if err != nil {
		return "", fmt.Errorf("%s: %w", what, err)
	}
	opts := client.ContainerCreateOptions{Name: c.Name, Config: config(c), HostConfig: host}
	if c.Network != "" {
		// API 1.41 takes one network at the creation, no more.
		end := &network.EndpointSettings{}
		if c.Address.IsValid() {
			end.IPAMConfig = &network.EndpointIPAMConfig{IPv4Address: c.Address}
		}
		opts.NetworkingConfig = &network.NetworkingConfig{
			EndpointsConfig: map[string]*network.EndpointSettings{c.Network: end},
		}
	}
	opts.Config.ExposedPorts, host.PortBindings, err = ports(c.Spec.Ports)
	if err != nil {
		return "", fmt.Errorf("%s: %w", what, err)
	}
	if err := e.agree(ctx); err != nil {
		return "", err
	}
	res, err := e.api.ContainerCreate(ctx, opts)
	if err != nil {
		return "", e.fail(ctx, err, "%s", what)
	}
	return res.ID, nil
}

func config(c engine.Create) *container.Config {
	s := c.Spec
	command := s.Command
	if c.Command != nil {
		command = c.Command
	}
	labels := maps.Clone(s.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	maps.Copy(labels, c.Labels)
	grace := wholeSeconds(s.StopGracePeriod.D())
	conf := &container.Config{
		Image:      c.Image,
		Hostname:   s.Hostname,
		User:       s.User,
		Env:        c.Env,
		Cmd:        command,
		Entrypoint: s.Entrypoint,
		WorkingDir: s.WorkingDir,
		Labels:     labels,
		StopSignal: s.StopSignal,
		Tty:        c.TTY,
		OpenStdin:  c.Stdin,
		StdinOnce:  c.Stdin,
		// Instances are probed from outside, where it costs an eighth.
		Healthcheck: &container.HealthConfig{Test: []string{"NONE"}},
	}
	if c.Stdin || c.TTY {
		// What its caller attaches to; the engine only shows it.
		conf.AttachStdin, conf.AttachStdout, conf.AttachStderr = c.Stdin, true, true
	}
	if grace > 0 {
		// For those who stop it by hand, and for the end of the engine.
		conf.StopTimeout = &grace
	}
	return conf
}

func hostConfig(c engine.Create) (*container.HostConfig, error) {
	s := c.Spec
	h := &container.HostConfig{
		NetworkMode:    container.NetworkMode(c.Network),
		RestartPolicy:  container.RestartPolicy{Name: container.RestartPolicyDisabled},
		Init:           &s.Init,
		ReadonlyRootfs: s.ReadOnly,
		CapAdd:         s.CapAdd,
		CapDrop:        s.CapDrop,
		SecurityOpt:    s.SecurityOpt,
		ShmSize:        s.ShmSize,
		ExtraHosts:     s.ExtraHosts,
		LogConfig:      container.LogConfig{Type: s.Logging.Driver, Config: s.Logging.Options},
		Resources: container.Resources{
			Memory: s.Limits.Memory,
			// Memory and swap together: swap is no way around the limit.
			MemorySwap: s.Limits.Memory,
			NanoCPUs:   int64(math.Round(s.Limits.CPUs * 1e9)),
		},
	}
	if s.Limits.PIDs > 0 {
		h.PidsLimit = &s.Limits.PIDs
	}
	for _, name := range slices.Sorted(maps.Keys(s.Ulimits)) {
		u := s.Ulimits[name]
		h.Ulimits = append(h.Ulimits, &container.Ulimit{Name: name, Soft: u.Soft, Hard: u.Hard})
	}
	for _, d := range s.DNS {
		a, err := netip.ParseAddr(d)
		if err != nil {
			return nil, fmt.Errorf("dns: %q is not an IP address", d)
		}
		h.DNS = append(h.DNS, a)
	}
	for _, t := range s.Tmpfs {
		path, options, _ := strings.Cut(t, ":")
		if h.Tmpfs == nil {
			h.Tmpfs = map[string]string{}
		}
		h.Tmpfs[path] = options
	}
	for _, v := range s.Volumes {
		if err := volume(h, v); err != nil {
			return nil, err
		}
	}
	for _, target := range slices.Sorted(maps.Keys(c.Files)) {
		h.Mounts = append(h.Mounts, mount.Mount{Type: mount.TypeBind, Source: c.Files[target], Target: target, ReadOnly: true})
	}
	return h, nil
}

// volume adds one volume. It is named in the form in which a source that is
// not there is an error, but for the SELinux options, which only the old form
// has; there the source is looked at here.
func volume(h *container.HostConfig, v spec.Volume) error {
	m := mount.Mount{Type: mount.TypeVolume, Source: v.Source, Target: v.Target, ReadOnly: v.ReadOnly}
	if v.Bind {
		m.Type = mount.TypeBind
	}
	relabel := false
	for _, o := range v.Options {
		switch {
		case o == "z" || o == "Z":
			relabel = true
		case o == "nocopy" && !v.Bind:
			m.VolumeOptions = &mount.VolumeOptions{NoCopy: true}
		case slices.Contains(mount.Propagations, mount.Propagation(o)) && v.Bind:
			m.BindOptions = &mount.BindOptions{Propagation: mount.Propagation(o)}
		case o == string(mount.ConsistencyFull), o == string(mount.ConsistencyCached), o == string(mount.ConsistencyDelegated):
			// Of Docker Desktop; nothing on Linux.
		default:
			return fmt.Errorf("volume %s: option %q does not apply", v.Target, o)
		}
	}
	if !relabel {
		h.Mounts = append(h.Mounts, m)
		return nil
	}
	if v.Bind {
		if _, err := os.Stat(v.Source); errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("%w: bind source path does not exist: %s", engine.ErrCannotRun, v.Source)
		}
	}
	options := slices.Clone(v.Options)
	if v.ReadOnly {
		options = append(options, "ro")
	}
	bind := v.Target + ":" + strings.Join(options, ",")
	if v.Source != "" {
		bind = v.Source + ":" + bind
	}
	h.Binds = append(h.Binds, bind)
	return nil
}

func ports(all []spec.Port) (network.PortSet, network.PortMap, error) {
	if len(all) == 0 {
		return nil, nil, nil
	}
	set, bound := network.PortSet{}, network.PortMap{}
	for _, p := range all {
		target, ok := network.PortFrom(p.Target, network.IPProtocol(p.Protocol))
		if !ok {
			return nil, nil, fmt.Errorf("port %d: protocol %q is neither tcp nor udp", p.Target, p.Protocol)
		}
		b := network.PortBinding{}
		if p.Published != 0 {
			b.HostPort = fmt.Sprint(p.Published)
		}
		if p.HostIP != "" {
			ip, err := netip.ParseAddr(p.HostIP)
			if err != nil {
				return nil, nil, fmt.Errorf("port %d: %q is not an IP address", p.Target, p.HostIP)
			}
			b.HostIP = ip
		}
		set[target] = struct{}{}
		bound[target] = append(bound[target], b)
	}
	return set, bound, nil
}
