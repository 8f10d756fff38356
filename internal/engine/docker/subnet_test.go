package docker

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

func TestChoose(t *testing.T) {
	first, ok := choose("conductor", nil)
	if again, _ := choose("conductor", nil); !ok || first != again || first.Bits() != subnetBits || first != first.Masked() {
		t.Fatalf("got %s, then %s", first, again)
	}
	if other, _ := choose("staging", nil); other == first {
		t.Errorf("two names begin at one place, %s", other)
	}
	taken := []netip.Prefix{netip.PrefixFrom(first.Addr(), 29)}
	for range 50 { // smaller, equal and larger ones in the way
		p, ok := choose("conductor", taken)
		if !ok {
			t.Fatal("nothing is free")
		}
		for _, o := range taken {
			if p.Overlaps(o) {
				t.Fatalf("%s overlaps %s", p, o)
			}
		}
		taken = append(taken, p)
	}
	all := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/13")}
	if p, ok := choose("conductor", all); !ok || !netip.MustParsePrefix("172.24.0.0/13").Contains(p.Addr()) {
		t.Errorf("beside %s: %s", all, p)
	}
	if p, ok := choose("conductor", private); ok {
		t.Errorf("beside everything: %s", p)
	}
}

func TestRoutes(t *testing.T) {
	// As a little-endian machine shows it, which all that run this are.
	const table = `Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
eth0	00000000	010200C0	0003	0	0	0	00000000	0	0	0
docker0	000011AC	00000000	0001	0	0	0	0000FFFF	0	0	0
wg0	0000000A	00000000	0001	0	0	0	000000FF	0	0	0
tun0	0564A8C0	00000000	0005	0	0	0	FFFFFFFF	0	0	0
`
	got, err := routes(strings.NewReader(table))
	if want := "[172.17.0.0/16 10.0.0.0/8 192.168.100.5/32]"; err != nil || fmt.Sprint(got) != want {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
	if _, err := routes(strings.NewReader("head\neth0 xx 0 0 0 0 0 0\n")); err == nil {
		t.Error("nonsense is read as a route")
	}
}
