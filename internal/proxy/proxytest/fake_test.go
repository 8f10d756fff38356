package proxytest

import (
	"errors"
	"net/netip"
	"testing"
)

func TestFake_Conforms(t *testing.T) {
	Suite(t, func(t *testing.T) Subject {
		f := NewFake()
		return Subject{
			Proxy: f, Port: 80,
			Addrs: []netip.AddrPort{
				netip.MustParseAddrPort("10.0.0.1:80"), netip.MustParseAddrPort("10.0.0.2:80"), netip.MustParseAddrPort("10.0.0.3:80"),
			},
			Restart: f.Restart,
			Stop:    func() { f.Down(true) },
			Request: f.Request,
			Break: func() func() {
				f.Refuse(errors.New("another file is broken"))
				return func() { f.Refuse(nil) }
			},
		}
	})
}

func TestFake_LiesAreSeenByObserve(t *testing.T) {
	f := NewFake()
	s := Subject{Proxy: f, Port: 80, Addrs: []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:80"), netip.MustParseAddrPort("10.0.0.2:80")}}
	apply(t, s, s.shop(s.target(0)))
	f.Lie(true)
	apply(t, s, s.shop(s.target(1)))
	o, err := f.Observe(t.Context())
	if err != nil || o.Routes || o.Targets["shop"][0] != s.target(0) {
		t.Errorf("observe = %+v, %v; want the target before, and no proof", o, err)
	}
	f.SetInFlight(s.Addrs[0], 2)
	if o, _ := f.Observe(t.Context()); o.InFlight[s.Addrs[0]] != 2 {
		t.Errorf("in flight = %v, want 2", o.InFlight)
	}
}
