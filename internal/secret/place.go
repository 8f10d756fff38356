package secret

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	"conductor/internal/fault"
)

// mountDir is where the container finds its secrets.
const mountDir = "/run/secrets/"

var fileName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`)

// Place writes the files of secrets for one instance where only root can list
// them, and returns path in the container → path on the host. Placing again
// replaces only what is different: a running container keeps its files. The
// files may be gone after a boot, so they are placed before every start.
func (r *Reader) Place(instance string, files map[string][]byte) (map[string]string, error) {
	if len(files) == 0 {
		return map[string]string{}, nil
	}
	dir, err := r.dir(instance)
	if err != nil {
		return nil, err
	}
	for name := range files {
		if !fileName.MatchString(name) {
			return nil, fault.New(fault.ErrDefinition, "use letters, digits, _ . and -", "place secrets of %s: %q cannot be a file's name", instance, name)
		}
	}
	mounts, err := place(r.runDir, dir, files)
	if err != nil {
		return nil, hostError(r.runDir, fmt.Errorf("place secrets of %s: %w", instance, err))
	}
	return mounts, nil
}

func place(runDir, dir string, files map[string][]byte) (map[string]string, error) {
	if err := os.MkdirAll(runDir, 0o700); err != nil {
		return nil, err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	old, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range old {
		if _, ok := files[e.Name()]; !ok {
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return nil, err
			}
		}
	}
	mounts := map[string]string{}
	for name, content := range files {
		path := filepath.Join(dir, name)
		mounts[mountDir+name] = path
		if b, err := os.ReadFile(path); err == nil && bytes.Equal(b, content) {
			continue
		}
		if err := write(path, content); err != nil {
			return nil, err
		}
	}
	return mounts, syncDir(dir)
}

// write puts the file there whole or not at all. Any user in the container may
// read it; on the host the folder is in the way.
func write(path string, content []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".tmp-*")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Chmod(0o444), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Clear removes what Place wrote; it is no error where there is nothing.
func (r *Reader) Clear(instance string) error {
	dir, err := r.dir(instance)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return hostError(r.runDir, fmt.Errorf("remove secrets of %s: %w", instance, err))
	}
	return nil
}

// Sweep removes what Place wrote for the instances whose names begin with
// prefix, but for those that keep names: a process that died between writing
// and creating left them.
func (r *Reader) Sweep(prefix string, keep func(instance string) bool) error {
	entries, err := os.ReadDir(r.runDir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return hostError(r.runDir, fmt.Errorf("list secrets: %w", err))
	}
	var errs []error
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) && !keep(e.Name()) {
			errs = append(errs, r.Clear(e.Name()))
		}
	}
	return errors.Join(errs...)
}

// dir keeps what is no instance's name from becoming a path.
func (r *Reader) dir(instance string) (string, error) {
	if !fileName.MatchString(instance) {
		return "", fault.New(fault.ErrUsage, "", "%q is not an instance's name", instance)
	}
	return filepath.Join(r.runDir, instance), nil
}

func hostError(dir string, err error) error {
	hint := "check the disk and the permissions of " + dir
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		hint = "free space on the file system of " + dir
	case errors.Is(err, os.ErrPermission), errors.Is(err, syscall.EROFS):
		hint = "run as root; " + dir + " has to be writable"
	}
	return fault.New(fault.ErrHost, hint, "%w", err)
}
