package ssh

import (
	"testing"
	"testing/synctest"
	"time"
)

// A host may count a session that has just ended: its refusal says nothing then,
// and another try is let through a little later.
func TestPlaces_RefusedAfterAnEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlaces()
		enter := func(lasts bool) func(bool) bool {
			t.Helper()
			leave, err := p.enter(t.Context(), lasts)
			if err != nil {
				t.Fatal(err)
			}
			return leave
		}
		enter(true)
		enter(false)(false)
		tries := 0
		for began := time.Now(); enter(false)(true); tries++ {
			if time.Since(began) > 2*lingering {
				t.Fatal("it tries on and on")
			}
		}
		if most := int(lingering / lingerPause); tries < 2 || tries > most {
			t.Errorf("%d tries, want some, %d at most", tries, most)
		}
		if n := p.most(); n != maxSessions {
			t.Errorf("it takes the host to allow %d sessions", n)
		}
	})
}
