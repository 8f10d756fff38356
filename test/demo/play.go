package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"conductor/test/image"
	"conductor/test/load"
)

const (
	service  = "httpbin"
	replicas = 2 // as the definition says

	// The load: most requests keep their connection, some are POSTs on a new
	// one each.
	gets, posts = 800, 200 // requests/s
	postBytes   = 4 << 10

	// steady is how long the load runs before a command and after it.
	steady = time.Second

	commandTimeout = time.Minute
)

// saysVersion finds the release in an answer of GET /version.
var saysVersion = regexp.MustCompile(`"version":\s*"([^"]*)"`)

// demo is one run.
type demo struct {
	dir, namespace, addr string
	old, new             string
	color, keep          bool
	engine               *image.Engine

	phases []phase
}

// phase is a line of the table at the end.
type phase struct {
	name         string
	took         time.Duration
	sent, failed int64
	gap, p99     time.Duration
}

// play runs the phases, in their order, to the first that fails.
func (d *demo) play(ctx context.Context) error {
	for _, f := range []func(context.Context) error{d.deploy, d.upgrade, d.refuse, d.rollback, d.remember} {
		if err := f(ctx); err != nil {
			return err
		}
	}
	if !d.keep {
		if err := d.remove(ctx); err != nil {
			return err
		}
	}
	d.table()
	return nil
}

func (d *demo) deploy(ctx context.Context) error {
	d.title("Deploy %s with %d replicas. This is all that its team writes:", d.old, replicas)
	definition, err := os.ReadFile(filepath.Join(d.dir, "services", service+".yml"))
	if err != nil {
		return err
	}
	fmt.Println(d.dim(indent(string(definition))))
	took, err := d.conductor(ctx, 0, "service", "upgrade", "--id", service, "--revision", d.old)
	if err != nil {
		return err
	}
	if _, err := d.wantRunning(ctx, d.old); err != nil {
		return err
	}
	d.phases = append(d.phases, phase{name: "deploy " + d.old, took: took})
	return nil
}

func (d *demo) upgrade(ctx context.Context) error {
	d.title("Upgrade it to %s, under %s requests/s.", d.new, thousands(gets+posts))
	return d.change(ctx, "upgrade to "+d.new, d.old, d.new,
		"service", "upgrade", "--id", service, "--revision", d.new)
}

func (d *demo) rollback(ctx context.Context) error {
	d.title("Roll it back to %s, under the same load.", d.old)
	return d.change(ctx, "roll back to "+d.old, d.new, d.old,
		"service", "rollback", "--id", service)
}

// change runs a command that shall bring the service from one release to
// another, under load.
func (d *demo) change(ctx context.Context, name, from, to string, args ...string) error {
	r, err := d.underLoad(ctx, name, 0, args...)
	if err != nil {
		return err
	}
	if _, err := d.wantRunning(ctx, to); err != nil {
		return err
	}
	if err := r.wantRevisions(from, to); err != nil {
		return err
	}
	before, _ := r.get.Revision(from)
	after, _ := r.get.Revision(to)
	if before.Last.After(r.ended) {
		return fmt.Errorf("%s answered %s after the command had ended", from, before.Last.Sub(r.ended))
	}
	if !after.Last.After(r.ended) {
		return fmt.Errorf("%s did not answer after the command had ended", to)
	}
	d.verdict("%s; %s answered until %s, %s from %s on",
		r, from, seconds(before.Last.Sub(r.began)), to, seconds(after.First.Sub(r.began)))
	return nil
}

func (d *demo) refuse(ctx context.Context) error {
	d.title("Try a bad release, under the same load: its image makes it listen on %s, the definition says 8080.", badPort)
	before, err := d.wantRunning(ctx, d.new)
	if err != nil {
		return err
	}
	r, err := d.underLoad(ctx, "refuse "+d.bad(), 5, "service", "upgrade", "--id", service, "--revision", d.bad())
	if err != nil {
		return err
	}
	after, err := d.wantRunning(ctx, d.new)
	if err != nil {
		return err
	}
	if !slices.Equal(before, after) {
		return fmt.Errorf("the bad release was to leave the containers alone: %v before, %v after", before, after)
	}
	if err := r.wantRevisions(d.new); err != nil {
		return err
	}
	d.verdict("%s; exit code 5; the containers of %s are the same as before", r, d.new)
	return nil
}

