// Package docker is the engine port spoken to Docker, or to Podman's socket of
// the same API, from version 1.40 on.
//
// It is the only importer of the Docker client; cmd alone imports it. The
// Docker client's types do not leave it.
package docker

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/moby/moby/client"

	"conductor/internal/engine"
	"conductor/internal/fault"
)

// Engine is a Docker engine behind a local socket. It is safe for concurrent
// use and has no goroutine of its own.
type Engine struct {
	api      *client.Client
	endpoint string
	agreed   atomic.Bool // the version of the API is agreed on
}

var _ engine.Archives = (*Engine)(nil)

// idleConnections is how many connections are kept open: replicas are started
// side by side, and a new connection for each call would cost them.
const idleConnections = 16

// New returns the engine at host, a unix:// address. An empty host means
// $DOCKER_HOST, and without that the first of the usual sockets of Docker and
// Podman that is there. It connects to nothing: Info does, or the first call.
// The error is fault.ErrUsage where the address is not one of a local socket.
func New(host string) (*Engine, error) {
	from := "engine.host"
	if host == "" {
		host, from = os.Getenv("DOCKER_HOST"), "$DOCKER_HOST"
	}
	if host == "" {
		host = "unix://" + usualSocket(os.Getenv("XDG_RUNTIME_DIR"))
	}
	if path, ok := strings.CutPrefix(host, "unix://"); !ok || !filepath.IsAbs(path) {
		return nil, fault.New(fault.ErrUsage,
			"instances are reached over this host's bridge network: set "+from+" to a local socket, unix:///var/run/docker.sock",
			"engine %s (from %s): not the address of a local socket", host, from)
	}
	api, err := client.New(
		client.WithHTTPClient(&http.Client{
			Transport: &http.Transport{
				MaxIdleConns: idleConnections, MaxIdleConnsPerHost: idleConnections, IdleConnTimeout: 30 * time.Second,
				// No HTTP/2: preparing it adds a TLS configuration, from which
				// the client would conclude that the socket speaks TLS.
				TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{},
			},
			CheckRedirect: client.CheckRedirect,
		}),
		client.WithHost(host),
		client.WithAPIVersionFromEnv(),
		client.WithHTTPResponseHook(tellAnswer),
	)
	if err != nil {
		return nil, fmt.Errorf("engine %s: %w", host, err)
	}
	return &Engine{api: api, endpoint: host}, nil
}

// usualSocket returns the first socket that exists, and Docker's where none
// does, so that the error of the first call names it.
func usualSocket(runtimeDir string) string {
	usual := []string{"/var/run/docker.sock", "/run/docker.sock", "/run/podman/podman.sock"}
	if runtimeDir != "" {
		usual = append(usual, filepath.Join(runtimeDir, "podman", "podman.sock"))
	}
	for _, path := range usual {
		if st, err := os.Stat(path); err == nil && st.Mode()&os.ModeSocket != 0 {
			return path
		}
	}
	return usual[0]
}

// Close closes the connections that are idle.
func (e *Engine) Close() error { return e.api.Close() }

// Info connects and says what the engine is.
func (e *Engine) Info(ctx context.Context) (engine.Info, error) {
	if err := e.agree(ctx); err != nil {
		return engine.Info{}, err
	}
	v, err := e.api.ServerVersion(ctx, client.ServerVersionOptions{})
	if err != nil {
		return engine.Info{}, e.fail(ctx, err, "engine %s", e.endpoint)
	}
	i, err := e.api.Info(ctx, client.InfoOptions{})
	if err != nil {
		return engine.Info{}, e.fail(ctx, err, "engine %s", e.endpoint)
	}
	name := "Docker"
	for _, c := range v.Components {
		if strings.Contains(c.Name, "Podman") {
			name = "Podman"
		}
	}
	return engine.Info{
		Name: name, Version: v.Version, APIVersion: e.api.ClientVersion(),
		Endpoint: e.endpoint, RootDir: i.Info.DockerRootDir,
		WholeLoads: name != "Docker" || inContainerd(i.Info.DriverStatus),
	}, nil
}

// agree settles the version of the API, once. The client does so by itself,
// but swallows the error, and what follows is then said in a version that the
// engine may not know.
func (e *Engine) agree(ctx context.Context) error {
	if e.agreed.Load() {
		return nil
	}
	if _, err := e.api.Ping(ctx, client.PingOptions{NegotiateAPIVersion: true}); err != nil {
		return e.fail(ctx, err, "engine %s", e.endpoint)
	}
	e.agreed.Store(true)
	return nil
}

type answerKey struct{}

// withAnswer returns a context whose request calls f when the engine has
// answered it with success, before its body is read.
func withAnswer(ctx context.Context, f func()) context.Context {
	return context.WithValue(ctx, answerKey{}, f)
}

func tellAnswer(r *http.Response) {
	if f, ok := r.Request.Context().Value(answerKey{}).(func()); ok && r.StatusCode == http.StatusOK {
		f()
	}
}
