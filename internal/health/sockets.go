package health

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// engineDNS is where Docker answers names inside of containers; no application
// listens there.
var engineDNS = netip.MustParseAddr("127.0.0.11")

// sockets are addresses on which something listens.
type sockets []netip.AddrPort

func (s sockets) String() string {
	words := make([]string, len(s))
	for i, a := range s {
		words[i] = a.String()
	}
	return strings.Join(words, " and ")
}

func (s sockets) filter(f func(netip.AddrPort) bool) (some sockets) {
	for _, a := range s {
		if f(a) {
			some = append(some, a)
		}
	}
	return some
}

// at are those of one port.
func (s sockets) at(port uint16) sockets {
	return s.filter(func(a netip.AddrPort) bool { return a.Port() == port })
}

// open are those that can be reached from outside of the container.
func (s sockets) open() sockets {
	return s.filter(func(a netip.AddrPort) bool { return !a.Addr().IsLoopback() })
}

// loopback are those that cannot.
func (s sockets) loopback() sockets {
	return s.filter(func(a netip.AddrPort) bool { return a.Addr().IsLoopback() })
}

// ports are the different ports, in order.
func (s sockets) ports() (ports []uint16) {
	for _, a := range s {
		ports = append(ports, a.Port())
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}

// listeners returns the TCP addresses on which something listens in the
// network namespace of a process, in order. proc is /proc.
func listeners(proc string, pid int) (sockets, error) {
	var all sockets
	var errs []error
	for _, name := range []string{"tcp", "tcp6"} {
		b, err := os.ReadFile(filepath.Join(proc, strconv.Itoa(pid), "net", name))
		if err != nil {
			// A kernel without IPv6 has no tcp6.
			errs = append(errs, err)
			continue
		}
		all = append(all, parseListeners(string(b))...)
	}
	if len(errs) == 2 {
		return nil, errors.Join(errs...)
	}
	slices.SortFunc(all, func(a, b netip.AddrPort) int {
		if a.Port() != b.Port() {
			return int(a.Port()) - int(b.Port())
		}
		return a.Addr().Compare(b.Addr())
	})
	return slices.Compact(all), nil
}

// parseListeners reads /proc/PID/net/tcp and tcp6: the second column is the
// local address, the fourth the state, 0A for a socket that listens.
func parseListeners(table string) []netip.AddrPort {
	var all []netip.AddrPort
	for l := range strings.Lines(table) {
		f := strings.Fields(l)
		if len(f) < 4 || f[3] != "0A" {
			continue
		}
		if a, ok := parseSocket(f[1]); ok && a.Addr() != engineDNS {
			all = append(all, a)
		}
	}
	return all
}

// parseSocket reads "0100007F:1F90". The address is printed as words of 32
// bits of the machine, the port as a number.
func parseSocket(s string) (netip.AddrPort, bool) {
	host, port, ok := strings.Cut(s, ":")
	b, err := hex.DecodeString(host)
	if !ok || err != nil || len(b) != 4 && len(b) != 16 {
		return netip.AddrPort{}, false
	}
	p, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(b); i += 4 {
		binary.NativeEndian.PutUint32(b[i:], binary.BigEndian.Uint32(b[i:]))
	}
	a, ok := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(a.Unmap(), uint16(p)), ok
}
