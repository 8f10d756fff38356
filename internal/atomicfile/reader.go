package atomicfile

import (
	"bytes"
	"errors"
	"io"
	"os"
	"sync"
)

// Reader reads one file that is looked at often and seldom changes: while it is
// the same, nothing is allocated. Its zero value is ready; it is safe for
// concurrent use.
type Reader struct {
	mu      sync.Mutex
	text    []byte
	scratch []byte
}

// Read returns what the file says, which is not to be changed. It is the same
// slice for as long as the file says the same.
func (r *Reader) Read(path string) ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// One byte more than it had: whether it ends there is seen too.
	if len(r.scratch) != len(r.text)+1 {
		r.scratch = make([]byte, len(r.text)+1)
	}
	n, err := io.ReadFull(f, r.scratch)
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		if r.text != nil && bytes.Equal(r.scratch[:n], r.text) {
			return r.text, nil
		}
		r.text = append([]byte{}, r.scratch[:n]...)
		return r.text, nil
	case err != nil:
		return nil, err
	}
	rest, err := io.ReadAll(f)
	if err != nil {
		return nil, err
	}
	r.text = append(bytes.Clone(r.scratch), rest...)
	return r.text, nil
}
