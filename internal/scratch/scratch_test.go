package scratch

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// A process of this test's binary makes a folder, says where, and waits to be
// killed.
func TestMain(m *testing.M) {
	if parent := os.Getenv("SCRATCH_TEST_PARENT"); parent != "" {
		f, err := New(parent, "conductor-")
		if err != nil {
			panic(err)
		}
		os.Stdout.WriteString(f.Path + "\n")
		os.Stdin.Read(make([]byte, 1)) // until the test ends
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// another starts such a process.
func another(t *testing.T, parent string) (folder string, kill func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "SCRATCH_TEST_PARENT="+parent)
	stdin, err := cmd.StdinPipe()
	must(t, err)
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	kill = sync.OnceFunc(func() {
		cmd.Process.Kill()
		cmd.Wait()
		stdin.Close()
	})
	t.Cleanup(kill)
	line, err := bufio.NewReader(stdout).ReadString('\n')
	must(t, err)
	return line[:len(line)-1], kill
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func there(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func TestNew_SweepsWhatKilledProcessesLeft(t *testing.T) {
	parent := t.TempDir()
	lives, _ := another(t, parent)
	left, kill := another(t, parent)
	must(t, os.WriteFile(filepath.Join(left, "layer"), []byte("much"), 0o600))
	kill()
	if !there(left) {
		t.Fatal("a killed process leaves nothing: this shows nothing")
	}
	// Those of others, whatever they are.
	foreign := []string{"conductor-backup", "conductor-7", "conductor-ship-8", "conductor-9"}
	for _, name := range foreign {
		must(t, os.Mkdir(filepath.Join(parent, name), 0o700))
	}
	must(t, os.WriteFile(filepath.Join(parent, "conductor-backup", lockName), nil, 0o600))
	must(t, os.WriteFile(filepath.Join(parent, "conductor-ship-8", lockName), nil, 0o600))
	must(t, os.Symlink(filepath.Join(parent, "conductor-backup", lockName), filepath.Join(parent, "conductor-9", lockName)))
	must(t, os.Symlink(filepath.Join(parent, "conductor-backup"), filepath.Join(parent, "conductor-10")))

	f, err := New(parent, "conductor-")
	must(t, err)
	if there(left) {
		t.Error("the folder of a killed process is left")
	}
	if !there(lives) || !there(f.Path) {
		t.Error("the folder of a process that lives is gone")
	}
	for _, name := range append(foreign, "conductor-10") {
		if !there(filepath.Join(parent, name)) {
			t.Errorf("%s is gone", name)
		}
	}
	must(t, f.Close())
	must(t, f.Close())
	if there(f.Path) {
		t.Error("a closed folder is there")
	}
}

// Many begin and end at once: none loses its folder.
func TestNew_ManyAtOnce(t *testing.T) {
	parent := t.TempDir()
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for range 50 {
				f, err := New(parent, "conductor-")
				if err != nil {
					t.Error(err)
					return
				}
				if err := os.WriteFile(filepath.Join(f.Path, "file"), nil, 0o600); err != nil {
					t.Error(err)
				}
				if err := f.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if left, err := os.ReadDir(parent); err != nil || len(left) != 0 {
		t.Errorf("%v, %v are left", err, left)
	}
}
