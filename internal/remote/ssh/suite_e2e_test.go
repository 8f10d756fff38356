//go:build e2e

package ssh

import (
	"testing"

	"conductor/internal/remote"
	"conductor/internal/remote/remotetest"
)

func TestTransport(t *testing.T) {
	s := newSSHD(t)
	nowhere := remote.Host{Name: "nowhere", SSH: "127.0.0.1", Port: freePort(t)}
	remotetest.Suite(t, func(t *testing.T) remotetest.World {
		tr := New(Options{Command: []string{"ssh", "-F", s.config}})
		return remotetest.World{Transport: tr, Host: s.host(), Nowhere: nowhere, Cut: s.cut}
	})
}
