//go:build e2e

package docker_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"conductor/internal/engine"
	"conductor/internal/fault"
)

// serve runs a registry on loopback, where the engine takes plain HTTP, with
// one image shop:v1, and returns its address. With a password, who pulls must
// say it.
func serve(t *testing.T, password string) (domain string) {
	t.Helper()
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, p, _ := r.BasicAuth(); password != "" && p != password {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	domain = strings.TrimPrefix(srv.URL, "http://")
	img, err := random.Image(1024, 2)
	if err != nil {
		t.Fatal(err)
	}
	conf, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	conf.OS, conf.Architecture = "linux", "amd64"
	if img, err = mutate.ConfigFile(img, conf); err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(domain+"/shop:v1", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	auth := remote.WithAuth(&authn.Basic{Username: "deploy", Password: password})
	if err := remote.Write(ref, img, auth); err != nil {
		t.Fatal(err)
	}
	return domain
}

// login writes a Docker configuration for this test.
func login(t *testing.T, json string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(json), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("DOCKER_CONFIG", dir)
	return dir
}

func TestEngine_Pull(t *testing.T) {
	i := open(t)
	login(t, "{}")
	ref := serve(t, "") + "/shop:v1"
	for range 2 { // again, and nothing is new
		im, err := i.Engine.Pull(t.Context(), ref)
		if err != nil {
			t.Fatal(err)
		}
		if len(im.Digests) != 1 || !strings.HasPrefix(im.ID, "sha256:") {
			t.Errorf("%+v", im)
		}
	}
	im, err := i.Engine.Image(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	if byDigest, err := i.Engine.Pull(t.Context(), im.Digests[0]); err != nil || byDigest.ID != im.ID {
		t.Errorf("by digest: %+v, %v", byDigest, err)
	}
	if err := i.Engine.Untag(t.Context(), ref); err != nil {
		t.Fatal(err)
	}

	_, err = i.Engine.Pull(t.Context(), strings.Replace(ref, ":v1", ":v2", 1))
	if !errors.Is(err, engine.ErrNotFound) || !errors.Is(err, fault.ErrImage) || !strings.Contains(err.Error(), "shop:v2") {
		t.Errorf("a tag that is not there: %v", err)
	}
	_, err = i.Engine.Pull(t.Context(), strings.Replace(ref, "shop", "cart", 1))
	if !errors.Is(err, engine.ErrNotFound) {
		t.Errorf("a repository that is not there: %v", err)
	}
	// The registry does not answer; the engine does.
	_, err = i.Engine.Pull(t.Context(), "127.0.0.1:1/shop:v1")
	if errors.Is(err, engine.ErrUnreachable) || errors.Is(err, engine.ErrNotFound) || !errors.Is(err, fault.ErrImage) {
		t.Errorf("no registry: %v", err)
	}
	if _, err = i.Engine.Pull(t.Context(), "Not A Name"); !errors.Is(err, fault.ErrImage) {
		t.Errorf("no name: %v", err)
	}
}

func TestEngine_PullLogsIn(t *testing.T) {
	i := open(t)
	const password = "p:ss\"word$"
	domain := serve(t, password)
	ref := domain + "/shop:v1"
	t.Cleanup(func() { login(t, "{}") })
	auth := base64.StdEncoding.EncodeToString([]byte("deploy:" + password))
	bin := t.TempDir()
	script := "#!/bin/sh\nread url\n[ \"$1 $url\" = \"get " + domain + "\" ] || exit 1\n" +
		`printf '{"ServerURL":"%s","Username":"deploy","Secret":"p:ss\\"word$"}' "$url"` + "\n"
	if err := os.WriteFile(filepath.Join(bin, "docker-credential-ct"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	for _, c := range []struct{ name, config string }{
		{"auths", fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, domain, auth)},
		{"older key", fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, "http://"+domain+"/v1/", auth)},
		{"helper", fmt.Sprintf(`{"credHelpers":{%q:"ct"}}`, domain)},
		{"store", fmt.Sprintf(`{"credsStore":"ct","auths":{%q:{}}}`, domain)},
	} {
		t.Run(c.name, func(t *testing.T) {
			login(t, c.config)
			if _, err := i.Engine.Pull(t.Context(), ref); err != nil {
				t.Error(err)
			}
			if err := i.Engine.Untag(t.Context(), ref); err != nil {
				t.Error(err)
			}
		})
	}
	for _, c := range []struct{ name, config, want string }{
		{"nobody", `{}`, "docker login " + domain},
		{"wrong password", fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, domain, base64.StdEncoding.EncodeToString([]byte("deploy:no"))), "is logged in to " + domain},
		{"no helper", `{"credsStore":"ct-absent"}`, "docker-credential-ct-absent is not installed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			login(t, c.config)
			_, err := i.Engine.Pull(t.Context(), ref)
			if !errors.Is(err, engine.ErrNotFound) || !errors.Is(err, fault.ErrImage) {
				t.Fatalf("got %v", err)
			}
			if text := err.Error() + " " + fault.Hint(err); !strings.Contains(text, c.want) || strings.Contains(text, "p:ss") {
				t.Errorf("%q does not say %q", text, c.want)
			}
		})
	}
}
