package session

import (
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// watchReader calls gone when nobody reads a pipe or socket any more. One who
// only writes now and then, as who follows a log, would learn it too late. stop
// ends it. What is no file has no reader to watch.
func watchReader(w io.Writer, gone func()) (stop func(), err error) {
	f, ok := w.(interface{ Fd() uintptr })
	if !ok {
		return func() {}, nil
	}
	wake, waker, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	var done sync.WaitGroup
	done.Go(func() {
		defer wake.Close()
		for {
			fds := []unix.PollFd{{Fd: int32(f.Fd())}, {Fd: int32(wake.Fd()), Events: unix.POLLIN}}
			_, err := unix.Poll(fds, -1)
			switch {
			case err == unix.EINTR:
				continue
			case err != nil || fds[1].Revents != 0:
				return
			case fds[0].Revents&(unix.POLLERR|unix.POLLHUP|unix.POLLNVAL) != 0:
				gone()
				return
			}
		}
	})
	return func() {
		_ = waker.Close()
		done.Wait()
	}, nil
}
