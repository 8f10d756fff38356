package state_test

import (
	"net/netip"
	"testing"

	"conductor/internal/state"
)

var mustPrefix = netip.MustParsePrefix

func TestNextAddress_Subnets(t *testing.T) {
	for _, test := range []struct{ subnet, last, used, want string }{
		{"10.9.0.0/24", "", "", "10.9.0.2"},
		{"10.9.0.0/24", "10.9.0.254", "", "10.9.0.2"},
		{"10.9.0.0/24", "10.9.0.253", "", "10.9.0.254"},
		{"10.9.0.0/24", "10.8.0.7", "", "10.9.0.2"}, // the subnet was another one
		{"10.9.0.77/24", "", "", "10.9.0.2"},        // bits of a host in it
		{"10.9.0.0/16", "10.9.0.255", "", "10.9.1.0"},
		{"10.9.0.0/30", "", "", "10.9.0.2"},
		{"10.9.0.0/30", "10.9.0.2", "", "10.9.0.2"}, // the only one, and free
		{"10.9.0.0/30", "10.9.0.2", "10.9.0.2", ""},
		{"10.9.0.0/31", "", "", ""},
		{"10.9.0.0/32", "", "", ""},
		{"255.255.255.0/24", "255.255.255.254", "", "255.255.255.2"},
		{"fd00::/64", "", "", "fd00::2"},
		{"fd00::/126", "fd00::3", "", "fd00::2"},
		{"fd00::/126", "fd00::2", "", "fd00::3"},
		{"fd00::/128", "", "", ""},
	} {
		used := map[netip.Addr]bool{netip.MustParseAddr("10.0.0.1"): true} // of another network
		if test.used != "" {
			used[netip.MustParseAddr(test.used)] = true
		}
		var last netip.Addr
		if test.last != "" {
			last = netip.MustParseAddr(test.last)
		}
		got, err := state.NextAddress(mustPrefix(test.subnet), last, used)
		if test.want == "" && err == nil || test.want != "" && got.String() != test.want {
			t.Errorf("%+v: got %v, %v", test, got, err)
		}
	}
}
