package nginx

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"time"

	"conductor/internal/atomicfile"
	"conductor/internal/fault"
)

// commandTimeout bounds nginx -t and nginx -s reload, which take some 30 ms.
const commandTimeout = 30 * time.Second

// placeholder stands where conductor.conf will be while a first candidate is tested.
const placeholder = "# Conductor writes its routes here.\n"

// errNoNamespace: this process may not have a view of the files of its own.
var errNoNamespace = errors.New("no mount namespace to be had")

// run runs the command and returns what it printed.
func run(ctx context.Context, argv []string) (string, error) {
	if len(argv) == 0 {
		return "", errors.New("the command is empty")
	}
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.WaitDelay = time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return out.String(), err
}

// local tells whether the test command is nginx itself on this host, and not
// something that reaches an nginx elsewhere, as docker exec does.
func (p *Proxy) local() bool {
	return len(p.c.Test) > 0 && filepath.Base(p.c.Test[0]) == "nginx"
}

// test runs the test command, with these flags added, as if conductor.conf had
// this text, and returns what it printed. The file that a restart of nginx
// would read stays as it is: the command runs in a mount namespace of its own,
// in which the candidate lies over the file. Where that is not allowed, the
// candidate is put in place for the length of the test.
func (p *Proxy) test(ctx context.Context, text []byte, flags ...string) (out string, err error) {
	if _, err := os.Stat(p.c.ConfigDir); err != nil {
		return "", fault.New(fault.ErrHost, "set proxy.config_dir to the folder that nginx includes", "look at proxy.config_dir: %w", err)
	}
	_, had, _, err := p.onDisk()
	if err != nil {
		return "", err
	}
	if had == nil {
		if err := atomicfile.Write(p.File(), []byte(placeholder), 0o644); err != nil {
			return "", fault.New(fault.ErrHost, "", "write nginx file: %w", err)
		}
		defer func() {
			if rerr := atomicfile.Remove(p.File()); rerr != nil && err == nil {
				err = fault.New(fault.ErrHost, "", "remove nginx file: %w", rerr)
			}
		}()
	}
	dir := filepath.Join(p.c.StateDir, "proxy")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fault.New(fault.ErrHost, "", "write nginx candidate: %w", err)
	}
	candidate := filepath.Join(dir, "candidate")
	if err := os.WriteFile(candidate, text, 0o600); err != nil {
		return "", fault.New(fault.ErrHost, "", "write nginx candidate: %w", err)
	}
	defer os.Remove(candidate)
	argv := append(slices.Clone(p.c.Test), flags...)
	out, err = runOver(ctx, candidate, p.File(), argv)
	if !errors.Is(err, errNoNamespace) {
		return out, err
	}
	if err := atomicfile.Write(p.File(), text, 0o644); err != nil {
		return "", fault.New(fault.ErrHost, "", "write nginx file: %w", err)
	}
	out, err = run(ctx, argv)
	if had != nil {
		if werr := atomicfile.Write(p.File(), had, 0o644); werr != nil {
			return "", fault.New(fault.ErrHost, "", "restore nginx file: %w", werr)
		}
	}
	return out, err
}

// runOver runs the command where the file source lies over target.
func runOver(ctx context.Context, source, target string, argv []string) (string, error) {
	type result struct {
		out string
		err error
	}
	done := make(chan result, 1)
	go func() {
		// The thread is never given back: it ends with this goroutine, and its
		// view of the files with it.
		runtime.LockOSThread()
		err := syscall.Unshare(syscall.CLONE_NEWNS)
		if err == nil {
			err = syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_SLAVE, "")
		}
		if err == nil {
			err = syscall.Mount(source, target, "", syscall.MS_BIND, "")
		}
		if err != nil {
			done <- result{err: fmt.Errorf("%w: %w", errNoNamespace, err)}
			return
		}
		out, err := run(ctx, argv) // a child has the view of the thread that starts it
		done <- result{out, err}
	}()
	r := <-done
	return r.out, r.err
}
