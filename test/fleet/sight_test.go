//go:build e2e

package fleet

import (
	"testing"

	"conductor/internal/event"
	"conductor/internal/fleet"
	"conductor/internal/fleet/sessions"
	"conductor/internal/remote"
	remotessh "conductor/internal/remote/ssh"
)

// A host says how its service is with the lock that it gives, and with the
// upgrade that it has done, and so is not asked again: a deploy needs three
// sessions there, and not five.
func TestSession_SaysHowTheHostIs(t *testing.T) {
	f, l := deployed(t, 50)
	transport := remotessh.New(remotessh.Options{Command: []string{"ssh", "-F", f.SSHConfig()}})
	defer transport.Close()
	hosts := &sessions.Hosts{Transport: transport, At: map[string]remote.Host{"web1": {Name: "web1", SSH: "web1"}}, Version: "test", By: "test"}
	held, err := hosts.Hold(t.Context(), "web1", fleet.Question{Service: "shop", Revision: "v2"}, false)
	must(t, err)
	defer held.Release()
	if s := held.Seen; s == nil || s.Live != "v1" || !s.Sound || s.Holder != "test" || s.Image == "" {
		t.Errorf("with its lock web1 says %+v", s)
	}
	seen, err := hosts.Upgrade(t.Context(), "web1", fleet.Upgrade{Service: "shop", Revision: "v2"}, func(event.Event) {})
	must(t, err)
	if seen == nil || seen.Live != "v2" || !seen.Sound {
		t.Errorf("with its upgrade web1 says %+v", seen)
	}
	nothingFailed(t, l)
}
