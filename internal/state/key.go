package state

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"conductor/internal/atomicfile"
	"conductor/internal/fault"
)

const keySize = 32 // bytes

// Key returns the host's key, under which secrets are told apart without
// showing what they are. It is made once.
func (d *Dir) Key() ([]byte, error) {
	path := filepath.Join(d.path, "key")
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		b, err = d.makeKey(path)
	}
	if err != nil {
		return nil, hostError(d.path, fmt.Errorf("read the host's key: %w", err))
	}
	if len(b) != keySize {
		return nil, fault.New(fault.ErrHost, "put it back from a backup, or move it away: a new one is made, and services with secrets are replaced at their next upgrade",
			"read the host's key: %s is damaged: %d bytes, not %d", path, len(b), keySize)
	}
	return b, nil
}

func (d *Dir) makeKey(path string) ([]byte, error) {
	// Two first commands at once must end up with one key.
	l, err := d.lock(context.Background(), ".key", Holder{Verb: "key"}, waitAll)
	if err != nil {
		return nil, err
	}
	defer l.release()
	if b, err := os.ReadFile(path); !errors.Is(err, os.ErrNotExist) {
		return b, err
	}
	atomicfile.Sweep(path)
	b := make([]byte, keySize)
	rand.Read(b) // never fails
	return b, atomicfile.Write(path, b, 0o600)
}
