package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"time"
)

const versionLimit = 20 * time.Millisecond

// startUp measures conductor version, from fork to exit.
func startUp(ctx context.Context, h *host, r *report) error {
	var own, nothing times
	for range 20 {
		d, err := timed(exec.CommandContext(ctx, h.conductor, "version"))
		if err != nil {
			return err
		}
		own = append(own, d)
		if d, err = timed(exec.CommandContext(ctx, "true")); err != nil {
			return err
		}
		nothing = append(nothing, d)
	}
	r.add(row{section: "start-up", what: "`conductor version`, median of 20", value: own.String(),
		baseline: "`true`: " + ms(nothing.median()), target: target("< 20 ms", own.median() < versionLimit)})
	size := ""
	for _, f := range []struct{ name, path string }{{"", h.conductor}, {" without symbols", h.stripped}} {
		if f.path == "" {
			continue
		}
		st, err := os.Stat(f.path)
		if err != nil {
			return err
		}
		if size != "" {
			size += ", "
		}
		size += fmt.Sprintf("%.1f MB%s", float64(st.Size())/1e6, f.name)
	}
	r.add(row{section: "start-up", what: "the binary", value: size})
	return nil
}

func timed(c *exec.Cmd) (time.Duration, error) {
	began := time.Now()
	err := c.Run()
	return time.Since(began), err
}
