package state

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"conductor/internal/atomicfile"
	"conductor/internal/fault"
	"conductor/internal/goal"
)

// formatVersion is the version of the files in JSON. A file of a newer one is
// refused: reading a part of it and writing that back would lose the rest.
const formatVersion = 1

type goalFile struct {
	Version int `json:"version"`
	goal.Goal
}

func (d *Dir) goalPath(service string) string {
	return filepath.Join(d.goalDir(), service+".json")
}

// Goal returns the service's goal; ok is false where there is none. A file
// that cannot be read is fault.ErrHost, never taken for none.
func (d *Dir) Goal(service string) (g goal.Goal, ok bool, err error) {
	if err := checkID(service); err != nil {
		return goal.Goal{}, false, err
	}
	var f goalFile
	ok, err = readJSON(d.goalPath(service), &f,
		"put the file back from a backup; or move it away and upgrade the service: until then its containers are left as they are")
	if err != nil || !ok {
		return goal.Goal{}, false, err
	}
	if f.Service != service {
		return goal.Goal{}, false, fault.New(fault.ErrHost, "give the file the name of its service, or move it away",
			"read goal of %s: %s is the goal of %q", service, d.goalPath(service), f.Service)
	}
	return f.Goal, true, nil
}

// PutGoal keeps the goal. Once it has returned, the goal survives a power cut;
// after an error it is what it was before. The caller holds the service's lock.
func (d *Dir) PutGoal(g goal.Goal) error {
	if err := checkID(g.Service); err != nil {
		return err
	}
	if err := writeJSON(d.goalPath(g.Service), goalFile{formatVersion, g}); err != nil {
		return hostError(d.path, fmt.Errorf("write goal of %s: %w", g.Service, err))
	}
	return nil
}

// DeleteGoal forgets the goal; it is no error where there is none. The caller
// holds the service's lock.
func (d *Dir) DeleteGoal(service string) error {
	if err := checkID(service); err != nil {
		return err
	}
	if err := atomicfile.Remove(d.goalPath(service)); err != nil {
		return hostError(d.path, fmt.Errorf("delete goal of %s: %w", service, err))
	}
	return nil
}

// Goals returns all goals, ordered by service. Where some cannot be read it
// returns the others with the error.
func (d *Dir) Goals() ([]goal.Goal, error) {
	entries, err := os.ReadDir(d.goalDir())
	if err != nil {
		return nil, hostError(d.path, fmt.Errorf("list goals: %w", err))
	}
	var goals []goal.Goal
	var errs []error
	for _, e := range entries {
		id, isGoal := strings.CutSuffix(e.Name(), ".json")
		if !isGoal || checkID(id) != nil {
			continue
		}
		g, ok, err := d.Goal(id)
		if err != nil {
			errs = append(errs, err)
		} else if ok {
			goals = append(goals, g)
		}
	}
	// The order of the file names is another one: "-" comes before ".".
	slices.SortFunc(goals, func(a, b goal.Goal) int { return strings.Compare(a.Service, b.Service) })
	return goals, errors.Join(errs...)
}

func writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.Write(path, append(b, '\n'), 0o600)
}

// readJSON reads a file that writeJSON wrote; ok is false where there is none.
// The hint says what to do with a file that is not valid.
func readJSON(path string, v any, hint string) (ok bool, err error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, hostError(filepath.Dir(path), fmt.Errorf("read state: %w", err))
	}
	err = decodeJSON(path, b, v, hint)
	return err == nil, err
}

func decodeJSON(path string, b []byte, v any, hint string) error {
	var head struct {
		Version *int `json:"version"`
	}
	if len(bytes.TrimSpace(b)) == 0 {
		return fault.New(fault.ErrHost, hint, "read state: %s is empty", path)
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return fault.New(fault.ErrHost, hint, "read state: %s is damaged: %w", path, err)
	}
	switch {
	case head.Version == nil || *head.Version < 1:
		return fault.New(fault.ErrHost, hint, "read state: %s has no version", path)
	case *head.Version > formatVersion:
		return fault.New(fault.ErrHost, "install the newer conductor again, or restore the state folder of this one",
			"read state: %s was written by a newer conductor (version %d, this one knows %d)", path, *head.Version, formatVersion)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fault.New(fault.ErrHost, hint, "read state: %s is damaged: %w", path, err)
	}
	return nil
}
