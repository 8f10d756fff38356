package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"conductor/internal/remote"
)

// defined is a transport whose hosts have these definitions of the service shop.
type defined map[string]string

func (d defined) Do(_ context.Context, h remote.Host, r remote.Request, streams remote.Streams) error {
	if r.Do == remote.Definitions {
		return json.NewEncoder(streams.Stdout).Encode(map[string]string{"shop": d[h.Name]})
	}
	return nil
}

func (defined) Close() error { return nil }

// What differs in the same way on many hosts is shown once, before it is sent.
func TestSync_ShowsADifferenceOnce(t *testing.T) {
	dir := t.TempDir()
	here := "image: example.com/shop\nreplicas: 2\n"
	for name, text := range map[string]string{
		"fleet.yml":         "hosts: {web1: {}, web2: {}, web3: {}, web4: {}}\nservices:\n  shop: {on: [web1, web2, web3, web4]}\ndefinitions: services\n",
		"services/shop.yml": here,
	} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	was := "image: example.com/shop\nreplicas: 3\n"
	var out, errs bytes.Buffer
	code := Main(t.Context(), []string{"sync", "--fleet", filepath.Join(dir, "fleet.yml")}, Env{
		Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs, Getenv: func(string) string { return "" }, Name: "conductor",
		OpenFleet: func(FleetSetup) (*FleetParts, error) {
			at := map[string]remote.Host{}
			for _, name := range []string{"web1", "web2", "web3", "web4"} {
				at[name] = remote.Host{Name: name, SSH: name}
			}
			return &FleetParts{Transport: defined{"web1": was, "web2": here, "web3": was, "web4": ""}, At: at}, nil
		},
	})
	said := out.String()
	if code != 0 || strings.Count(said, "-replicas: 3") != 1 || strings.Count(said, "+replicas: 2") != 2 ||
		!strings.Contains(said, "--- web1, web3: shop.yml") || !strings.Contains(said, "--- web4: shop.yml") ||
		strings.Index(said, "--- web4") > strings.Index(said, "web1: 1 definition sent") || !strings.Contains(said, "web2: in step") {
		t.Errorf("exit code %d\n%s%s", code, said, &errs)
	}
}
