// Package crond is the host's cron daemon: the crontabs that are installed for
// it, and the clock that it goes by. What is in a crontab, schedule knows.
//
// It is an adapter: cmd alone imports it, and hands it to converge and cli.
package crond

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"conductor/internal/atomicfile"
	"conductor/internal/fault"
)

// Crontabs are the installed crontabs of one namespace, a file for each service
// in the folder that cron reads.
type Crontabs struct {
	Dir       string // /etc/cron.d
	Namespace string
}

// Path is the service's file. Cron passes over names with a dot; two hyphens in
// a row are in no id and no namespace, so no two services share a file.
func (c Crontabs) Path(service string) string {
	name := "conductor-" + service
	if c.Namespace != "conductor" {
		name = "conductor--" + c.Namespace + "--" + service
	}
	return filepath.Join(c.Dir, name)
}

// header begins each file, and tells it from one of somebody else.
func (c Crontabs) header(service string) string {
	return fmt.Sprintf("# Jobs of %s, installed by Conductor (namespace %s).\n# Do not edit: it is written anew. See `conductor cron list`.\n", service, c.Namespace)
}

// Check finds out early whether a crontab could be installed: fault.ErrHost
// says why not.
func (c Crontabs) Check(service string) error {
	if _, err := c.Read(service); err != nil {
		return err
	}
	info, err := os.Stat(c.Dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fault.New(fault.ErrHost, "install cron (apt-get install cron), or set cron_dir in conductor.yml",
			"install the crontab of %s: there is no folder %s", service, c.Dir)
	case err == nil && !info.IsDir():
		return fault.New(fault.ErrHost, "set cron_dir in conductor.yml", "install the crontab of %s: %s is no folder", service, c.Dir)
	}
	return c.fail("install", service, err)
}

// Read returns the crontab that is installed for the service, without the
// header; "" where there is none. A file of somebody else is fault.ErrHost.
func (c Crontabs) Read(service string) (string, error) {
	b, err := os.ReadFile(c.Path(service))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", c.fail("read", service, err)
	}
	header, text := c.header(service), string(b)
	if !strings.HasPrefix(text, firstLine(header)) {
		return "", fault.New(fault.ErrHost, "move it away", "%s is in the place of the crontab of %s, and Conductor did not write it", c.Path(service), service)
	}
	if rest, ours := bytes.CutPrefix(b, []byte(header)); ours {
		return string(rest), nil
	}
	return text, nil // ours, and edited
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line + "\n"
}

// Install writes the service's crontab, whole or not at all. Cron reads it
// within a minute.
func (c Crontabs) Install(service, text string) error {
	if err := c.Check(service); err != nil {
		return err
	}
	atomicfile.Sweep(c.Path(service))
	return c.fail("install", service, c.change(func() error {
		// Cron takes no file that others than root could write.
		return atomicfile.Write(c.Path(service), []byte(c.header(service)+text), 0o644)
	}, c.Path(service)))
}

// change does something to the folder such that cron sees it. Cron compares
// whole seconds, of the folder and of its files: a second change within one
// would be no change to it, and what it read in between would stay.
func (c Crontabs) change(do func() error, files ...string) error {
	at := time.Now()
	if before, err := os.Stat(c.Dir); err == nil && !at.Truncate(time.Second).After(before.ModTime().Truncate(time.Second)) {
		at = before.ModTime().Add(time.Second)
	}
	if err := do(); err != nil {
		return err
	}
	for _, path := range append(files, c.Dir) {
		if err := os.Chtimes(path, at, at); err != nil {
			return err
		}
	}
	return nil
}

// Remove takes the service's crontab away; that there is none is no error.
func (c Crontabs) Remove(service string) error {
	if _, err := c.Read(service); err != nil {
		return err
	}
	if _, err := os.Stat(c.Path(service)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return c.fail("remove", service, c.change(func() error { return atomicfile.Remove(c.Path(service)) }))
}

func (c Crontabs) fail(what, service string, err error) error {
	if err == nil {
		return nil
	}
	return fault.New(fault.ErrHost, "check the disk and the permissions of "+c.Dir+"; cron_dir in conductor.yml names another", "%s the crontab of %s: %w", what, service, err)
}
