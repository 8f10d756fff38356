package ship

import (
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"conductor/internal/engine/enginetest"
)

// cpu is what this process has used of processors.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var r syscall.Rusage
	must(b, syscall.Getrusage(syscall.RUSAGE_SELF, &r))
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// BenchmarkSend is what it costs to bring a layer that does not get smaller
// over, in one process: read, framed, taken out, summed up, written, synced.
// Beside it a plain copy of the same bytes: read, written, synced.
func BenchmarkSend(b *testing.B) {
	const bytes = 128 << 20
	f := newFlow(b, 1, bytes)
	a, err := Open(b.Context(), f, "large:1", b.TempDir())
	must(b, err)
	defer a.Close()
	image, err := a.read(b.Context())
	must(b, err)
	run := func(name string, do func(dir string)) {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(bytes)
			before := cpu(b)
			for b.Loop() {
				do(b.TempDir())
			}
			b.ReportMetric(float64(bytes)*float64(b.N)/1e6/(cpu(b)-before).Seconds(), "MB/cpu-s")
		})
	}
	run("copy", func(dir string) {
		from, err := os.Open(image.file(image.layers[0]))
		must(b, err)
		defer from.Close()
		to, err := os.Create(filepath.Join(dir, "copy"))
		must(b, err)
		defer to.Close()
		// As a program at each end of a connection would, not within the kernel.
		_, err = io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, make([]byte, 64<<10))
		must(b, err)
		must(b, to.Sync())
	})
	run("send", func(dir string) {
		s := &Store{Dir: dir, Engine: drain{enginetest.NewFake(), f}}
		l := image.layers[0]
		h, err := (&sending{a: a, t: s, progress: func(Progress) {}}).put(b.Context(), open(b, image.file(l)), Part{Layer: l, Size: image.sizes[l]}, Progress{})
		must(b, err)
		if !h.Whole {
			b.Fatalf("%+v", h)
		}
	})
}

func open(b *testing.B, name string) *os.File {
	b.Helper()
	f, err := os.Open(name)
	must(b, err)
	b.Cleanup(func() { f.Close() })
	return f
}
