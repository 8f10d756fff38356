package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"conductor/test/bench/container"
	"conductor/test/image"
)

const runLimit = 1.1

// shellRepo is an image with a few commands.
const shellRepo = "ct-bench-images/shell"

// oneOffs measures conductor run against docker run --rm --init of the same
// command, with the same limits and log, on a network of the same kind.
func oneOffs(ctx context.Context, h *host, r *report) error {
	i := image.Image{Binary: "/bin/busybox", Links: map[string]string{"bin/busybox": "../app"}, Labels: map[string]string{container.Label: namespace}}
	for _, c := range []string{"sh", "true", "head"} {
		i.Links["bin/"+c] = "busybox"
	}
	if err := h.engine.Import(ctx, shellRepo+":v1", i); err != nil {
		return err
	}
	text := fmt.Sprintf("kind: job\nimage: %s\nlimits: {memory: 64m, cpus: 1, pids: 64}\n", shellRepo)
	if err := os.WriteFile(filepath.Join(h.dir, "services", "tasks.yml"), []byte(text), 0o644); err != nil {
		return err
	}
	for _, c := range []struct {
		what    string
		command []string
		output  int64
		pairs   int
	}{
		{"`true`", []string{"true"}, 0, 25},
		{"200 MiB of output", []string{"head", "-c", fmt.Sprint(200 << 20), "/dev/zero"}, 200 << 20, 15},
	} {
		if h.quick {
			c.pairs = 3
		}
		if err := oneOff(ctx, h, r, c.what, c.command, c.output, c.pairs); err != nil {
			return fmt.Errorf("%s: %w", c.what, err)
		}
	}
	return nil
}

func oneOff(ctx context.Context, h *host, r *report, what string, command []string, output int64, pairs int) error {
	conductor := func() (time.Duration, error) {
		return printing(h.command(ctx, append([]string{"run", "--id", "tasks", "--revision", "v1"}, command...)...), output)
	}
	docker := func() (time.Duration, error) {
		return printing(exec.CommandContext(ctx, "docker", append([]string{"--host", "unix://" + h.engine.Socket,
			"run", "--rm", "--init", "--pull", "never", "--network", h.network.name, "--label", container.Label + "=" + namespace,
			"--memory", "64m", "--memory-swap", "64m", "--cpus", "1", "--pids-limit", "64",
			"--log-driver", "local", "--log-opt", "max-size=10m", "--log-opt", "max-file=3",
			shellRepo + ":v1"}, command...)...), output)
	}
	var own, plain times
	for n := range pairs + 1 {
		turns := []struct {
			to  *times
			run func() (time.Duration, error)
		}{{&own, conductor}, {&plain, docker}}
		if n%2 == 1 {
			turns[0], turns[1] = turns[1], turns[0]
		}
		for _, t := range turns {
			d, err := t.run()
			if err != nil {
				return err
			}
			if n > 0 { // the first ones make what later ones find
				*t.to = append(*t.to, d)
			}
		}
	}
	q := ratio(own, plain)
	r.add(row{section: "a one-off run, whole command, `conductor run`", what: fmt.Sprintf("%s, median of %d", what, pairs), value: own.String(),
		baseline: "`docker run --rm --init`: " + plain.String(), ratio: fmt.Sprintf("%.2f", q),
		target: target(fmt.Sprintf("≤ %.1f", runLimit), q <= runLimit)})
	return nil
}

// printing times a command that must print so many bytes.
func printing(c *exec.Cmd, bytes int64) (time.Duration, error) {
	var out count
	var errs strings.Builder
	c.Stdout, c.Stderr = &out, &errs
	d, err := timed(c)
	if err == nil && int64(out) != bytes {
		err = fmt.Errorf("%d bytes of output, want %d", out, bytes)
	}
	if err != nil {
		return 0, fmt.Errorf("%s: %w\n%s", strings.Join(c.Args, " "), err, errs.String())
	}
	return d, nil
}

// count counts what is written to it.
type count int64

func (c *count) Write(b []byte) (int, error) {
	*c += count(len(b))
	return len(b), nil
}
