package cli

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"

	"conductor/internal/converge"
	"conductor/internal/display"
	"conductor/internal/event"
	"conductor/internal/fault"
	"conductor/internal/spec"
)

// defaultConfig is read where neither --config nor $CONDUCTOR_CONFIG name a
// file, and need not be there.
const defaultConfig = "/etc/conductor/conductor.yml"

// config finds and reads conductor.yml. A file that was named and is not there
// is wrong usage: running with the defaults instead would act on another host
// state than the caller means.
func (a *app) config() (spec.Config, error) {
	abs, named, err := a.configPath()
	if err != nil {
		return spec.Config{}, err
	}
	data, err := os.ReadFile(abs)
	switch {
	case errors.Is(err, fs.ErrNotExist) && named == "":
		return spec.DefaultConfig(), nil
	case errors.Is(err, fs.ErrNotExist):
		return spec.Config{}, usageError("check the path, or leave "+named+" away to use "+defaultConfig,
			"%s names %s, which is not there", named, cmp.Or(a.configFile, a.env.Getenv("CONDUCTOR_CONFIG")))
	case err != nil:
		return spec.Config{}, fault.New(fault.ErrHost, "check the file's permissions", "read configuration: %w", err)
	}
	return spec.ParseConfig(abs, data)
}

// configPath is the configuration's absolute path, and by what it was named;
// "": it is where it is looked for by default.
func (a *app) configPath() (path, named string, err error) {
	path, named = a.configFile, "--config"
	if path == "" {
		path, named = a.env.Getenv("CONDUCTOR_CONFIG"), "$CONDUCTOR_CONFIG"
	}
	if path == "" {
		path, named = defaultConfig, ""
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return path, named, fault.New(fault.ErrHost, "give --config an absolute path", "find configuration %s: %w", path, err)
	}
	return abs, named, nil
}

// definitions reads the configuration and all definitions. Mistakes in
// definitions are in the set and no error: they concern their services alone.
func (a *app) definitions() (spec.Config, spec.Set, error) {
	c, err := a.config()
	if err != nil {
		return c, spec.Set{}, err
	}
	set, err := spec.LoadServices(os.DirFS(c.ServicesDir), c.ServicesDir)
	return c, set, err
}

// caller names this program and its configuration as cron has to call them.
func (a *app) caller() (c converge.Caller, err error) {
	if c.Program, err = os.Executable(); err != nil {
		return c, fault.New(fault.ErrHost, "", "find the path of conductor: %w", err)
	}
	// A link stays right when the file that it leads to is replaced by another.
	if link, err := exec.LookPath(a.env.Name); err == nil {
		if link, err = filepath.Abs(link); err == nil && same(link, c.Program) {
			c.Program = link
		}
	}
	config, named, err := a.configPath()
	if named != "" {
		c.Config = config
	}
	return c, err
}

// same tells whether two paths lead to one file.
func same(a, b string) bool {
	x, errX := os.Stat(a)
	y, errY := os.Stat(b)
	return errX == nil && errY == nil && os.SameFile(x, y)
}

// open opens the host, with its events going to emit.
func (a *app) open(ctx context.Context, emit event.Sink) (*Parts, Setup, error) {
	c, set, err := a.definitions()
	if err != nil {
		return nil, Setup{}, err
	}
	s := Setup{Config: c, Definitions: set, Emit: emit, User: a.whoAsks(), Reason: a.why(), Warn: func(err error) {
		a.warn(withHint(err))
	}}
	v := thisVersion()
	s.Version, s.Commit = v.Version, v.Commit
	if s.Caller, err = a.caller(); err != nil {
		return nil, s, err
	}
	p, err := a.env.Open(ctx, s)
	return p, s, err
}

// ask opens the host for a question: whatever the core has to say besides the
// answer goes to people, on stderr.
func (a *app) ask(ctx context.Context) (*Parts, Setup, error) {
	return a.open(ctx, func(e event.Event) {
		if e.Event == event.Warning {
			a.warn(e.Detail)
		}
	})
}

func (p *Parts) close() {
	if p != nil && p.Close != nil {
		_ = p.Close() // all that matters was synced when it was written
	}
}

func withHint(err error) string {
	if h := fault.Hint(err); h != "" {
		return err.Error() + "\n→ " + h
	}
	return err.Error()
}

// document writes v as the one JSON document of an answer.
func (a *app) document(v any) error { return display.WriteDocument(a.answerTo, v) }
