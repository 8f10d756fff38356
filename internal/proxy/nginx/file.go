package nginx

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// writeFile replaces the file at once, durably. The name of the temporary
// file ends so that no include of *.conf takes it in.
func writeFile(name string, text []byte, mode os.FileMode) (err error) {
	dir := filepath.Dir(name)
	f, err := os.CreateTemp(dir, "."+filepath.Base(name)+".*.tmp")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(text); err != nil {
		return err
	}
	if err = f.Chmod(mode); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), name); err != nil {
		return err
	}
	return syncDir(dir)
}

// removeFile removes the file durably; that it is not there is no error.
func removeFile(name string) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return syncDir(filepath.Dir(name))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// sweep removes temporary files that a killed process left, by their names.
func sweep(dir string) {
	old, err := filepath.Glob(filepath.Join(dir, ".conductor.conf.*.tmp"))
	if err != nil {
		return
	}
	for _, name := range old {
		os.Remove(name)
	}
}
