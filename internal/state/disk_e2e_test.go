//go:build e2e

package state_test

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"conductor/internal/fault"
	"conductor/internal/state"
	"conductor/internal/state/statetest"
)

// smallDisk mounts a file system of 256 KiB. It needs root.
func smallDisk(t *testing.T) string {
	t.Helper()
	path := t.TempDir()
	if err := syscall.Mount("tmpfs", path, "tmpfs", 0, "size=256k"); err != nil {
		t.Fatalf("mount a small disk (root is needed): %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(path, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return path
}

func TestDir_FullDiskChangesNothing(t *testing.T) {
	path := smallDisk(t)
	d := open(t, path)
	want := statetest.Goal("shop")
	must(t, d.PutGoal(want))
	must(t, d.PutRoutes(state.Routes{}))
	fill(t, filepath.Join(path, "filler"))

	release, err := d.Lock(t.Context(), "shop", state.Holder{Verb: "upgrade"})
	must(t, err)
	defer release()
	changed := statetest.Goal("shop")
	changed.Epoch++
	_, key := d.Key()
	first, err := d.Address(t.Context(), mustPrefix("10.9.0.0/24"), nil)
	must(t, err)
	if other, err := d.Address(t.Context(), mustPrefix("10.9.0.0/24"), nil); err != nil || other == first {
		t.Errorf("addresses on a full disk: %s, then %s, %v", first, other, err)
	}
	_, reopen := state.Open(filepath.Join(path, "other"))
	for name, err := range map[string]error{
		"PutGoal": d.PutGoal(changed), "PutGoal of a new service": d.PutGoal(statetest.Goal("new")),
		"PutRoutes": d.PutRoutes(state.Routes{}), "Key": key,
	} {
		if !errors.Is(err, fault.ErrHost) || !strings.Contains(fault.Hint(err), "free space") {
			t.Errorf("%s: %v (%s), want fault.ErrHost that says to free space", name, err, fault.Hint(err))
		}
	}
	if reopen != nil && !errors.Is(reopen, fault.ErrHost) {
		t.Errorf("Open: %v", reopen)
	}
	got, ok, err := d.Goal("shop")
	if err != nil || !ok || !reflect.DeepEqual(got, want) {
		t.Errorf("the goal is not what it was: %v, %v\n%+v", ok, err, got)
	}
	if goals, err := d.Goals(); len(goals) != 1 || err != nil {
		t.Errorf("goals: %d, %v", len(goals), err)
	}
	left, err := filepath.Glob(filepath.Join(path, "*", "*.tmp"))
	if len(left) != 0 || err != nil {
		t.Errorf("left over: %v, %v", left, err)
	}

	h, warnings := history(t, d.HistoryPath())
	record(h, "shop", 2)
	one(t, warnings, "history alone")

	must(t, os.Remove(filepath.Join(path, "filler")))
	must(t, d.PutGoal(changed))
	h, warnings = history(t, d.HistoryPath())
	record(h, "shop", 2)
	none(t, warnings)
}

func TestHistory_DiskFillsUpWhileItIsOpen(t *testing.T) {
	path := smallDisk(t)
	h, warnings := history(t, filepath.Join(path, "history.db"))
	record(h, "shop", 2)
	fill(t, filepath.Join(path, "filler"))
	record(h, "shop", 100)
	one(t, warnings, "free space")
}

func TestDir_ReadOnlyDisk(t *testing.T) {
	path := smallDisk(t)
	d := open(t, path)
	must(t, d.PutGoal(statetest.Goal("shop")))
	h, warnings := history(t, d.HistoryPath())
	record(h, "shop", 1)
	must(t, h.Close())
	if err := syscall.Mount("", path, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	d = open(t, path) // all is there already
	if _, ok, err := d.Goal("shop"); !ok || err != nil {
		t.Errorf("Goal: %v, %v", ok, err)
	}
	_, lock := d.Lock(t.Context(), "shop", state.Holder{Verb: "upgrade"})
	for name, err := range map[string]error{"Lock": lock, "PutGoal": d.PutGoal(statetest.Goal("shop"))} {
		if !errors.Is(err, fault.ErrHost) || !strings.Contains(fault.Hint(err), "writable") {
			t.Errorf("%s: %v (%s), want fault.ErrHost that says to make it writable", name, err, fault.Hint(err))
		}
	}
	record(h, "shop", 2)
	one(t, warnings, "history alone", "writable")
}

func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	must(t, err)
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	must(t, f.Close())
}
