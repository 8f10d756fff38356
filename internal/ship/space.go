package ship

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"conductor/internal/fault"
)

// spare is how much of a disk is left to others, in bytes. A disk that is full
// takes down more than a deploy.
const spare = 64 << 20

// checkSpace says that a disk has no room for need bytes and what is spare. A
// folder that is not to be seen from here, as that of an engine in a virtual
// machine, is taken to have room.
func checkSpace(dir string, need int64, what string) error {
	var st unix.Statfs_t
	switch err := unix.Statfs(dir, &st); {
	case errors.Is(err, unix.ENOENT):
		return nil
	case err != nil:
		return fault.New(fault.ErrHost, "", "free disk at %s: %w", dir, err)
	}
	if free := int64(st.Bavail) * st.Bsize; free < need+spare {
		return noSpace(dir, fmt.Errorf("%s need %s, and %s are to stay free; %s are free", what, size(need), size(spare), size(free)))
	}
	return nil
}

// tellSpace makes an error out of one whose cause may be that a disk is full.
func tellSpace(err error, dir string) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return noSpace(dir, err)
	}
	return err
}

func noSpace(dir string, err error) error {
	return fault.New(fault.ErrHost, "make room on the disk that holds "+dir, "no room at %s: %w", dir, err)
}

// size is a number of bytes for people.
func size(n int64) string {
	switch {
	case n >= 10e9:
		return fmt.Sprintf("%d GB", n/1e9)
	case n >= 100e6:
		return fmt.Sprintf("%d MB", n/1e6)
	case n >= 1e6:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	case n >= 10e3:
		return fmt.Sprintf("%d kB", n/1e3)
	}
	return fmt.Sprintf("%d bytes", n)
}
