package control

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"conductor/internal/fault"
)

// abandoned leaves the file of a socket that nobody listens at, as a killed
// process does.
func abandoned(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func listening(t *testing.T, path string) net.Listener {
	t.Helper()
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func TestListen_RootAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "conductor.sock")
	l := listening(t, path)
	fi, err := os.Lstat(path)
	if err != nil || fi.Mode() != os.ModeSocket|0o600 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
	if fi, err = os.Stat(filepath.Dir(path)); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("its folder: %v, %v", fi.Mode(), err)
	}
	if c, err := net.Dial("unix", path); err != nil {
		t.Error(err)
	} else {
		_ = c.Close()
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestListen_ReplacesWhatAKilledProcessLeft(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	abandoned(t, path)
	// It may have been killed when its successor was in the making.
	if err := os.Mkdir(path+".new", 0o700); err != nil {
		t.Fatal(err)
	}
	abandoned(t, path+".new/sock")
	listening(t, path)
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
}

func TestListen_LeavesAloneWhatIsNotItsOwn(t *testing.T) {
	for name, make := range map[string]struct {
		do   func(t *testing.T, path string)
		want string
	}{
		"a file": {func(t *testing.T, path string) {
			if err := os.WriteFile(path, []byte("mine"), 0o644); err != nil {
				t.Fatal(err)
			}
		}, "no socket"},
		"a folder": {func(t *testing.T, path string) {
			if err := os.Mkdir(path, 0o755); err != nil {
				t.Fatal(err)
			}
		}, "no socket"},
		"a link": {func(t *testing.T, path string) {
			if err := os.Symlink("elsewhere", path); err != nil {
				t.Fatal(err)
			}
		}, "no socket"},
		"a supervisor": {func(t *testing.T, path string) { listening(t, path) }, "another process answers"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "s.sock")
			make.do(t, path)
			before, _ := os.Lstat(path)
			l, err := Listen(path)
			if err == nil {
				_ = l.Close()
			}
			if !errors.Is(err, fault.ErrHost) || !strings.Contains(err.Error(), make.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("%v", err)
			}
			if after, err := os.Lstat(path); err != nil || !os.SameFile(before, after) {
				t.Errorf("it is not there any more: %v", err)
			}
		})
	}
}

// One that was replaced by another's is not taken away with it.
func TestListen_TakesAwayItsOwnAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	first := listening(t, path)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	listening(t, path)
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
}

func TestListenAt_TellsWhatIsTaken(t *testing.T) {
	l, err := ListenAt("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = ListenAt(l.Addr().String())
	if !errors.Is(err, fault.ErrHost) || !strings.Contains(err.Error(), l.Addr().String()) || fault.Hint(err) == "" {
		t.Errorf("%v", err)
	}
}
