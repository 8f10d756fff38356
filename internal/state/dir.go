package state

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"

	"conductor/internal/atomicfile"
	"conductor/internal/fault"
)

// Dir is the state folder of one installation. It is safe for concurrent use
// by many goroutines and processes; who changes a goal holds its service's
// lock, who changes the routes holds the proxy's.
type Dir struct {
	// BootFile is where the kernel tells the ID of this boot. Tests set it.
	BootFile string

	path string

	mu   sync.Mutex
	last map[netip.Prefix]netip.Addr // handed out last, where that could not be written

	routes readRoutes // read last: they are looked at often and seldom change
}

// Open makes the folder and what is needed in it, where it is not there yet.
// Its errors are fault.ErrHost.
func Open(dir string) (*Dir, error) {
	d := &Dir{path: dir, BootFile: "/proc/sys/kernel/random/boot_id"}
	for _, p := range []string{dir, d.goalDir(), d.lockDir()} {
		if err := makeDir(p); err != nil {
			return nil, hostError(dir, fmt.Errorf("open state folder: %w", err))
		}
	}
	return d, nil
}

// Path is the folder that was opened.
func (d *Dir) Path() string { return d.path }

// HistoryPath is where the history is kept: OpenHistory(d.HistoryPath(), …).
func (d *Dir) HistoryPath() string { return filepath.Join(d.path, "history.db") }

func (d *Dir) goalDir() string { return filepath.Join(d.path, "goals") }
func (d *Dir) lockDir() string { return filepath.Join(d.path, "locks") }

var serviceID = regexp.MustCompile(`^[a-z0-9]+([_-][a-z0-9]+)*$`)

// checkID keeps what is no service's id from becoming a path.
func checkID(service string) error {
	if !serviceID.MatchString(service) {
		return fault.New(fault.ErrUsage, "ids are lower-case words joined by - or _", "%q is not a service's id", service)
	}
	return nil
}

// makeDir is MkdirAll whose result survives a power cut.
func makeDir(path string) error {
	if fi, err := os.Stat(path); err == nil {
		if !fi.IsDir() {
			return fmt.Errorf("%s is not a folder", path)
		}
		return nil
	}
	parent := filepath.Dir(path)
	if parent != path {
		if err := makeDir(parent); err != nil {
			return err
		}
	}
	// Definitions may have passwords in their environment, and goals keep them.
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return atomicfile.SyncDir(parent)
}

// hostError makes err a fault.ErrHost whose hint says what to do about it.
func hostError(dir string, err error) error {
	hint := "check the disk and the permissions of " + dir
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		hint = "the disk is full: free space (or inodes) on the file system of " + dir + ", then run the same command again"
	case errors.Is(err, syscall.EROFS):
		hint = "mount the file system of " + dir + " writable, or set state_dir in conductor.yml"
	case errors.Is(err, os.ErrPermission):
		hint = "run as root, or as the owner of " + dir + " (state_dir in conductor.yml)"
	case errors.Is(err, syscall.EIO):
		hint = "the disk of " + dir + " has errors: see dmesg"
	}
	return fault.New(fault.ErrHost, hint, "%w", err)
}
