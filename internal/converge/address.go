package converge

import (
	"context"
	"fmt"
	"net/netip"

	"conductor/internal/engine"
)

// addresses are those that no instance may be given: of containers of ours, dead or
// alive, of what is routed, and those that were handed out since.
type addresses struct {
	turn turn // of who takes one
	used map[netip.Addr]bool
}

// survey finds out, once a loop, what the instances' network is and which of its
// addresses are used.
func (a action) survey(ctx context.Context) (n engine.Network, used *addresses, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if n, err = a.shared.network.once(ctx, a.begun, func(ctx context.Context) (engine.Network, error) {
		return a.Engine.Network(ctx, a.Namespace, a.Subnet, a.mine("", ""))
	}); err != nil {
		return n, nil, fmt.Errorf("network %s: %w", a.Namespace, err)
	}
	used, err = a.shared.used.once(ctx, a.begun, func(ctx context.Context) (*addresses, error) {
		return a.glances.usedAddresses(ctx, a.Host)
	})
	return n, used, err
}

// address takes the next address on the instances' network that is not used.
func (a action) address(ctx context.Context) (network string, addr netip.Addr, err error) {
	n, all, err := a.survey(ctx)
	if err != nil {
		return "", addr, err
	}
	if err := all.turn.take(ctx); err != nil {
		return "", addr, err
	}
	defer all.turn.leave()
	all.used[n.Gateway] = true
	addr, err = a.Store.Address(ctx, n.Subnet, all.used)
	if err == nil {
		all.used[addr] = true
	}
	return n.Name, addr, err
}

func (h *Host) usedAddresses(ctx context.Context) (*addresses, error) {
	used := map[netip.Addr]bool{}
	list, err := h.Engine.List(ctx, h.mine("", ""))
	if err != nil {
		return nil, err
	}
	for _, c := range list {
		used[c.Address] = true
	}
	routes, err := h.Store.Routes()
	if err != nil {
		return nil, err
	}
	for _, r := range routes.Table.Routes {
		for _, t := range r.Targets {
			used[t.Addr.Addr()] = true
		}
	}
	return &addresses{turn: newTurn(), used: used}, nil
}
