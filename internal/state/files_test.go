package state_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"conductor/internal/fault"
	"conductor/internal/state"
	"conductor/internal/state/statetest"
)

func TestDir_KillNeverTearsAFile(t *testing.T) {
	path := t.TempDir()
	d := open(t, path)
	for range 15 {
		cmd, line, _ := start(t, "put", path)
		if line != "ready\n" {
			t.Fatal(line)
		}
		time.Sleep(time.Duration(rand.IntN(15_000)) * time.Microsecond) // the instant of the kill is what varies
		_ = cmd.Process.Kill()
		_ = cmd.Wait()

		g, ok, err := d.Goal("shop")
		if err != nil || !ok || g.Epoch < 1 {
			t.Fatalf("after a kill: epoch %d, ok %v, err %v", g.Epoch, ok, err)
		}
		if _, err := d.Routes(); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Key(); err != nil {
			t.Fatal(err)
		}
	}
	// The next who takes the locks sweeps what the killed ones left.
	leave(t, filepath.Join(path, "goals", ".shop.json.123.tmp"))
	leave(t, filepath.Join(path, ".routes.json.123.tmp"))
	release, err := d.Lock(t.Context(), "shop", state.Holder{Verb: "stop"})
	must(t, err)
	release()
	release, err = d.LockProxy(t.Context())
	must(t, err)
	release()
	err = filepath.WalkDir(path, func(p string, _ os.DirEntry, err error) error {
		if strings.HasSuffix(p, ".tmp") {
			t.Errorf("left over: %s", p)
		}
		return err
	})
	must(t, err)
}

func TestDir_SweepsOnlyItsOwnService(t *testing.T) {
	path := t.TempDir()
	d := open(t, path)
	other := filepath.Join(path, "goals", ".shop-2.json.1.tmp")
	leave(t, other)
	release, err := d.Lock(t.Context(), "shop", state.Holder{Verb: "stop"})
	must(t, err)
	release()
	if _, err := os.Stat(other); err != nil {
		t.Error("the file of another service, which may be being written, is gone")
	}
}

func TestDir_LockDiesWithProcessNotWithItsChildren(t *testing.T) {
	path := t.TempDir()
	d := open(t, path)
	cmd, line, _ := start(t, "lock", path)
	var child int
	if _, err := fmt.Sscanf(line, "ready %d", &child); err != nil {
		t.Fatal(line)
	}
	t.Cleanup(func() { _ = syscall.Kill(child, syscall.SIGKILL) })

	_, err := d.Lock(t.Context(), "shop", state.Holder{Verb: "stop"})
	if want := fmt.Sprintf("(PID %d)", cmd.Process.Pid); !errors.Is(err, fault.ErrLocked) || !strings.Contains(err.Error(), want) {
		t.Fatalf("got %v, want fault.ErrLocked with %s", err, want)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if err := syscall.Kill(child, 0); err != nil {
		t.Fatalf("the child was to live on: %v", err)
	}
	release, err := d.Lock(t.Context(), "shop", state.Holder{Verb: "stop"})
	must(t, err)
	// What the dead holder signed is not taken for the holder's word.
	_, err = d.Lock(t.Context(), "shop", state.Holder{Verb: "stop"})
	if !strings.Contains(err.Error(), "stop of shop") {
		t.Errorf("got %v", err)
	}
	release()
}

func TestDir_WaitingNamesTheSupervisor(t *testing.T) {
	d := open(t, t.TempDir())
	release, err := d.Lock(t.Context(), "shop", state.Holder{Verb: "supervise", Supervisor: true})
	must(t, err)
	defer release()
	ctx, cancel := context.WithTimeoutCause(t.Context(), 20*time.Millisecond, fault.ErrTimeout)
	defer cancel()
	_, err = d.Lock(ctx, "shop", state.Holder{Verb: "stop"})
	if !errors.Is(err, fault.ErrTimeout) || !strings.Contains(err.Error(), "supervise of shop has held it since") {
		t.Errorf("got %v", err)
	}
}

func TestDir_LockWithoutSignature(t *testing.T) {
	path := t.TempDir()
	d := open(t, path)
	release, err := d.Lock(t.Context(), "shop", state.Holder{Verb: "stop"})
	must(t, err)
	defer release()
	for _, content := range []string{"", "{", `{"pid":-1}`} {
		must(t, os.WriteFile(filepath.Join(path, "locks", "shop.lock"), []byte(content), 0o600))
		if _, err := d.Lock(t.Context(), "shop", state.Holder{Verb: "stop"}); !errors.Is(err, fault.ErrLocked) {
			t.Errorf("%q: got %v, want fault.ErrLocked", content, err)
		}
	}
}

func TestDir_RefusesDamagedFiles(t *testing.T) {
	for name, test := range map[string]struct{ content, want string }{
		"empty":         {"", "is empty"},
		"zeros":         {string(make([]byte, 100)), "damaged"},
		"torn":          {`{"version": 1, "service": "sh`, "damaged"},
		"tail":          {`{"version": 1, "service": "shop"}}`, "damaged"},
		"wrong type":    {`{"version": 1, "service": 5}`, "damaged"},
		"not JSON":      {"hello", "damaged"},
		"no version":    {`{"service": "shop"}`, "no version"},
		"newer":         {`{"version": 2, "service": "shop", "running": "perhaps"}`, "newer conductor"},
		"other service": {`{"version": 1, "service": "other"}`, `is the goal of "other"`},
	} {
		t.Run(name, func(t *testing.T) {
			path := t.TempDir()
			d := open(t, path)
			must(t, d.PutGoal(statetest.Goal("fine")))
			file := filepath.Join(path, "goals", "shop.json")
			must(t, os.WriteFile(file, []byte(test.content), 0o600))
			_, ok, err := d.Goal("shop")
			if ok || !errors.Is(err, fault.ErrHost) || !strings.Contains(err.Error(), test.want) ||
				!strings.Contains(err.Error(), file) || fault.Hint(err) == "" {
				t.Errorf("got %v, %v (hint %q), want fault.ErrHost with %q and %s", ok, err, fault.Hint(err), test.want, file)
			}
			goals, err := d.Goals()
			if len(goals) != 1 || goals[0].Service != "fine" || !errors.Is(err, fault.ErrHost) {
				t.Errorf("Goals: %d, %v, want the one that is fine, and the error", len(goals), err)
			}
			if name == "other service" {
				return
			}
			must(t, os.WriteFile(filepath.Join(path, "routes.json"), []byte(strings.ReplaceAll(test.content, "service", "boot_id")), 0o600))
			if _, err := d.Routes(); !errors.Is(err, fault.ErrHost) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Routes: %v, want fault.ErrHost with %q", err, test.want)
			}
		})
	}
}

