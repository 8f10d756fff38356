// Package command is the balancer adapter for whatever a team's own commands
// reach: a cloud's balancer, an appliance, DNS.
//
// The commands run where the deploy does, without a shell, one host at a time.
// A word that is {host} or {address} is replaced as a whole, and the same is in
// the environment: CONDUCTOR_HOST, CONDUCTOR_ADDRESS, and CONDUCTOR_AWAY=true
// where a person takes the host out. They have to be repeatable, and to end
// with 0 when it is done.
//
// Without a command that tells the state all hosts count as in when a process
// begins, and it remembers what it did itself. So a deploy that was killed may
// leave a host out that the next one takes for in: with a state command the
// next one sees it.
//
// It imports balancer and fault; cmd alone imports it.
package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"conductor/internal/balancer"
	"conductor/internal/fault"
)

// Config is what an adapter is made from. A command is its words.
type Config struct {
	Hosts        []balancer.Host // At: the address, for the commands
	Drain, Admit []string
	// State prints the hosts that are in, one a line by their names in the
	// fleet, and may print those that a person took out as "NAME away". Empty:
	// there is none.
	State   []string
	Timeout time.Duration // of a command; default 1 m
	// ProveTimeout is how long State may take to print what a command did;
	// default 30 s.
	ProveTimeout time.Duration
}

// Balancer is a balancer.Balancer.
type Balancer struct {
	c     Config
	mu    sync.Mutex                 // held while commands run, which change one thing
	known map[string]balancer.Server // without Config.State: what this process did
}

var _ balancer.Balancer = (*Balancer)(nil)

const every = 200 * time.Millisecond // between looks

// outputMax bounds what State may print.
const outputMax = 1 << 20

var errTooLong = errors.New("took longer than it may")

// New returns a balancer that has not run anything yet.
func New(c Config) (*Balancer, error) {
	if len(c.Drain) == 0 || len(c.Admit) == 0 {
		return nil, fault.New(fault.ErrDefinition, "write {kind: command, drain: [WORD, …], admit: [WORD, …]}", "the balancer has no command to drain, or none to admit")
	}
	if c.Timeout <= 0 {
		c.Timeout = time.Minute
	}
	if c.ProveTimeout <= 0 {
		c.ProveTimeout = 30 * time.Second
	}
	return &Balancer{c: c, known: map[string]balancer.Server{}}, nil
}

// State implements balancer.Balancer.
func (b *Balancer) State(ctx context.Context) (map[string]balancer.Server, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.state(ctx)
}

func (b *Balancer) state(ctx context.Context) (map[string]balancer.Server, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("ask the balancer: %w", err)
	}
	state := map[string]balancer.Server{}
	for _, h := range b.c.Hosts {
		s, ok := b.known[h.Name]
		if !ok {
			s = server(len(b.c.State) == 0, false)
		}
		state[h.Name] = s
	}
	if len(b.c.State) == 0 {
		return state, nil
	}
	out, err := b.run(ctx, b.c.State, os.Environ())
	if err != nil {
		return nil, failed(ctx, fault.ErrUnreachable, balancer.ErrUnreachable, err)
	}
	for l := range strings.Lines(out) {
		words := strings.Fields(l)
		if len(words) == 0 {
			continue
		}
		away := len(words) == 2 && words[1] == "away"
		if len(words) > 1 && !away {
			return nil, fault.New(fault.ErrUnreachable, "let it print the names of the hosts that are in, one a line", "ask the balancer: %w: %s printed %q", balancer.ErrUnreachable, b.c.State[0], strings.TrimSpace(l))
		}
		if _, ours := state[words[0]]; ours {
			state[words[0]] = server(!away, away)
		}
	}
	return state, nil
}

func server(in, away bool) balancer.Server {
	return balancer.Server{In: in, Away: away, Up: true, Sessions: -1, Requests: -1}
}

