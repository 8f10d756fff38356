package cli

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"

	"conductor/internal/fault"
	"conductor/internal/spec"
)

// defaultFleet is read where --fleet names no file: the fleet belongs to the
// folder that one deploys from.
const defaultFleet = "fleet.yml"

// fleetFlag adds --fleet to the flags of a command, or to the persistent ones
// of a group.
func (a *app) fleetFlag(f *pflag.FlagSet) {
	f.StringVar(&a.fleetFile, "fleet", "", "the fleet's `FILE` (default ./"+defaultFleet+")")
}

// fleetPath is the absolute path of fleet.yml, and whether it was named.
func (a *app) fleetPath() (path string, named bool, err error) {
	path, named = a.fleetFile, a.fleetFile != ""
	if !named {
		path = defaultFleet
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return path, named, fault.New(fault.ErrHost, "give --fleet an absolute path", "find the fleet's file %s: %w", path, err)
	}
	return abs, named, nil
}

// readFleet finds and reads fleet.yml.
func (a *app) readFleet() (spec.Fleet, error) {
	abs, named, err := a.fleetPath()
	if err != nil {
		return spec.Fleet{}, err
	}
	data, err := os.ReadFile(abs)
	switch {
	case errors.Is(err, fs.ErrNotExist) && named:
		return spec.Fleet{}, usageError("check the path, or leave --fleet away to use ./"+defaultFleet,
			"--fleet names %s, which is not there", a.fleetFile)
	case errors.Is(err, fs.ErrNotExist):
		return spec.Fleet{}, usageError("go to the folder that has it, or give --fleet FILE",
			"there is no %s in %s", defaultFleet, filepath.Dir(abs))
	case err != nil:
		return spec.Fleet{}, fault.New(fault.ErrHost, "it has to be a file that you can read", "read the fleet: %w", err)
	}
	return spec.ParseFleet(abs, data)
}
