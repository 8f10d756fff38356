package main

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"conductor/test/bench/container"
)

// engineFloors measures what one container costs at this engine, so that the
// other figures can be read on another machine.
func engineFloors(ctx context.Context, h *host, r *report) error {
	n := 20
	if h.quick {
		n = 3
	}
	id, err := container.ImageID(ctx, h.engine, repo+":v1")
	if err != nil {
		return err
	}
	var create, start, answer, all, stop, remove times
	for i := range n {
		s := container.Spec{Name: fmt.Sprintf("%s.engine-%d", namespace, i), Image: id, Namespace: namespace,
			Network: h.network.name, Addr: netip.AddrPortFrom(h.addr(100+i), 8080)}
		began := time.Now()
		lap := func(t *times) {
			*t = append(*t, time.Since(began))
			began = time.Now()
		}
		c, err := container.Create(ctx, h.engine, s)
		if err != nil {
			return err
		}
		lap(&create)
		if err := container.Start(ctx, h.engine, c); err != nil {
			return err
		}
		lap(&start)
		if err := container.Answer(ctx, s.Addr); err != nil {
			return err
		}
		lap(&answer)
		all = append(all, create[i]+start[i]+answer[i])
		if err := container.Stop(ctx, h.engine, c); err != nil {
			return err
		}
		lap(&stop)
		if err := container.Remove(ctx, h.engine, c); err != nil {
			return err
		}
		lap(&remove)
	}
	const section = "the engine alone, one container at a time"
	r.add(
		row{section: section, what: "create → first answer", value: all.String(),
			baseline: fmt.Sprintf("create %s, start %s, answer %s", ms(create.median()), ms(start.median()), ms(answer.median()))},
		row{section: section, what: "stop, graceful application", value: stop.String()},
		row{section: section, what: "remove", value: remove.String()},
	)
	return nil
}
