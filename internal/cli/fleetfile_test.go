package cli

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"conductor/internal/fault"
	"conductor/internal/spec"
)

func TestReadFleet_FindsTheFile(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	fails := func(file, text, hint string, class error) {
		t.Helper()
		_, err := (&app{fleetFile: file}).readFleet()
		if !errors.Is(err, class) || !strings.Contains(err.Error(), text) || fault.Hint(err) != hint {
			t.Errorf("--fleet %q: %v, hint %q", file, err, fault.Hint(err))
		}
	}
	fails("", "there is no fleet.yml in "+dir, "go to the folder that has it, or give --fleet FILE", fault.ErrUsage)
	fails("a/b.yml", "--fleet names a/b.yml, which is not there", "check the path, or leave --fleet away to use ./fleet.yml", fault.ErrUsage)
	fails(".", "read the fleet: ", "it has to be a file that you can read", fault.ErrHost)

	write("fleet.yml", "hosts: {here: {}}\ndefinitions: services\n")
	write("other.yml", "hosts: {there: {}}\n")
	write("bad.yml", "hosts: {there: {ssh: -v}}\n")
	for file, want := range map[string]string{"": "here", "other.yml": "there", filepath.Join(dir, "other.yml"): "there"} {
		f, err := (&app{fleetFile: file}).readFleet()
		if err != nil || len(f.Hosts) != 1 || f.Hosts[0].Name != want || filepath.Dir(f.File) != dir {
			t.Errorf("--fleet %q: %+v, %v", file, f, err)
		}
		if want == "here" && f.Definitions != filepath.Join(dir, "services") {
			t.Error(f.Definitions)
		}
	}
	_, err := (&app{fleetFile: "bad.yml"}).readFleet()
	ps, ok := errors.AsType[spec.Problems](err)
	if !ok || len(ps) != 1 || ps[0].File != filepath.Join(dir, "bad.yml") || Code(err) != 3 {
		t.Errorf("%v", err)
	}
}
