//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"conductor/test/image"
)

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "e2e: these tests need root, for the engine and for nginx")
		return 1
	}
	engine := image.NewEngine(socket())
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := engine.Ping(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "e2e: no container engine at %s: %v\n", engine.Socket, err)
		return 1
	}
	if err := sweep(ctx, engine); err != nil {
		fmt.Fprintln(os.Stderr, "e2e: sweeping up after killed runs:", err)
	}
	dir := filepath.Join(os.TempDir(), newNamespace())
	if err := os.Mkdir(dir, 0o755); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	binaries.conductor = filepath.Join(dir, "conductor")
	binaries.app = filepath.Join(dir, "app")
	for out, pkg := range map[string]string{
		binaries.conductor: "conductor/cmd/conductor",
		binaries.app:       "conductor/test/app",
	} {
		if err := build(out, pkg); err != nil {
			fmt.Fprintln(os.Stderr, "e2e:", err)
			return 1
		}
	}
	return m.Run()
}
