package session

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"conductor/internal/atomicfile"
	"conductor/internal/fault"
	"conductor/internal/scratch"
	"conductor/internal/spec"
)

// definitions answers with the texts of the definitions of this host, by id.
func (s *Station) definitions(_ context.Context, c Call) error {
	texts, err := readDefinitions(s.ServicesDir)
	if err != nil {
		return err
	}
	return answer(c.Stdout, texts)
}

func readDefinitions(dir string) (map[string]string, error) {
	texts := map[string]string{}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return texts, nil
	}
	if err != nil {
		return nil, fault.New(fault.ErrHost, "check services_dir and its permissions", "read definitions: %w", err)
	}
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), ".yml")
		if !ok || !spec.ValidID(id) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, fault.New(fault.ErrHost, "check services_dir and its permissions", "read definitions: %w", err)
		}
		texts[id] = string(text)
	}
	return texts, nil
}

// writeDefinitions makes the texts the definitions of their services here, all
// or none: they are checked beside those that this host has.
func (s *Station) writeDefinitions(_ context.Context, c Call) error {
	var texts map[string]string
	if err := json.NewDecoder(c.Stdin).Decode(&texts); err != nil {
		return fault.New(fault.ErrUsage, "", "read definitions: %w", err)
	}
	all, err := readDefinitions(s.ServicesDir)
	if err != nil {
		return err
	}
	for id, text := range texts {
		if !spec.ValidID(id) {
			return fault.New(fault.ErrUsage, "", "%q is not a service's id", id)
		}
		all[id] = text
	}
	folder, err := scratch.New("", "conductor-definitions-")
	if err != nil {
		return fault.New(fault.ErrHost, "", "check definitions: %w", err)
	}
	defer func() { _ = folder.Close() }() // it says nothing that is not said elsewhere
	draft := folder.Path
	for id, text := range all {
		if err := os.WriteFile(filepath.Join(draft, id+".yml"), []byte(text), 0o600); err != nil {
			return fault.New(fault.ErrHost, "", "check definitions: %w", err)
		}
	}
	set, err := spec.LoadServices(os.DirFS(draft), s.ServicesDir)
	if err != nil {
		return err
	}
	var errs []error
	for id := range texts {
		if _, err := set.Get(id); err != nil {
			errs = append(errs, err)
		} else if err := set.Conflicts(id); err != nil {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := os.MkdirAll(s.ServicesDir, 0o755); err != nil {
		return fault.New(fault.ErrHost, "check services_dir and its permissions", "write definitions: %w", err)
	}
	for id, text := range texts {
		if err := atomicfile.Write(filepath.Join(s.ServicesDir, id+".yml"), []byte(text), 0o644); err != nil {
			return fault.New(fault.ErrHost, "check services_dir and its permissions", "write the definition of %s: %w", id, err)
		}
	}
	return nil
}
