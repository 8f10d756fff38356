//go:build e2e

package e2e

import (
	"testing"
	"time"
)

// Requests in flight finish; streams of this service end at the drain
// deadline and not before; those of another service live on.
func TestStreams_DrainDeadline(t *testing.T) {
	t.Parallel()
	e := New(t)
	e.Images("v1", "v2")
	shop := e.Web("shop", Def{"upgrade": "{drain_timeout: 7s}"})
	blog := e.Web("blog", nil)
	e.Upgrade("shop", "v1").Want(0)
	e.Upgrade("blog", "v1").Want(0)

	ws, sse := openWebSocket(t, shop), openEvents(t, shop)
	otherWS, otherSSE := openWebSocket(t, blog), openEvents(t, blog)
	slow := later(shop, "/slow?ms=5000")
	up := e.Start("service", "upgrade", "--id", "shop", "--revision", "v2")
	unrouted := up.Until("unrouted", 2)

	wantServes(t, shop, "v2")
	ws.Alive(t, "a WebSocket of the old release")
	ws.Echo(t, "still there?")
	sse.Alive(t, "an event stream of the old release")
	if a := <-slow; a.Err != nil || a.Body != "begundone" || a.Revision != "v1" {
		t.Errorf("the request of 5 s in flight: %s", a)
	}
	ws.Alive(t, "a WebSocket of the old release before the deadline")
	sse.Alive(t, "an event stream of the old release before the deadline")

	for what, s := range map[string]*Stream{"the WebSocket": ws, "the event stream": sse} {
		lived := s.Ended(t, what).Sub(unrouted.Time)
		if lived < 7*time.Second-50*time.Millisecond || lived > 11*time.Second {
			t.Errorf("%s ended %s after its instance was un-routed, want the drain timeout of 7s", what, lived)
		}
	}
	r := up.Wait().Want(0)
	if d := r.Find("drained"); d == nil || d.Time.Before(unrouted.Time) {
		t.Errorf("no drained after unrouted: %s", r)
	}
	otherWS.Alive(t, "the other service's WebSocket")
	otherWS.Echo(t, "and you?")
	otherSSE.Alive(t, "the other service's event stream")
}

// A change of routes reloads nginx; it cuts no stream of any service.
func TestStreams_SurviveChangesOfRoutes(t *testing.T) {
	t.Parallel()
	e := New(t)
	e.Images("v1", "v2")
	blog := e.Web("blog", nil)
	e.Upgrade("blog", "v1").Want(0)
	ws, sse := openWebSocket(t, blog), openEvents(t, blog)

	e.Web("shop", nil)
	if r := e.Upgrade("shop", "v1").Want(0); r.Find("reloaded") == nil {
		t.Errorf("a first deploy reloads nginx: %s", r)
	}
	e.Verb("remove", "shop").Want(0)
	ws.Alive(t, "a WebSocket over a reload")
	ws.Echo(t, "hello")
	sse.Alive(t, "an event stream over a reload")

	// Requests in an old worker count as well: the drain waits for them.
	e.Service("blog", flow(Def{
		"image": e.Repo(), "replicas": "2", "environment": "{SERVICE: blog}", "stop_grace_period": "3s",
		"http": "{port: 8080, listen: '" + blog + "'}", "health": "{path: /health}", "upgrade": "{drain_timeout: 2s}",
	}))
	up := e.Start("service", "upgrade", "--id", "blog", "--revision", "v2")
	out := up.Until("unrouted", 2)
	up.Wait().Want(0)
	if lived := ws.Ended(t, "the WebSocket").Sub(out.Time); lived < 2*time.Second-50*time.Millisecond {
		t.Errorf("a WebSocket in an old worker ended %s after un-routing, before the drain timeout of 2s", lived)
	}
	sse.Ended(t, "the event stream")
}

// A body of any size passes, streamed.
func TestStreams_LargeBodies(t *testing.T) {
	t.Parallel()
	e := New(t)
	e.Images("v1")
	addr := e.Web("shop", nil)
	e.Upgrade("shop", "v1").Want(0)
	const size = 32 << 20
	if n, err := echoLarge(addr, size); err != nil || n != size {
		t.Errorf("echo of %d bytes: got %d, %v", size, n, err)
	}
}
