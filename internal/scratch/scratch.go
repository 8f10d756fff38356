// Package scratch makes folders for what a process needs only while it lives,
// and takes away those of processes that were killed.
//
// Whose process lives has the folder's lock: a flock, so that it ends with the
// process, however that ends. Any room may import it; it imports none.
package scratch

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// lockName is the file in each folder that its process has locked.
const lockName = ".in-use"

// Folder is a folder of this process.
type Folder struct {
	Path string // absolute
	lock *os.File
}

// New makes a folder that nobody else may look into, in parent (empty: the
// system's for temporary files). Its name is the prefix and digits. Before that
// it removes folders of the prefix whose processes are gone.
func New(parent, prefix string) (*Folder, error) {
	if parent == "" {
		parent = os.TempDir()
	}
	parent, err := filepath.Abs(parent)
	if err != nil {
		return nil, err
	}
	sweep(parent, prefix)
	for range 10 {
		path, err := os.MkdirTemp(parent, prefix)
		if err != nil {
			return nil, err
		}
		lock, err := os.OpenFile(filepath.Join(path, lockName), os.O_RDONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return nil, errors.Join(err, os.RemoveAll(path))
		}
		if locked(lock) {
			return &Folder{path, lock}, nil
		}
		_ = lock.Close() // another process took it for one that was left, and removes it
		_ = os.RemoveAll(path)
	}
	return nil, fmt.Errorf("make a folder in %s: it cannot be locked", parent)
}

// Close removes the folder. It may be called more than once.
func (f *Folder) Close() error {
	err := os.RemoveAll(f.Path)
	_ = f.lock.Close() // it was only held
	return err
}

// locked takes the lock without waiting, and says whether it is one of a folder
// that is there.
func locked(f *os.File) bool {
	if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		return false
	}
	mine, err := f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Lstat(f.Name())
	return err == nil && os.SameFile(mine, there)
}

// sweep removes what processes have left that were killed. It leaves alone what
// is not this user's, and what has no lock: that was not made here. What it
// cannot remove is for the next one.
func sweep(parent, prefix string) {
	entries, err := os.ReadDir(parent)
	if err != nil {
		return
	}
	for _, e := range entries {
		digits, ok := strings.CutPrefix(e.Name(), prefix)
		if !ok || digits == "" || strings.Trim(digits, "0123456789") != "" || !e.IsDir() {
			continue
		}
		path := filepath.Join(parent, e.Name())
		if info, err := e.Info(); err != nil || info.Mode().Perm() != 0o700 || info.Sys().(*syscall.Stat_t).Uid != uint32(os.Geteuid()) {
			continue
		}
		lock, err := os.OpenFile(filepath.Join(path, lockName), os.O_RDONLY|syscall.O_NOFOLLOW, 0)
		if err != nil {
			continue
		}
		if locked(lock) {
			_ = os.RemoveAll(path)
		}
		_ = lock.Close()
	}
}
