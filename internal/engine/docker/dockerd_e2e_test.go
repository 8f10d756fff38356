//go:build e2e

package docker_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"testing"
	"time"

	"conductor/internal/engine/docker"
	"conductor/internal/engine/enginetest"
)

// openPrivate starts an engine for one test, which clears it away.
func openPrivate(t *testing.T, flags ...string) (*enginetest.Dockerd, *docker.Engine, enginetest.Instance) {
	t.Helper()
	d := enginetest.StartDockerd(t, "", "10.255.253.1/29", flags...)
	e, err := docker.New("unix://" + d.Socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		clear(t, d, e)
		_ = e.Close()
	})
	sum := sha256.Sum256([]byte(t.Name()))
	prefix := "ct-engine-" + hex.EncodeToString(sum[:4])
	i := enginetest.Instance{Engine: e, Prefix: prefix, Labels: map[string]string{"ct-engine": prefix}, Image: prefix + ":1"}
	enginetest.BuildImageIn(t, d.Socket, i.Image)
	return d, e, i
}

// clear ends an engine's containers, which --live-restore would leave.
func clear(t *testing.T, d *enginetest.Dockerd, e *docker.Engine) {
	if !d.Running() {
		d.Start()
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cs, err := e.List(ctx, nil)
	for _, c := range cs {
		err = errors.Join(err, e.Stop(ctx, c.ID, 0), e.Remove(ctx, c.ID))
	}
	if err != nil {
		t.Error(err)
	}
}
