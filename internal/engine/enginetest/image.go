package enginetest

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// socket is where the tests' Docker engine listens.
const socket = "/var/run/docker.sock"

// BuildImage loads an image of the test program, made FROM scratch, into the
// Docker engine of this machine under a name, and takes it away again when the
// test ends. Each name is an image of its own, with its own ID, which it
// returns. The image declares a HEALTHCHECK that fails and a volume /data.
func BuildImage(t testing.TB, ref string) (id string) {
	t.Helper()
	bin, err := appBinary()
	if err != nil {
		t.Fatal(err)
	}
	return LoadImage(t, ref, map[string][]byte{"app": bin}, map[string]any{
		"Entrypoint": []string{"/app"},
		"Cmd":        Forever,
		"Labels":     map[string]string{"image": ref},
		"Volumes":    map[string]any{"/data": map[string]any{}},
		"Healthcheck": map[string]any{
			"Test": []string{"CMD", "/app", "exit", "1"}, "Interval": int64(time.Second),
		},
	})
}

// BuildImageIn is BuildImage for the Docker engine at another socket, with no
// settings but the program. It goes with that engine.
func BuildImageIn(t testing.TB, socket, ref string) {
	t.Helper()
	LoadLayersIn(t, socket, ref, map[string]any{"Entrypoint": []string{"/app"}}, AppLayer(t))
}

// AppLayer is the layer of the test program, which is /app.
func AppLayer(t testing.TB) map[string][]byte {
	t.Helper()
	bin, err := appBinary()
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{"app": bin}
}

// LoadLayersIn loads an image with layers, from the bottom, into the Docker
// engine at a socket, under a name, and returns its ID. Files and configuration
// are as for LoadImage. The image stays.
func LoadLayersIn(t testing.TB, socket, ref string, config map[string]any, layers ...map[string][]byte) (id string) {
	t.Helper()
	archive, id, err := imageArchive(ref, config, layers...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := call(t.Context(), socket, http.MethodPost, "/images/load?quiet=1", "application/x-tar", archive); err != nil {
		t.Fatalf("load image %s: %v", ref, err)
	}
	return id
}

// LoadLayers is LoadLayersIn for the Docker engine of this machine, from which
// the name goes when the test ends.
func LoadLayers(t testing.TB, ref string, config map[string]any, layers ...map[string][]byte) (id string) {
	t.Helper()
	id = LoadLayersIn(t, socket, ref, config, layers...)
	t.Cleanup(func() { removeImage(t, ref) })
	return id
}

// LoadImage loads an image with one layer of executable files (path without a
// slash before it → content) and a configuration as the image specification
// has it, under a name that goes when the test ends. It returns the image's ID.
func LoadImage(t testing.TB, ref string, files map[string][]byte, config map[string]any) (id string) {
	t.Helper()
	return LoadLayers(t, ref, config, files)
}

// removeImage takes the name away from the Docker engine of this machine.
// Containers of the test are gone by now: it made its own clean-up later.
func removeImage(t testing.TB, ref string) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	err := docker(ctx, http.MethodDelete, "/images/"+ref, nil)
	if err != nil && !strings.Contains(err.Error(), "404") {
		t.Errorf("remove image %s: %v", ref, err)
	}
}

// appBinary builds the test program once for the whole test binary.
var appBinary = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "enginetest")
	if err != nil {
		return nil, fmt.Errorf("build test program: %w", err)
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "app")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", out, "conductor/internal/engine/enginetest/app")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build test program: %w\n%s", err, text)
	}
	return os.ReadFile(out)
})

// imageArchive writes an image as `docker load` reads it.
func imageArchive(ref string, config map[string]any, layers ...map[string][]byte) (archive io.Reader, id string, err error) {
	files := map[string][]byte{}
	var sums, names []string
	for i, l := range layers {
		layer, err := tarOf(l, 0o755)
		if err != nil {
			return nil, "", err
		}
		name := fmt.Sprintf("layer-%d.tar", i)
		files[name] = layer
		names, sums = append(names, name), append(sums, "sha256:"+sum(layer))
	}
	conf, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux", "config": config,
		"rootfs": map[string]any{"type": "layers", "diff_ids": sums},
	})
	if err != nil {
		return nil, "", err
	}
	name := sum(conf)
	manifest, err := json.Marshal([]map[string]any{{"Config": name + ".json", "RepoTags": []string{ref}, "Layers": names}})
	if err != nil {
		return nil, "", err
	}
	files[name+".json"], files["manifest.json"] = conf, manifest
	all, err := tarOf(files, 0o644)
	return bytes.NewReader(all), "sha256:" + name, err
}

func tarOf(files map[string][]byte, mode int64) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		content := files[name]
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: int64(len(content))}); err != nil {
			return nil, err
		}
		if _, err := w.Write(content); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// docker makes one call of Docker's API without its client, which the adapter
// alone imports.
func docker(ctx context.Context, method, path string, body io.Reader) error {
	_, err := dockerJSON(ctx, method, path, "application/x-tar", body)
	return err
}

func dockerJSON(ctx context.Context, method, path, contentType string, body io.Reader) ([]byte, error) {
	return call(ctx, socket, method, path, contentType, body)
}

func call(ctx context.Context, socket, method, path, contentType string, body io.Reader) ([]byte, error) {
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, method, "http://docker"+path, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", contentType)
	resp, err := (&http.Client{Transport: tr}).Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 300 || bytes.Contains(text, []byte(`"errorDetail"`)) {
		return nil, fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, text)
	}
	return text, nil
}

// Sweep removes, by force, the containers that carry a label (key=value), and
// then the networks that do, from the Docker engine of this machine. Tests call
// it when they end.
func Sweep(t testing.TB, label string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	filter := "filters=" + url.QueryEscape(fmt.Sprintf(`{"label":[%q]}`, label))
	for _, kind := range []struct{ list, remove, after string }{
		{"/containers/json?all=1&", "/containers/", "?force=1&v=1"},
		{"/networks?", "/networks/", ""},
	} {
		text, err := dockerJSON(ctx, http.MethodGet, kind.list+filter, "", nil)
		if err != nil {
			t.Errorf("sweep: %v", err)
			return
		}
		var all []struct{ ID string }
		if err := json.Unmarshal(text, &all); err != nil {
			t.Errorf("sweep: %v", err)
			return
		}
		for _, o := range all {
			if err := docker(ctx, http.MethodDelete, kind.remove+o.ID+kind.after, nil); err != nil && !strings.Contains(err.Error(), "404") {
				t.Errorf("sweep: %v", err)
			}
		}
	}
}

// RawInspect returns what the Docker engine of this machine says of a
// container, without white space, for tests of what the port does not show.
func RawInspect(t testing.TB, id string) string {
	t.Helper()
	text, err := dockerJSON(t.Context(), http.MethodGet, "/containers/"+id+"/json", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	return string(bytes.TrimSpace(text))
}

// RemoveVolume removes a named volume from the Docker engine of this machine.
// Tests call it when they end.
func RemoveVolume(t testing.TB, name string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := docker(ctx, http.MethodDelete, "/volumes/"+name, nil); err != nil && !strings.Contains(err.Error(), "404") {
		t.Errorf("remove volume %s: %v", name, err)
	}
}
