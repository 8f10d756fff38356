package control

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"conductor/internal/fault"
)

// dir is where the sockets of all namespaces are. Its parent is in memory.
const dir = "/run/conductor"

// Path is where the supervisor of a namespace has its socket.
func Path(namespace string) string { return filepath.Join(dir, namespace+".sock") }

// Listen opens the socket, which root alone can use from its first moment on.
// One that a killed process left is replaced. What answers, or is no socket, is
// left alone: that is an error. Closing takes the file away.
func Listen(path string) (net.Listener, error) {
	l, err := listen(path)
	if err != nil {
		hint := "supervision goes on without it; start the supervisor again when it can be had"
		return nil, fault.New(fault.ErrHost, hint, "open the control socket %s: %w", path, err)
	}
	return l, nil
}

func listen(path string) (_ net.Listener, err error) {
	if err := free(path); err != nil {
		return nil, err
	}
	// It comes into being where nobody else can go, and is moved, with its mode,
	// to where it is looked for, over the one that is there.
	nursery := path + ".new"
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	if err := os.RemoveAll(nursery); err != nil {
		return nil, err
	}
	if err := os.Mkdir(nursery, 0o700); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(nursery)) }()
	born := filepath.Join(nursery, "sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: born, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	s := &socket{UnixListener: l, path: path}
	if err := os.Chmod(born, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	if s.file, err = os.Lstat(born); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	if err := os.Rename(born, path); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return s, nil
}

// free sees that the path is nobody's.
func free(path string) error {
	fi, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if fi.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("there is a file that is no socket (%s): remove it if it is nobody's", fi.Mode())
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	switch {
	case err == nil:
		_ = conn.Close()
		return errors.New("another process answers there: is there a second supervisor of this namespace, with another state_dir?")
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		return nil
	}
	return fmt.Errorf("it is not known whether somebody answers there: %w", err)
}

// socket takes its file away when it is closed, and no other.
type socket struct {
	*net.UnixListener
	path string
	file fs.FileInfo
	once sync.Once
}

func (s *socket) Close() error {
	var err error
	s.once.Do(func() {
		if fi, e := os.Lstat(s.path); e == nil && os.SameFile(fi, s.file) {
			err = os.Remove(s.path)
		}
	})
	return errors.Join(err, s.UnixListener.Close())
}

// ListenAt opens the address for metrics, "127.0.0.1:9321" for instance.
func ListenAt(address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fault.New(fault.ErrHost, "give --listen another address, or end who has it (ss -ltnp)", "listen at %s for metrics: %w", address, err)
	}
	return l, nil
}
