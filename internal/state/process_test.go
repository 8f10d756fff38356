package state_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"conductor/internal/state"
	"conductor/internal/state/statetest"
)

// TestMain lets a test start this binary again as a process that it may kill.
func TestMain(m *testing.M) {
	if role := os.Getenv("STATE_TEST_ROLE"); role != "" {
		if err := play(role, os.Getenv("STATE_TEST_DIR")); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func play(role, dir string) error {
	d, err := state.Open(dir)
	if err != nil {
		return err
	}
	switch role {
	case "put": // goals and routes, over and over, until it is killed
		g := statetest.Goal("shop")
		for i := 0; ; i++ {
			release, err := d.Lock(context.Background(), "shop", state.Holder{Verb: "upgrade"})
			if err != nil {
				return err
			}
			g.Epoch++
			// Files of changing length: a write in place would leave tails.
			g.Current.Container.Environment["PAD"] = fmt.Sprintf("%0*d", g.Epoch*997%5000, 0)
			if err := d.PutGoal(g); err != nil {
				return err
			}
			if err := d.PutRoutes(state.Routes{Drains: map[string]time.Time{"a": time.Now()}}); err != nil {
				return err
			}
			if _, err := d.Key(); err != nil {
				return err
			}
			release()
			if i == 0 {
				fmt.Println("ready")
			}
		}
	case "lock": // the lock, with a child that outlives this process
		if _, err := d.Lock(context.Background(), "shop", state.Holder{Verb: "upgrade", Revision: "v2"}); err != nil {
			return err
		}
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), "STATE_TEST_ROLE=sleep")
		child.Stdout = os.Stdout
		in, err := child.StdinPipe()
		if err != nil {
			return err
		}
		defer in.Close()
		if err := child.Start(); err != nil {
			return err
		}
		fmt.Println("ready", child.Process.Pid)
		select {}
	case "sleep": // until its standard input ends, or half a minute has passed
		time.Sleep(30 * time.Second)
	case "key":
		k, err := d.Key()
		fmt.Printf("%x\n", k)
		return err
	case "operation": // an operation that is never ended
		h := state.OpenHistory(d.HistoryPath(), func(err error) { fmt.Println(err) })
		h.Begin(state.Operation{Service: "shop", Verb: "upgrade", To: "v2"})
		fmt.Println("ready")
		select {}
	case "operations":
		h := state.OpenHistory(d.HistoryPath(), func(err error) { fmt.Println(err) })
		defer h.Close()
		n, _ := strconv.Atoi(os.Getenv("STATE_TEST_N"))
		record(h, "service-"+strconv.Itoa(os.Getpid()), n)
	}
	return nil
}

// start starts this binary in a role and waits for its first line.
func start(t *testing.T, role, dir string, env ...string) (cmd *exec.Cmd, line string, rest io.Reader) {
	t.Helper()
	cmd = exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), "STATE_TEST_ROLE="+role, "STATE_TEST_DIR="+dir), env...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	r := bufio.NewReader(out)
	line, err = r.ReadString('\n')
	if err != nil {
		t.Fatalf("role %s: %v", role, err)
	}
	return cmd, line, r
}

// startQuiet starts this binary in a role that says nothing unless it fails.
func startQuiet(t *testing.T, role, dir string, env ...string) (*exec.Cmd, *strings.Builder) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), "STATE_TEST_ROLE="+role, "STATE_TEST_DIR="+dir), env...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Error(err)
	}
	return cmd, &out
}
