package cli

import (
	"fmt"
	"testing"
	"time"

	"conductor/internal/converge"
	"conductor/internal/event"
	"conductor/internal/spec"
)

func TestSummary_OneLineAService(t *testing.T) {
	for _, tt := range []struct {
		o             converge.Outcome
		healthy, gone int
		want          string
	}{
		{converge.Outcome{Verb: "upgrade", From: "v1", To: "v2", Changed: true}, 2, 2, "shop: v1 → v2, 2 instances, 1.2 s"},
		{converge.Outcome{Verb: "upgrade", To: "v2", Changed: true}, 1, 0, "shop: v2, 1 instance, 1.2 s"},
		{converge.Outcome{Verb: "upgrade", From: "v2", To: "v2", Changed: true}, 2, 2, "shop: v2 again, 2 instances, 1.2 s"},
		{converge.Outcome{Verb: "upgrade", From: "v2", To: "v2"}, 0, 0, "shop: v2, nothing to do"},
		{converge.Outcome{Verb: "upgrade", From: "v1", To: "v2", Changed: true, Note: "3.1 s down"}, 1, 1, "shop: v1 → v2, 1 instance, 3.1 s down, 1.2 s"},
		{converge.Outcome{Verb: "rollback", From: "v2", To: "v1", Changed: true}, 2, 2, "shop: v2 → v1, 2 instances, 1.2 s"},
		{converge.Outcome{Verb: "stop", From: "v2", To: "v2", Changed: true}, 0, 0, "shop: v2 stopped, 1.2 s"},
		{converge.Outcome{Verb: "remove", From: "v2", Changed: true}, 0, 2, "shop: removed, 1.2 s"},
		{converge.Outcome{Verb: "scale", From: "v2", To: "v2", Changed: true}, 1, 0, "shop: v2 scaled, 1 instance new, 1.2 s"},
		{converge.Outcome{Verb: "scale", From: "v2", To: "v2", Changed: true}, 0, 3, "shop: v2 scaled, 3 instances gone, 1.2 s"},
		{converge.Outcome{Verb: "converge", From: "v2", To: "v2", Changed: true}, 1, 1, "shop: v2 converged, 1 instance new, 1 gone, 1.2 s"},
		{converge.Outcome{Verb: "converge", From: "v2", To: "v2"}, 0, 0, "shop: v2, nothing to do"},
		{converge.Outcome{Verb: "prune", Note: "no image to let go"}, 0, 0, "shop: no image to let go"},
	} {
		var c tally
		for i := range tt.healthy {
			for _, n := range []event.Name{event.Created, event.Healthy, event.Healthy} { // a sick one can recover
				c.count(event.Event{Event: n, Service: "shop", Instance: fmt.Sprintf("new-%d", i)})
			}
		}
		for i := range tt.gone { // one that was there is asked for its health, too
			for _, n := range []event.Name{event.Healthy, event.Removed} {
				c.count(event.Event{Event: n, Service: "shop", Instance: fmt.Sprintf("old-%d", i)})
			}
		}
		c.count(event.Event{Event: event.Healthy, Service: "blog", Instance: "z"})
		tt.o.Service, tt.o.Took = "shop", spec.Duration(1200*time.Millisecond)
		if got := c.summary(tt.o); got != tt.want {
			t.Errorf("got  %s\nwant %s", got, tt.want)
		}
	}
}
