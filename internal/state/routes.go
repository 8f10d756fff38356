package state

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"conductor/internal/atomicfile"
	"conductor/internal/proxy"
)

type routesFile struct {
	Version int `json:"version"`
	Routes
}

func (d *Dir) routesPath() string { return filepath.Join(d.path, "routes.json") }

// Routes returns what was kept last. Where that was in another boot, the
// routes are there and have no targets, and nothing drains: all containers
// have ended since.
func (d *Dir) Routes() (Routes, error) {
	boot, err := d.bootID()
	if err != nil {
		return Routes{}, err
	}
	r, err := d.routes.read(d.routesPath())
	if err != nil {
		return Routes{}, err
	}
	return r.In(boot), nil
}

// readRoutes are routes as they were read last.
type readRoutes struct {
	file atomicfile.Reader

	mu   sync.Mutex
	text []byte // what they were read from; nil: nothing
	Routes
}

// read returns a copy of what the file says.
func (c *readRoutes) read(path string) (Routes, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	text, err := c.file.Read(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Routes{}, nil
	case err != nil:
		return Routes{}, hostError(filepath.Dir(path), fmt.Errorf("read state: %w", err))
	}
	if len(text) == 0 || !bytes.Equal(text, c.text) {
		var f routesFile
		if err := decodeJSON(path, text, &f, "move the file away, then run conductor converge: it routes what is healthy anew"); err != nil {
			return Routes{}, err
		}
		c.text, c.Routes = text, f.Routes
	}
	return c.Routes.clone(), nil
}

func (r Routes) clone() Routes {
	r.Drains, r.Changing, r.Table.Routes = maps.Clone(r.Drains), maps.Clone(r.Changing), slices.Clone(r.Table.Routes)
	for i := range r.Table.Routes {
		t := &r.Table.Routes[i]
		t.Targets, t.HTTP.Hosts = slices.Clone(t.Targets), slices.Clone(t.HTTP.Hosts)
	}
	return r
}

// PutRoutes keeps the routes as those of this boot. Once it has returned they
// survive a power cut; after an error they are what they were before. The
// caller holds the proxy's lock.
func (d *Dir) PutRoutes(r Routes) error {
	boot, err := d.bootID()
	if err != nil {
		return err
	}
	r.BootID = boot
	if err := writeJSON(d.routesPath(), routesFile{formatVersion, r}); err != nil {
		return hostError(d.path, fmt.Errorf("write routes: %w", err))
	}
	return nil
}

// In returns the routes as they are true in the boot of that ID.
func (r Routes) In(boot string) Routes {
	if r.BootID == boot {
		return r
	}
	r.BootID = boot
	r.Drains = nil
	r.Table.Routes = slices.Clone(r.Table.Routes)
	for i := range r.Table.Routes {
		r.Table.Routes[i].Targets = []proxy.Target{}
	}
	return r
}

func (d *Dir) bootID() (string, error) {
	b, err := os.ReadFile(d.BootFile)
	if err != nil {
		return "", hostError("/proc", fmt.Errorf("read the ID of this boot: %w", err))
	}
	return strings.TrimSpace(string(b)), nil
}
