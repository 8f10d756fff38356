package docker

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/registry"
)

func TestCredentials(t *testing.T) {
	bin := t.TempDir()
	helpers := map[string]string{
		"good":  `printf '{"Username":"h","Secret":"s"}'`,
		"token": `printf '{"Username":"<token>","Secret":"t"}'`,
		"none":  `echo "credentials not found in native keychain"; exit 1`,
		"bad":   `echo "the password is hunter2"; exit 1`,
		"torn":  `printf '{"Username":"hunter2'`,
	}
	for name, body := range helpers {
		if err := os.WriteFile(filepath.Join(bin, "docker-credential-"+name), []byte("#!/bin/sh\ncat >/dev/null\n"+body+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	const auths = `"auths":{"r.example.com":{"auth":"dTpwOnE="},"https://index.docker.io/v1/":{"auth":"aHViOmh1Yg=="}}` // u:p:q, hub:hub
	user := &registry.AuthConfig{Username: "u", Password: "p:q", ServerAddress: "r.example.com"}
	for _, c := range []struct {
		name, config, domain string
		want                 *registry.AuthConfig
		err                  string // a part of it
	}{
		{"no file", "", "r.example.com", nil, ""},
		{"entry", "{" + auths + "}", "r.example.com", user, ""},
		{"another registry", "{" + auths + "}", "other.example.com", nil, ""},
		{"another port", "{" + auths + "}", "r.example.com:5000", nil, ""},
		{"hub", "{" + auths + "}", "docker.io", &registry.AuthConfig{Username: "hub", Password: "hub", ServerAddress: hub}, ""},
		{"plain", `{"auths":{"r.example.com":{"username":"u","password":"p:q"}}}`, "r.example.com", user, ""},
		{"identity token", `{"auths":{"r.example.com":{"identitytoken":"i"}}}`, "r.example.com",
			&registry.AuthConfig{IdentityToken: "i", ServerAddress: "r.example.com"}, ""},
		{"helper", `{"credHelpers":{"r.example.com":"good"},` + auths + "}", "r.example.com",
			&registry.AuthConfig{Username: "h", Password: "s", ServerAddress: "r.example.com"}, ""},
		{"helper before store", `{"credsStore":"bad","credHelpers":{"r.example.com":"token"}}`, "r.example.com",
			&registry.AuthConfig{IdentityToken: "t", ServerAddress: "r.example.com"}, ""},
		{"store has none", `{"credsStore":"none",` + auths + "}", "r.example.com", user, ""},
		{"store has none, file neither", `{"credsStore":"none"}`, "r.example.com", nil, ""},
		{"store fails", `{"credsStore":"bad"}`, "r.example.com", nil, "docker-credential-bad failed"},
		{"store answers nonsense", `{"credsStore":"torn"}`, "r.example.com", nil, "docker-credential-torn failed"},
		{"store is absent", `{"credsStore":"absent"}`, "r.example.com", nil, "docker-credential-absent is not installed"},
		{"store fails, file has it", `{"credsStore":"bad",` + auths + "}", "r.example.com", user, ""},
		{"torn file", `{"auths":{"r.example.com":{"auth":"hunter2`, "r.example.com", nil, "not valid JSON"},
		{"torn entry", `{"auths":{"r.example.com":{"auth":"hunter2!"}}}`, "r.example.com", nil, "not base64"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			t.Setenv("DOCKER_CONFIG", dir)
			if c.config != "" {
				if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(c.config), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got, err := credentials(t.Context(), c.domain)
			if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
				t.Errorf("got error %v, want %q", err, c.err)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("a secret is in %q", err)
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}
