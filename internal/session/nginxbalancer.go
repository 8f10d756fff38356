package session

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"conductor/internal/atomicfile"
	"conductor/internal/balancer"
	"conductor/internal/fault"
)

// NginxBalancer answers balancer.FileRequest on the host with the balancer: it
// has nginx run what the file says, and proves it, or restores what was there.
//
// While a change is under way the text before it is kept beside the file, as
// .NAME.before, so that the next request finishes what was cut off: what nginx
// runs is always what the answer says.
type NginxBalancer struct {
	Test, Reload []string // commands: nginx -t, nginx -s reload
	// ProveTimeout is how long nginx may take to run a new configuration; for
	// 2.5 s it tries to have a port that is taken. Default 5 s.
	ProveTimeout time.Duration
}

// Do looks at the file, or makes the change. A change that has begun is
// brought to its end whatever happens to ctx.
//
// Errors: fault.ErrUnreachable where nginx does not run, fault.ErrProxyRefused
// where it does not take the file or does not come to run it,
// fault.ErrDefinition where its configuration does not have the file,
// fault.ErrHost where the file cannot be read or written.
func (n NginxBalancer) Do(ctx context.Context, r balancer.FileRequest) (balancer.FileAnswer, error) {
	c, unlock, err := n.open(ctx, r.File)
	if err != nil {
		return balancer.FileAnswer{}, err
	}
	defer unlock()
	ctx = context.WithoutCancel(ctx)
	if err := c.finish(ctx); err != nil {
		return balancer.FileAnswer{}, err
	}
	text, err := os.ReadFile(c.file)
	if err != nil {
		return balancer.FileAnswer{}, fault.New(fault.ErrHost, "", "read nginx's file: %w", err)
	}
	a := balancer.FileAnswer{Text: string(text)}
	if r.Text != nil && *r.Text != a.Text {
		if a.Stale = balancer.Sum(a.Text) != r.Was; !a.Stale {
			if err := c.replace(ctx, text, []byte(*r.Text)); err != nil {
				return balancer.FileAnswer{}, err
			}
			a.Text = *r.Text
		}
	}
	ws, err := c.workers()
	if err != nil {
		return balancer.FileAnswer{}, err
	}
	a.Finishing = len(ws.finishing)
	return a, nil
}

// nginxChange is one request at one file, whose lock it holds.
type nginxChange struct {
	NginxBalancer
	file   string // without symbolic links
	before string // where the text is kept that a change replaces
	pid    string // nginx's file with the PID of its master
}

func (n NginxBalancer) open(ctx context.Context, file string) (*nginxChange, func(), error) {
	if !filepath.IsAbs(file) {
		return nil, nil, fault.New(fault.ErrDefinition, "write balancer.file as an absolute path", "nginx's file %q is not an absolute path", file)
	}
	if n.ProveTimeout <= 0 {
		n.ProveTimeout = 5 * time.Second
	}
	at, err := filepath.EvalSymlinks(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil, fault.New(fault.ErrDefinition, "write the upstream's lines there, as: server 192.0.2.1:80;", "read nginx's file %s: there is none", file)
	case err != nil:
		return nil, nil, fault.New(fault.ErrHost, "", "read nginx's file: %w", err)
	}
	dir := filepath.Dir(at)
	c := &nginxChange{NginxBalancer: n, file: at, before: filepath.Join(dir, "."+filepath.Base(at)+".before")}
	unlock, err := lockFolder(ctx, dir)
	if err != nil {
		return nil, nil, err
	}
	if err := c.included(ctx); err != nil {
		unlock()
		return nil, nil, err
	}
	return c, unlock, nil
}

// lockFolder keeps two requests apart; it waits for the one before.
func lockFolder(ctx context.Context, dir string) (unlock func(), err error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, fault.New(fault.ErrHost, "", "lock nginx's folder: %w", err)
	}
	for {
		err = syscall.Flock(int(d.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { d.Close() }, nil
		}
		if errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, syscall.EINTR) {
			select {
			case <-ctx.Done():
				err = ctx.Err()
			case <-time.After(20 * time.Millisecond):
				continue
			}
		}
		d.Close()
		return nil, fmt.Errorf("wait for another change of nginx's file in %s: %w", dir, err)
	}
}

// finish brings a change to its end that was cut off: nginx may run the text
// before it, or the one of the file. A file that nginx does not take is taken
// back.
func (c *nginxChange) finish(ctx context.Context) error {
	old, err := os.ReadFile(c.before)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fault.New(fault.ErrHost, "", "read what a change of nginx's file was cut off from: %w", err)
	}
	if err := c.test(ctx); err != nil {
		if err := c.write(old); err != nil {
			return err
		}
	}
	if err := c.reload(ctx); err != nil {
		return fmt.Errorf("finish a change of %s that was cut off: %w", c.file, err)
	}
	return c.forget()
}

// replace has nginx run the new text, or the old one.
func (c *nginxChange) replace(ctx context.Context, old, text []byte) error {
	if err := atomicfile.Write(c.before, old, 0o600); err != nil {
		return fault.New(fault.ErrHost, "", "keep nginx's file as it is: %w", err)
	}
	ws, err := c.workers()
	if err == nil {
		err = c.write(text)
	}
	if err == nil {
		err = c.test(ctx)
	}
	tried := false
	if err == nil {
		tried, err = true, c.reload(ctx)
	}
	if err == nil {
		return c.forget()
	}
	if rerr := c.write(old); rerr != nil {
		return errors.Join(err, rerr) // .before stays, and the next request finishes it
	}
	if tried {
		// A reload that is refused leaves the processes that were there.
		now, werr := c.workers()
		if rerr := c.reload(ctx); rerr != nil && (werr != nil || !ws.runs(now)) {
			return errors.Join(err, fmt.Errorf("what was there before could not be proved: %w", rerr))
		}
	}
	if rerr := c.forget(); rerr != nil {
		return errors.Join(err, rerr)
	}
	return err
}

// write puts the text in the file, which keeps its owner and mode.
func (c *nginxChange) write(text []byte) error {
	info, err := os.Stat(c.file)
	if err != nil {
		return fault.New(fault.ErrHost, "", "write nginx's file: %w", err)
	}
	if err := atomicfile.Write(c.file, text, info.Mode().Perm()); err != nil {
		return fault.New(fault.ErrHost, "", "write nginx's file: %w", err)
	}
	if own, ok := info.Sys().(*syscall.Stat_t); ok && (int(own.Uid) != os.Geteuid() || int(own.Gid) != os.Getegid()) {
		if err := os.Chown(c.file, int(own.Uid), int(own.Gid)); err != nil {
			return fault.New(fault.ErrHost, "", "write nginx's file: %w", err)
		}
	}
	return nil
}

func (c *nginxChange) forget() error {
	if err := atomicfile.Remove(c.before); err != nil {
		return fault.New(fault.ErrHost, "", "remove what nginx's file was before: %w", err)
	}
	return nil
}
