package state

import (
	"context"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"

	"conductor/internal/atomicfile"
	"conductor/internal/fault"
)

type addressFile struct {
	Version int `json:"version"`
	// Last is the address handed out last, by subnet.
	Last map[netip.Prefix]netip.Addr `json:"last"`
}

// Address hands out the next address of the subnet, round-robin, that used
// does not name: a freed address comes back as late as can be. The first
// address is the gateway's. fault.ErrHost: all are in use.
func (d *Dir) Address(ctx context.Context, subnet netip.Prefix, used map[netip.Addr]bool) (netip.Addr, error) {
	l, err := d.lock(ctx, ".addresses", Holder{Verb: "address"}, waitAll)
	if err != nil {
		return netip.Addr{}, err
	}
	defer l.release()
	path := filepath.Join(d.path, "addresses.json")
	atomicfile.Sweep(path)

	f := addressFile{Version: formatVersion}
	// The cursor only spaces addresses out; used is what must hold. So a file
	// that is lost or torn means to begin at the first address, and no sync is
	// worth its time.
	if b, err := os.ReadFile(path); err == nil && json.Unmarshal(b, &f) != nil {
		f.Last = nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	last := f.Last[subnet.Masked()]
	if own, ok := d.last[subnet.Masked()]; ok {
		last = own
	}
	addr, err := NextAddress(subnet, last, used)
	if err != nil {
		return netip.Addr{}, err
	}
	if f.Last == nil {
		f.Last = map[netip.Prefix]netip.Addr{}
	}
	f.Version, f.Last[subnet.Masked()] = formatVersion, addr
	b, err := json.MarshalIndent(f, "", "  ")
	if err == nil {
		err = replaceFile(path, append(b, '\n'))
	}
	if err == nil {
		delete(d.last, subnet.Masked())
		return addr, nil
	}
	// A disk that is full keeps nothing from being started.
	if d.last == nil {
		d.last = map[netip.Prefix]netip.Addr{}
	}
	d.last[subnet.Masked()] = addr
	return addr, nil
}

// replaceFile is atomicfile.Write without the syncs.
func replaceFile(path string, data []byte) error {
	tmp := path + ".new.tmp"
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		_ = os.Remove(tmp)
		return err
	}
	return os.Rename(tmp, path)
}

// NextAddress returns the first address after last that may be given to an
// instance: not the network's, not the gateway's (the first), not the
// broadcast's, and not in used. A last that is not in the subnet means to
// begin at its start.
func NextAddress(subnet netip.Prefix, last netip.Addr, used map[netip.Addr]bool) (netip.Addr, error) {
	subnet = subnet.Masked()
	gateway := subnet.Addr().Next()
	if !subnet.Contains(last) {
		last = gateway
	}
	// Every address that is passed over is in used, one of the three, or
	// tried twice, so the walk is bounded in subnets of any size.
	a := last
	for range len(used) + 4 {
		a = a.Next()
		if !a.IsValid() || !subnet.Contains(a) || subnet.Addr().Is4() && !subnet.Contains(a.Next()) {
			a = gateway.Next()
			if !subnet.Contains(a) || a.Is4() && !subnet.Contains(a.Next()) {
				break // a subnet without room for any instance
			}
		}
		if !used[a] {
			return a, nil
		}
		if a == last {
			break // once around
		}
	}
	return netip.Addr{}, fault.New(fault.ErrHost, "set engine.subnet in conductor.yml to a larger network, and run conductor prune for what is left of ended instances",
		"find an address: all of %s are in use (%d)", subnet, len(used))
}