// remember shows the history, which must have the cause of the refusal.
func (d *demo) remember(ctx context.Context) error {
	d.title("What Conductor remembers of it.")
	cause := "set http.port: " + badPort
	out, err := d.command(ctx, "--output", "json", "service", "history", "--id", service).Output()
	if err != nil {
		return fmt.Errorf("read the history: %w", err)
	}
	if !strings.Contains(string(out), cause) {
		return fmt.Errorf("the history does not say %q:\n%s", cause, out)
	}
	_, err = d.conductor(ctx, 0, "service", "history", "--id", service)
	return err
}

func (d *demo) remove(ctx context.Context) error {
	d.title("Take it away.")
	took, err := d.conductor(ctx, 0, "service", "remove", "--id", service, "--output", "quiet")
	if err != nil {
		return err
	}
	left, err := d.engine.Containers(ctx, "conductor.namespace="+d.namespace)
	if err != nil {
		return err
	}
	if len(left) > 0 {
		return fmt.Errorf("%d containers are left", len(left))
	}
	d.phases = append(d.phases, phase{name: "remove", took: took})
	return nil
}

// result is what became of a command under load.
type result struct {
	get, post    load.Result
	began, ended time.Time // of the command
}

func (r result) sent() int64   { return r.get.Sent + r.post.Sent }
func (r result) failed() int64 { return r.get.Failed + r.post.Failed }
func (r result) String() string {
	return fmt.Sprintf("%s requests, %d failed", thousands(r.sent()), r.failed())
}

// wantRevisions fails unless just these have answered.
func (r result) wantRevisions(want ...string) error {
	var got []string
	for _, v := range r.get.Revisions {
		got = append(got, v.Name)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		return fmt.Errorf("requests were answered by %q; it should be %q", got, want)
	}
	return nil
}

// underLoad runs a command while requests come in, and fails if one of them
// did or if the command's exit code is another.
func (d *demo) underLoad(ctx context.Context, name string, code int, args ...string) (result, error) {
	var r result
	get := load.Start(ctx, load.Config{
		Addr: d.addr, Path: "/version", Rate: gets, RevisionBody: saysVersion, Duration: 2 * commandTimeout,
	})
	post := load.Start(ctx, load.Config{
		Addr: d.addr, Path: "/post", Method: "POST", Body: make([]byte, postBytes),
		Rate: posts, NewConnections: true, Duration: 2 * commandTimeout,
	})
	stop := func() { r.get, r.post = get.Stop(), post.Stop() }
	if err := pause(ctx, steady); err != nil {
		stop()
		return r, err
	}
	r.began = time.Now()
	took, err := d.conductor(ctx, code, args...)
	r.ended = time.Now()
	if err == nil {
		err = pause(ctx, steady)
	}
	stop()
	d.phases = append(d.phases, phase{name, took, r.sent(), r.failed(), r.get.Gap, max(r.get.P99, r.post.P99)})
	switch {
	case err != nil:
		return r, err
	case r.failed() > 0:
		return r, fmt.Errorf("%d of %d requests failed\n%s%s", r.failed(), r.sent(), r.get, r.post)
	case r.get.OK == 0 || r.post.OK == 0:
		return r, errors.New("the load sent nothing")
	}
	return r, nil
}

// conductor shows a command and runs it. Another exit code than the wanted one
// is an error.
func (d *demo) conductor(ctx context.Context, code int, args ...string) (time.Duration, error) {
	fmt.Println(d.bold("$ conductor " + strings.Join(args, " ")))
	limited, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	cmd := d.command(limited, args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout // why it refuses is part of the story
	began := time.Now()
	err := cmd.Run()
	took := time.Since(began)
	if ctx.Err() != nil {
		return took, ctx.Err()
	}
	if cmd.ProcessState == nil {
		return took, err
	}
	if got := cmd.ProcessState.ExitCode(); got != code {
		return took, fmt.Errorf("conductor %s: exit code %d; it should be %d", strings.Join(args, " "), got, code)
	}
	return took, nil
}

// command is a run of conductor that is told to end when ctx is done, and that
// a terminal's Ctrl-C does not reach a second time.
func (d *demo) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(d.dir, "bin", "conductor"), args...)
	cmd.Dir = d.dir
	cmd.Env = append(os.Environ(), "CONDUCTOR_CONFIG="+filepath.Join(d.dir, "conductor.yml"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// pause lets the load run for a while.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
