package balancertest

import (
	"errors"
	"testing"

	"conductor/internal/balancer"
)

func TestFake_Conforms(t *testing.T) {
	Suite(t, func(*testing.T) Subject {
		f := NewFake("web1", "web2", "web3")
		return Subject{
			Balancer: f, Hosts: []string{"web1", "web2", "web3"}, Unknown: "web4",
			Reopen: func() balancer.Balancer { return f },
			Sick:   func(host string) { f.SetUp(host, false) },
			Stop:   func() { f.Down(true) },
		}
	})
}

func TestFake_SwapLeavesSomebodyInAtEachInstant(t *testing.T) {
	f := NewFake("web1", "web2")
	set(t, f, balancer.Change{Drain: []string{"web1"}})
	f.Watch(func(state map[string]balancer.Server) {
		if !state["web1"].In && !state["web2"].In {
			t.Error("nobody is in")
		}
	})
	set(t, f, balancer.Change{Admit: []string{"web1"}, Drain: []string{"web2"}})
}

func TestFake_Faults(t *testing.T) {
	f := NewFake("web1", "web2")
	f.Lie(true)
	if err := f.Set(t.Context(), balancer.Change{Drain: []string{"web1"}}); !errors.Is(err, balancer.ErrRefused) {
		t.Errorf("a lie: %v", err)
	}
	f.Lie(false)
	f.Refuse(errors.New("full moon"))
	if err := f.Set(t.Context(), balancer.Change{Drain: []string{"web1"}}); !errors.Is(err, balancer.ErrRefused) {
		t.Errorf("a refusal: %v", err)
	}
	f.Refuse(nil)
	f.Send("web1", 3)
	f.SetSessions("web1", 2)
	set(t, f, balancer.Change{Drain: []string{"web1"}, Away: []string{"web2"}})
	if n := len(f.Changes()); n != 2 {
		t.Errorf("%d changes were begun, want 2", n)
	}
	f.Reload()
	state, err := f.State(t.Context())
	if s := state["web1"]; err != nil || !s.In || s.Requests != 0 || s.Sessions != 2 {
		t.Errorf("after a reload: %+v, %v", s, err)
	}
}