// Set implements balancer.Balancer. Without a state command it is proved by the
// exit statuses alone.
func (b *Balancer) Set(ctx context.Context, c balancer.Change) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.c.State) > 0 {
		return balancer.Loop{State: b.state, Ask: b.ask, Prove: b.c.ProveTimeout, Every: every, Once: true}.Set(ctx, c)
	}
	if err := c.Check(); err != nil {
		return err
	}
	state, err := b.state(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", c, err)
	}
	if _, err := c.Left(state); err != nil {
		return err
	}
	// What counts as in only because nothing is known may be out.
	done := func(s func(balancer.Server) bool) func(string) bool {
		return func(h string) bool { k, ok := b.known[h]; return ok && s(k) }
	}
	left := balancer.Change{
		Admit: slices.DeleteFunc(slices.Clone(c.Admit), done(func(s balancer.Server) bool { return s.In })),
		Drain: slices.DeleteFunc(slices.Clone(c.Drain), done(func(s balancer.Server) bool { return !s.In })),
		Away:  slices.DeleteFunc(slices.Clone(c.Away), done(func(s balancer.Server) bool { return s.Away })),
	}
	if err := b.ask(ctx, left); err != nil {
		return fmt.Errorf("%s: %w", c, err)
	}
	return nil
}

// ask runs the commands, and notes what each has done. After one that failed
// none is run, so that nobody is taken out for hosts that were not put in.
func (b *Balancer) ask(ctx context.Context, c balancer.Change) error {
	for _, s := range []struct {
		hosts   []string
		command []string
		is      balancer.Server
	}{{c.Admit, b.c.Admit, server(true, false)}, {c.Drain, b.c.Drain, server(false, false)}, {c.Away, b.c.Drain, server(false, true)}} {
		for _, name := range s.hosts {
			argv, env := b.words(s.command, name, s.is.Away)
			if _, err := b.run(ctx, argv, env); err != nil {
				return failed(ctx, fault.ErrProxyRefused, balancer.ErrRefused, err)
			}
			if len(b.c.State) == 0 {
				b.known[name] = s.is
			}
		}
	}
	return nil
}

// words puts the host into a command and its environment.
func (b *Balancer) words(command []string, name string, away bool) (argv, env []string) {
	var address string
	for _, h := range b.c.Hosts {
		if h.Name == name {
			address = h.At
		}
	}
	argv = slices.Clone(command)
	for i, word := range argv {
		switch word {
		case "{host}":
			argv[i] = name
		case "{address}":
			argv[i] = address
		}
	}
	env = append(os.Environ(), "CONDUCTOR_HOST="+name, "CONDUCTOR_ADDRESS="+address)
	if away {
		env = append(env, "CONDUCTOR_AWAY=true")
	}
	return argv, env
}

// run runs a command and returns its standard output.
func (b *Balancer) run(ctx context.Context, argv, env []string) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, b.c.Timeout, errTooLong)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	// A group of its own, so that what the command starts ends with it, and a
	// Ctrl-C for the deploy does not end it half-way.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	out, said := &end{max: outputMax}, &end{max: 4 << 10}
	cmd.Env, cmd.Stdout, cmd.Stderr = env, out, said
	err := cmd.Run()
	if err == nil && out.cut {
		err = fmt.Errorf("it printed more than %d bytes", outputMax)
	}
	if err == nil {
		return out.String(), nil
	}
	switch {
	case errors.Is(context.Cause(ctx), errTooLong):
		err = fmt.Errorf("it did not end within %s", b.c.Timeout)
	case ctx.Err() != nil:
		err = ctx.Err()
	}
	text := strings.TrimSpace(said.String())
	if text == "" {
		text = strings.TrimSpace(out.String())
	}
	if lines := strings.Split(text, "\n"); len(lines) > 5 {
		text = strings.Join(lines[len(lines)-5:], "\n")
	}
	if text != "" {
		text = ": " + text
	}
	return "", fmt.Errorf("run %s: %w%s", strings.Join(argv, " "), err, text)
}

// failed is the error of a command, unless who asked has had enough.
func failed(ctx context.Context, class, kind, err error) error {
	if ctx.Err() != nil {
		return err
	}
	hint := "run the command by hand, where the deploy runs"
	if errors.Is(err, exec.ErrNotFound) {
		hint = "install it where the deploy runs, or name it by its whole path"
	}
	return fault.New(class, hint, "%w: %w", kind, err)
}

// end keeps the end of what is written to it.
type end struct {
	text []byte
	max  int
	cut  bool
}

func (e *end) Write(p []byte) (int, error) {
	e.text = append(e.text, p...)
	if over := len(e.text) - e.max; over > 0 {
		e.cut = true
		e.text = append(e.text[:0], e.text[over:]...)
	}
	return len(p), nil
}

func (e *end) String() string { return string(e.text) }