func TestDir_IgnoresOtherFiles(t *testing.T) {
	path := t.TempDir()
	d := open(t, path)
	for _, n := range []string{".shop.json.1.tmp", "README", ".hidden.json", "shop.json~", "Shop.json"} {
		leave(t, filepath.Join(path, "goals", n))
	}
	if goals, err := d.Goals(); len(goals) != 0 || err != nil {
		t.Errorf("got %v, %v", goals, err)
	}
}

func TestDir_RefusesPathsForIDs(t *testing.T) {
	d := open(t, t.TempDir())
	for _, id := range []string{"", ".", "..", "../x", "a/b", "a.b", ".proxy", "a\x00", "A"} {
		if _, _, err := d.Goal(id); err == nil {
			t.Errorf("Goal(%q) worked", id)
		}
		if _, err := d.Lock(t.Context(), id, state.Holder{}); err == nil {
			t.Errorf("Lock(%q) worked", id)
		}
		if err := d.DeleteGoal(id); err == nil {
			t.Errorf("DeleteGoal(%q) worked", id)
		}
	}
}

func TestDir_AnotherBootEmptiesTargets(t *testing.T) {
	d := open(t, t.TempDir())
	d.BootFile = filepath.Join(t.TempDir(), "boot_id")
	must(t, os.WriteFile(d.BootFile, []byte("one\n"), 0o600))
	r := state.Routes{Drains: map[string]time.Time{"a": time.Now()}}
	must(t, d.PutRoutes(r))
	r, err := d.Routes()
	must(t, err)
	if r.BootID != "one" || len(r.Drains) != 1 {
		t.Fatalf("in the same boot: %+v", r)
	}
	must(t, os.WriteFile(d.BootFile, []byte("two\n"), 0o600))
	r, err = d.Routes()
	must(t, err)
	if r.BootID != "two" || len(r.Drains) != 0 {
		t.Errorf("in another boot: %+v", r)
	}
}

func TestDir_FilesAreForTheirOwner(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "state")
	d := open(t, path)
	must(t, d.PutGoal(statetest.Goal("shop")))
	must(t, d.PutRoutes(state.Routes{}))
	_, err := d.Key()
	must(t, err)
	for name, want := range map[string]os.FileMode{
		"": 0o700, "goals": 0o700, "goals/shop.json": 0o600, "routes.json": 0o600, "key": 0o600,
	} {
		fi, err := os.Stat(filepath.Join(path, name))
		must(t, err)
		if fi.Mode().Perm() != want {
			t.Errorf("%s has mode %v, want %v", name, fi.Mode().Perm(), want)
		}
	}
	b, err := os.ReadFile(filepath.Join(path, "goals/shop.json"))
	must(t, err)
	if !bytes.Contains(b, []byte("\n  \"version\": 1,\n")) {
		t.Errorf("not for people to read:\n%s", b)
	}
}

func TestOpen_TellsWhatIsInTheWay(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	leave(t, file)
	for _, path := range []string{file, filepath.Join(file, "state")} {
		if _, err := state.Open(path); !errors.Is(err, fault.ErrHost) || fault.Hint(err) == "" {
			t.Errorf("Open(%s): %v, want fault.ErrHost with a hint", path, err)
		}
	}
}

func TestDir_OneKeyForAll(t *testing.T) {
	path := t.TempDir()
	open(t, path)
	keys := map[string]bool{}
	lines := make(chan string)
	for range 4 {
		go func() {
			_, line, _ := start(t, "key", path)
			lines <- line
		}()
	}
	for range 4 {
		keys[<-lines] = true
	}
	if len(keys) != 1 {
		t.Errorf("processes have different keys: %v", keys)
	}
	d := open(t, path)
	k, err := d.Key()
	must(t, err)
	if len(k) != 32 || !keys[fmt.Sprintf("%x\n", k)] {
		t.Errorf("key %x is not %v", k, keys)
	}
	must(t, os.Truncate(filepath.Join(path, "key"), 7))
	if _, err := d.Key(); !errors.Is(err, fault.ErrHost) || fault.Hint(err) == "" {
		t.Errorf("a damaged key: %v", err)
	}
}

func TestDir_AddressesGoOnAfterADamagedCursor(t *testing.T) {
	path := t.TempDir()
	d := open(t, path)
	subnet := mustPrefix("10.9.0.0/24")
	leave(t, filepath.Join(path, "addresses.json"))
	for _, want := range []string{"10.9.0.2", "10.9.0.3"} {
		if a, err := d.Address(t.Context(), subnet, nil); err != nil || a.String() != want {
			t.Errorf("got %v, %v, want %s", a, err, want)
		}
	}
}

func leave(t *testing.T, path string) {
	t.Helper()
	must(t, os.WriteFile(path, []byte("{"), 0o600))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
