//go:build e2e

package docker_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"syscall"
	"testing"

	"conductor/internal/engine"
	"conductor/internal/engine/enginetest"
	"conductor/internal/fault"
)

// An engine whose disk is full says so while it is still given the archive.
func TestEngine_LoadOnAFullDisk(t *testing.T) {
	here := open(t)
	disk := t.TempDir()
	if err := syscall.Mount("ct-engine", disk, "tmpfs", 0, "size=40m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	_, e, _ := openPrivate(t, "--data-root", disk)
	ref := here.Prefix + "/large:1"
	noise := make([]byte, 60<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(noise)
	enginetest.LoadLayers(t, ref, nil, map[string][]byte{"noise": noise})
	var archive bytes.Buffer
	if err := here.Engine.SaveImage(t.Context(), ref, &archive); err != nil {
		t.Fatal(err)
	}
	_, err := e.LoadImage(t.Context(), &archive)
	if !errors.Is(err, engine.ErrNoSpace) || !errors.Is(err, fault.ErrHost) {
		t.Errorf("got %v", err)
	}
	all, err := e.Images(t.Context())
	if err != nil || len(all) != 1 { // the test program's
		t.Errorf("images %+v, %v", all, err)
	}
}
