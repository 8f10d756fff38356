//go:build e2e

package docker_test

import (
	"crypto/sha256"
	"encoding/hex"
	"testing"

	"conductor/internal/engine/docker"
	"conductor/internal/engine/enginetest"
)

// open returns the engine of this machine, with a prefix, labels and two
// images for one test, all of which go when it ends.
func open(t *testing.T) enginetest.Instance {
	t.Helper()
	e, err := docker.New("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	sum := sha256.Sum256([]byte(t.Name()))
	prefix := "ct-engine-" + hex.EncodeToString(sum[:4])
	i := enginetest.Instance{
		Engine: e, Prefix: prefix, Labels: map[string]string{"ct-engine": prefix},
		Image: prefix + ":1", Other: prefix + ":2",
	}
	enginetest.Sweep(t, "ct-engine="+prefix) // of a run that was killed
	enginetest.BuildImage(t, i.Image)
	enginetest.BuildImage(t, i.Other)
	t.Cleanup(func() { enginetest.Sweep(t, "ct-engine="+prefix) })
	return i
}

func TestEngine_Conforms(t *testing.T) { enginetest.Suite(t, open) }
