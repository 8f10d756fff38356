package state

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

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
	var f routesFile
	_, err = readJSON(d.routesPath(), &f, "move the file away, then run conductor converge: it routes what is healthy anew")
	if err != nil {
		return Routes{}, err
	}
	return f.Routes.In(boot), nil
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
