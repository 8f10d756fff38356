package docker

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"

	helper "github.com/docker/docker-credential-helpers/client"
	creds "github.com/docker/docker-credential-helpers/credentials"
	"github.com/moby/moby/api/types/registry"
)

// hub is the key under which credentials for Docker Hub are kept.
const hub = "https://index.docker.io/v1/"

// configFile is the part of Docker's config.json that says who logs in where.
type configFile struct {
	Auths map[string]struct {
		Auth          string `json:"auth"` // base64 of user:password
		Username      string `json:"username"`
		Password      string `json:"password"`
		IdentityToken string `json:"identitytoken"`
		RegistryToken string `json:"registrytoken"`
	} `json:"auths"`
	CredsStore  string            `json:"credsStore"`
	CredHelpers map[string]string `json:"credHelpers"`
}

// credentials returns what `docker login` stored for a registry (the domain of
// a reference), nil where it stored nothing. No error has a secret in it.
func credentials(ctx context.Context, domain string) (*registry.AuthConfig, error) {
	path, err := configPath()
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read credentials: %w", err)
	}
	var c configFile
	if err := json.Unmarshal(b, &c); err != nil {
		// The parser's message may quote what it stumbled over.
		return nil, fmt.Errorf("read credentials: %s is not valid JSON", path)
	}
	return c.find(ctx, domain)
}

// configPath returns where Docker's command line keeps its configuration.
// Cron and systemd may give a root process no HOME.
func configPath() (string, error) {
	if dir := os.Getenv("DOCKER_CONFIG"); dir != "" {
		return filepath.Join(dir, "config.json"), nil
	}
	home := os.Getenv("HOME")
	if home == "" {
		u, err := user.Current()
		if err != nil {
			return "", fmt.Errorf("find home directory: %w", err)
		}
		home = u.HomeDir
	}
	return filepath.Join(home, ".docker", "config.json"), nil
}

func (c configFile) find(ctx context.Context, domain string) (*registry.AuthConfig, error) {
	key := domain
	if domain == "docker.io" {
		key = hub
	}
	store := c.CredsStore
	for k, h := range c.CredHelpers {
		if hostOf(k) == hostOf(key) {
			store = h
		}
	}
	var failed error
	if store != "" {
		a, err := ask(ctx, store, key)
		if a != nil {
			return a, nil
		}
		failed = err
	}
	entry, ok := c.Auths[key]
	for k, v := range c.Auths {
		if ok {
			break
		}
		if hostOf(k) == hostOf(key) {
			entry, ok = v, true
		}
	}
	a := &registry.AuthConfig{
		Username: entry.Username, Password: entry.Password,
		IdentityToken: entry.IdentityToken, RegistryToken: entry.RegistryToken, ServerAddress: key,
	}
	if entry.Auth != "" {
		text, err := base64.StdEncoding.DecodeString(entry.Auth)
		name, password, found := strings.Cut(string(text), ":")
		if err != nil || !found {
			return nil, fmt.Errorf("read credentials: auth of %s is not base64 of user:password", domain)
		}
		a.Username, a.Password = name, strings.TrimRight(password, "\x00")
	}
	if a.Username == "" && a.IdentityToken == "" && a.RegistryToken == "" {
		return nil, failed // an entry that a store has emptied, or none
	}
	return a, nil
}

// hostOf takes scheme and path off a key, which older logins wrote.
func hostOf(key string) string {
	_, rest, ok := strings.Cut(key, "://")
	if !ok {
		rest = key
	}
	host, _, _ := strings.Cut(rest, "/")
	if host == "index.docker.io" || host == "registry-1.docker.io" {
		return "docker.io"
	}
	return host
}

// ask gets credentials from the program docker-credential-<store>; nil where
// it has none.
func ask(ctx context.Context, store, key string) (*registry.AuthConfig, error) {
	name := "docker-credential-" + store
	got, err := helper.Get(func(args ...string) helper.Program {
		return &program{cmd: exec.CommandContext(ctx, name, args...)}
	}, key)
	switch {
	case creds.IsErrCredentialsNotFound(err):
		return nil, nil
	case err != nil:
		// Its output is not repeated: nobody knows what it prints.
		var missing *exec.Error
		if errors.As(err, &missing) || strings.Contains(err.Error(), "executable file not found") {
			return nil, fmt.Errorf("%s is not installed", name)
		}
		return nil, fmt.Errorf("%s failed", name)
	case got.Username == "<token>":
		return &registry.AuthConfig{IdentityToken: got.Secret, ServerAddress: key}, nil
	case got.Username == "" && got.Secret == "":
		return nil, nil
	}
	return &registry.AuthConfig{Username: got.Username, Password: got.Secret, ServerAddress: key}, nil
}

// program is one run of a credential helper, ended with the context.
type program struct{ cmd *exec.Cmd }

func (p *program) Input(in io.Reader) { p.cmd.Stdin = in }

func (p *program) Output() ([]byte, error) {
	var out bytes.Buffer
	p.cmd.Stdout = &out
	err := p.cmd.Run()
	return out.Bytes(), err
}
