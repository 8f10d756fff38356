package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"conductor/internal/display"
	"conductor/internal/fault"
	"conductor/internal/spec"
)

func (d *doctor) config(c spec.Config) {
	if c.File == "" {
		d.ok("config", "no %s: the defaults hold", defaultConfig)
		return
	}
	d.ok("config", "%s", c.File)
}

func (d *doctor) definitions(c spec.Config, set spec.Set, err error) {
	if err == nil {
		err = set.Err()
	}
	switch n := len(set.Services); {
	case err != nil:
		d.fail("definitions", "conductor validate", err)
	case n == 0:
		d.warn("definitions", "write "+filepath.Join(c.ServicesDir, "<id>.yml"), "there are none in %s", c.ServicesDir)
	default:
		d.ok("definitions", "%s in %s", plural(n, "valid service"), c.ServicesDir)
	}
}

// stateDir sees whether the state could be written, without writing.
func (d *doctor) stateDir(dir string) {
	there := existing(dir)
	const w, x = 2, 1
	err := syscall.Access(there, w|x)
	switch {
	case errors.Is(err, syscall.EROFS):
		d.fail("state", "mount it writable, or set state_dir", fault.New(fault.ErrHost, "", "%s is on a read-only file system", there))
	case err != nil:
		d.fail("state", "run as root, or set state_dir", fault.New(fault.ErrHost, "", "%s is not writable: %w", there, err))
	case there != dir:
		d.ok("state", "%s is made when it is needed", dir)
	default:
		if info, err := os.Stat(dir); err == nil && !info.IsDir() {
			d.fail("state", "move it away, or set state_dir", fault.New(fault.ErrHost, "", "%s is not a folder", dir))
			return
		}
		d.ok("state", "%s is writable", dir)
	}
}

// existing returns path, or the nearest folder above it that is there.
func existing(path string) string {
	for {
		if _, err := os.Stat(path); err == nil || !errors.Is(err, fs.ErrNotExist) || path == filepath.Dir(path) {
			return path
		}
		path = filepath.Dir(path)
	}
}

// Room on a disk, below which a person should know, and below which an upgrade
// cannot be trusted to end well: an image of a service takes some hundred MiB.
const (
	littleRoom = 2 << 30
	noRoom     = 256 << 20
)

// disk sees how much room is left where path is, or will be.
func (d *doctor) disk(check, path, what string) {
	var s syscall.Statfs_t
	if err := d.statfs(existing(path), &s); err != nil {
		d.warn(check, "", "%s: the room left cannot be told: %s", path, err)
		return
	}
	free := int64(s.Bavail) * s.Bsize
	text := fmt.Sprintf("%s left for %s (%s)", display.Bytes(free), what, path)
	const hint = "conductor prune; docker system df; df -h"
	switch {
	case free < noRoom:
		d.fail(check, hint, fault.New(fault.ErrHost, "", "%s", text))
	case free < littleRoom:
		d.warn(check, hint, "%s", text)
	case s.Files > 0 && s.Ffree < s.Files/100:
		d.warn(check, "df -i", "%d of %d inodes left for %s (%s)", s.Ffree, s.Files, what, path)
	default:
		d.ok(check, "%s", text)
	}
}

// clock sees whether the time can be right: deadlines that survive a restart,
// and the history, are kept by it.
func (d *doctor) clock() {
	built := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) // this program is no older
	if d.now.Before(built) {
		d.fail("clock", "set the clock: timedatectl set-ntp true",
			fault.New(fault.ErrHost, "", "the clock says %s", d.now.Format(time.DateTime)))
		return
	}
	const unsynchronized = 5 // TIME_ERROR of adjtimex(2)
	if state, err := syscall.Adjtimex(&syscall.Timex{}); err == nil && state == unsynchronized {
		d.warn("clock", "timedatectl set-ntp true, or whatever keeps time here",
			"%s; nothing keeps it in time, says the kernel", d.now.Format(time.DateTime))
		return
	}
	d.ok("clock", "%s", d.now.Format(time.DateTime))
}
