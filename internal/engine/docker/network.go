package docker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"strings"
	"time"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"conductor/internal/engine"
	"conductor/internal/fault"
)

// bridgeOption names the network's interface on the host.
const bridgeOption = "com.docker.network.bridge.name"

// networkPoll is how often a network that somebody else is making is looked for.
const networkPoll = 20 * time.Millisecond

// The wait for another command that makes the same network is bounded, in
// looks: one takes a tenth of a second to make. A subnet in use has a likelier
// cause, which is told soon.
const (
	networkMisses = 500
	subnetMisses  = 50
)

// Network returns the bridge network of that name, made if it is not there.
//
// Docker lets two networks have one name, and two commands may make it at
// once. But it refuses a second network with one bridge interface, whoever
// asks and whenever: so the interface's name is derived from the network's,
// one of the two fails, and adopts what the other has made.
func (e *Engine) Network(ctx context.Context, name string, subnet netip.Prefix, labels map[string]string) (engine.Network, error) {
	if err := e.agree(ctx); err != nil {
		return engine.Network{}, err
	}
	if subnet.IsValid() {
		subnet = subnet.Masked()
	}
	misses := 0
	refused := map[netip.Prefix]bool{}
	for {
		all, err := e.api.NetworkList(ctx, client.NetworkListOptions{})
		if err != nil {
			return engine.Network{}, e.fail(ctx, err, "network %s", name)
		}
		if found, ok, err := pick(all.Items, name, subnet); ok || err != nil {
			return found, err
		}
		try := subnet
		if !try.IsValid() {
			if try, err = freeSubnet(name, taken(all.Items), refused); err != nil {
				return engine.Network{}, err
			}
		}
		_, err = e.api.NetworkCreate(ctx, name, client.NetworkCreateOptions{
			Driver: "bridge",
			Labels: labels,
			IPAM: &network.IPAM{Config: []network.IPAMConfig{{
				Subnet: try, Gateway: try.Addr().Next(),
			}}},
			Options: map[string]string{bridgeOption: bridgeName(name)},
		})
		if err == nil {
			continue // and see what is there now
		}
		msg := strings.ToLower(err.Error())
		switch {
		case misses < networkMisses && sameNetwork(msg):
			// Another command is making it: it can be seen in a moment.
			misses++
			if err := pause(ctx); err != nil {
				return engine.Network{}, e.fail(ctx, err, "make network %s", name)
			}
		case !subnet.IsValid() && overlaps(msg):
			// Taken by a network that is on its way in or out, perhaps ours.
			refused[try] = true
		case overlaps(msg) && misses < subnetMisses:
			// Perhaps by this very network, which another command is making.
			misses++
			if err := pause(ctx); err != nil {
				return engine.Network{}, e.fail(ctx, err, "make network %s", name)
			}
		case overlaps(msg):
			return engine.Network{}, fault.New(fault.ErrHost, "give the network a subnet that this host does not use yet",
				"make network %s: %w: subnet %s: %s", name, engine.ErrConflict, subnet, tidy(err))
		default:
			return engine.Network{}, e.fail(ctx, err, "make network %s", name)
		}
	}
}

func overlaps(msg string) bool {
	return strings.Contains(msg, "pool overlaps") || strings.Contains(msg, "already being used") ||
		strings.Contains(msg, "already in use") || strings.Contains(msg, "invalid pool request")
}

// sameNetwork says whether a network was refused because of another one with
// its name or its bridge.
func sameNetwork(msg string) bool {
	return strings.Contains(msg, "same bridge name") || strings.Contains(msg, "already exists") ||
		strings.Contains(msg, "already used")
}

func pause(ctx context.Context) error {
	select {
	case <-time.After(networkPoll):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// pick finds the network by its exact name.
func pick(all []network.Summary, name string, subnet netip.Prefix) (n engine.Network, ok bool, err error) {
	for _, s := range all {
		if s.Name != name {
			continue
		}
		if ok {
			return n, false, fault.New(fault.ErrHost, "remove the one that is not in use: docker network rm ID",
				"network %s: %w: there are two of that name, %.12s and %.12s", name, engine.ErrConflict, n.ID, s.ID)
		}
		ok = true
		n = engine.Network{ID: s.ID, Name: s.Name}
		for _, c := range s.IPAM.Config {
			if c.Subnet.Addr().Is4() && !n.Subnet.IsValid() {
				n.Subnet, n.Gateway = c.Subnet.Masked(), c.Gateway
			}
		}
		switch {
		case s.Driver != "bridge":
			return n, false, fault.New(fault.ErrHost, "use another namespace, or remove that network",
				"network %s: %w: it is a %s network, not a bridge", name, engine.ErrConflict, s.Driver)
		case !n.Subnet.IsValid():
			return n, false, fault.New(fault.ErrHost, "use another namespace, or remove that network",
				"network %s: %w: it has no IPv4 subnet", name, engine.ErrConflict)
		case subnet.IsValid() && subnet != n.Subnet:
			return n, false, fault.New(fault.ErrHost, "remove the network once nothing uses it, and it is made anew",
				"network %s: %w: it has subnet %s, not %s", name, engine.ErrConflict, n.Subnet, subnet)
		}
		if !n.Gateway.IsValid() {
			n.Gateway = n.Subnet.Addr().Next()
		}
	}
	return n, ok, nil
}

// bridgeName derives an interface's name, 15 characters, in Docker's own style.
func bridgeName(network string) string {
	sum := sha256.Sum256([]byte("bridge " + network))
	return "br-" + hex.EncodeToString(sum[:])[:12]
}

// taken returns the subnets of the engine's networks.
func taken(all []network.Summary) []netip.Prefix {
	var out []netip.Prefix
	for _, n := range all {
		for _, c := range n.IPAM.Config {
			if c.Subnet.IsValid() {
				out = append(out, c.Subnet.Masked())
			}
		}
	}
	return out
}

// noSubnet is the end of the search.
func noSubnet(name string) error {
	return fault.New(fault.ErrHost, "free one, or set the network's subnet by hand",
		"make network %s: no private /%d is free beside this host's networks and routes", name, subnetBits)
}
