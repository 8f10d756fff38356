package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestReader_ReadsWhatIsThere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	var r Reader
	if _, err := r.Read(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	for _, text := range []string{"", "a", "b", "bb", "a longer one than before", "short", "", "short", "shorT"} {
		if err := Write(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		first, err := r.Read(path)
		if err != nil || string(first) != text {
			t.Errorf("%q, %v; want %q", first, err, text)
		}
		again, err := r.Read(path)
		if err != nil || string(again) != text || first == nil || len(text) > 0 && &again[0] != &first[0] {
			t.Errorf("again: %q, %v; want the same %q", again, err, text)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file any more: %v", err)
	}
}

func TestReader_AllocatesNothingForTheSame(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := Write(path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	var r Reader
	if n := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := r.Read(path); err != nil {
				b.Fatal(err)
			}
		}
	}).AllocedBytesPerOp(); n > 64<<10 {
		t.Errorf("%d bytes are allocated for a file that has not changed", n)
	}
}
