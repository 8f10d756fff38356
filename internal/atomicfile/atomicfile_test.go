package atomicfile

import (
	"os"
	"path/filepath"
	"testing"
)

func TestWrite_ReplacesWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a [file]*")
	for _, text := range []string{"one\n", "another\n"} {
		if err := Write(path, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != text {
			t.Errorf("read %q, %v, want %q", got, err, text)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o640 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	wantNames(t, filepath.Dir(path), filepath.Base(path))
}

func TestWrite_LeavesNothingWhereItCannot(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "taken"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := Write(filepath.Join(dir, "taken"), nil, 0o600); err == nil {
		t.Error("a file took the place of a folder")
	}
	if err := Write(filepath.Join(dir, "none", "file"), nil, 0o600); !os.IsNotExist(err) {
		t.Errorf("in a folder that is not there: %v", err)
	}
	wantNames(t, dir, "taken")
}

func TestRemove(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := Write(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time it is gone already
		if err := Remove(path); err != nil {
			t.Error(err)
		}
	}
	wantNames(t, filepath.Dir(path))
}

func TestSweep_TakesTheLeftoversOfOneFile(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"f", ".f.123.tmp", ".f.4.tmp", ".g.5.tmp", ".f.6"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	Sweep(filepath.Join(dir, "f"))
	wantNames(t, dir, ".f.6", ".g.5.tmp", "f")
}

func wantNames(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != len(want) {
		t.Fatalf("left: %v, want %v", entries, want)
	}
	for i, e := range entries {
		if e.Name() != want[i] {
			t.Errorf("left: %v, want %v", entries, want)
		}
	}
}
