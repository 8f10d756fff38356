package docker

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math/bits"
	"net"
	"net/netip"
	"os"
	"strings"
)

// subnetBits makes room for 4,000 instances, twice over.
const subnetBits = 20

// private are the ranges to choose from. Docker's own networks come out of the
// last two by default, so that the first is the least crowded.
var private = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"),
	netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.168.0.0/16"),
}

// freeSubnet chooses a subnet that overlaps none of taken and refused, no
// address of an interface and no route of this host. The search begins at a
// place that depends on the name alone, so that the same host chooses the same
// subnet again.
func freeSubnet(name string, taken []netip.Prefix, refused map[netip.Prefix]bool) (netip.Prefix, error) {
	local, err := interfaces()
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("make network %s: %w", name, err)
	}
	f, err := os.Open("/proc/net/route")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return netip.Prefix{}, fmt.Errorf("make network %s: %w", name, err)
	}
	if err == nil {
		defer f.Close()
		r, err := routes(f)
		if err != nil {
			return netip.Prefix{}, fmt.Errorf("make network %s: read routes: %w", name, err)
		}
		local = append(local, r...)
	}
	for p := range refused {
		local = append(local, p)
	}
	s, ok := choose(name, append(local, taken...))
	if !ok {
		return s, noSubnet(name)
	}
	return s, nil
}

// choose is the search itself.
func choose(name string, taken []netip.Prefix) (netip.Prefix, bool) {
	h := fnv.New32a()
	_, _ = io.WriteString(h, name)
	for _, in := range private {
		n := uint32(1) << (subnetBits - in.Bits())
		base := in.Addr().As4()
		first := binary.BigEndian.Uint32(base[:])
		for i := range n {
			at := (h.Sum32() + i) % n
			var a [4]byte
			binary.BigEndian.PutUint32(a[:], first+at<<(32-subnetBits))
			p := netip.PrefixFrom(netip.AddrFrom4(a), subnetBits)
			free := true
			for _, t := range taken {
				if t.Overlaps(p) {
					free = false
					break
				}
			}
			if free {
				return p, true
			}
		}
	}
	return netip.Prefix{}, false
}

func interfaces() ([]netip.Prefix, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("read addresses of this host: %w", err)
	}
	var out []netip.Prefix
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() {
			out = append(out, p.Masked())
		}
	}
	return out, nil
}

// routes reads the kernel's table: destination and mask are hexadecimal in the
// machine's byte order. The default route overlaps everything, and is left out.
func routes(r io.Reader) ([]netip.Prefix, error) {
	var out []netip.Prefix
	sc := bufio.NewScanner(r)
	for first := true; sc.Scan(); first = false {
		f := strings.Fields(sc.Text())
		if first || len(f) < 8 {
			continue
		}
		dest, err := hexAddr(f[1])
		if err != nil {
			return nil, err
		}
		mask, err := hexAddr(f[7])
		if err != nil {
			return nil, err
		}
		ones := bits.OnesCount32(mask)
		if ones == 0 {
			continue
		}
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], dest)
		out = append(out, netip.PrefixFrom(netip.AddrFrom4(a), ones).Masked())
	}
	return out, sc.Err()
}

// hexAddr returns an address of /proc/net/route as a number whose first byte
// is the highest.
func hexAddr(s string) (uint32, error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != 4 {
		return 0, fmt.Errorf("%q is not an address", s)
	}
	// The text is the number in the machine's order; the bytes in memory are
	// the address.
	var mem [4]byte
	binary.NativeEndian.PutUint32(mem[:], binary.BigEndian.Uint32(b))
	return binary.BigEndian.Uint32(mem[:]), nil
}
