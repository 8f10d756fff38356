package remotetest

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"conductor/internal/fault"
	"conductor/internal/remote"
)

// Far is the far end that the suite talks to: what it does is the first of the
// request's Args.
func Far(ctx context.Context, _ remote.Host, r remote.Request, s remote.Streams) error {
	if r.Do == remote.Hold {
		if r.Attend {
			if _, err := io.WriteString(s.Stdout, "looked\n"); err != nil {
				return err
			}
			select {
			case <-s.Take:
			case <-ctx.Done():
				return nil
			}
		}
		if _, err := s.Stdout.Write(remote.Held); err != nil {
			return err
		}
		<-ctx.Done()
		fmt.Fprintln(s.Stderr, context.Cause(ctx))
		return nil
	}
	if r.Do == remote.HAProxy {
		return answers(ctx, r, s)
	}
	if len(r.Args) == 0 {
		return fault.New(fault.ErrUsage, "", "nothing to do")
	}
	switch args := r.Args[1:]; r.Args[0] {
	case "echo": // the request as it was understood
		return json.NewEncoder(s.Stdout).Encode(r)
	case "say": // the first to stdout, the second to stderr
		_, err := io.WriteString(s.Stdout, args[0])
		if err == nil {
			_, err = io.WriteString(s.Stderr, args[1])
		}
		return err
	case "sum": // what comes in
		h := sha256.New()
		n, err := io.Copy(h, s.Stdin)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(s.Stdout, "%d %x\n", n, h.Sum(nil))
		return err
	case "count": // the same, without a sum
		n, err := io.Copy(io.Discard, s.Stdin)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(s.Stdout, n)
		return err
	case "cat":
		_, err := io.Copy(s.Stdout, s.Stdin)
		return err
	case "exit": // with words of its own
		code, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		fmt.Fprint(s.Stderr, "first\nit went \x1b[31mwrong\n")
		if code == 0 {
			return nil
		}
		return &remote.ExitError{Code: code}
	case "fail": // and leaves the words to the ending
		return fault.New(fault.ErrLocked, "wait for them", "alice@laptop has it")
	case "wait": // to be interrupted
		fmt.Fprintln(s.Stdout, "waits")
		<-ctx.Done()
		return fmt.Errorf("stopped: %w", context.Cause(ctx))
	case "finish": // what cannot be taken back is finished
		fmt.Fprintln(s.Stdout, "waits")
		<-ctx.Done()
		fmt.Fprintln(s.Stdout, "done")
		return nil
	case "deaf": // never ends
		fmt.Fprintln(s.Stdout, "waits")
		await(ctx, args[0], false)
		return nil
	case "go-on": // until the file args[0] is there; then it makes args[1]
		fmt.Fprintln(s.Stdout, "waits")
		if !await(ctx, args[0], true) {
			return context.Cause(ctx)
		}
		fmt.Fprintln(s.Stdout, "goes on")
		return os.WriteFile(args[1], nil, 0o600)
	}
	return fault.New(fault.ErrUsage, "", "what is %q?", r.Args)
}

// said is the answer to a question of a dialogue, which is a string.
type said struct {
	Session  string // by which it was asked
	Question string
}

// answers is the far end of a dialogue.
func answers(ctx context.Context, r remote.Request, s remote.Streams) error {
	a := said{Session: rand.Text()}
	in := bufio.NewReader(s.Stdin)
	for text := []byte(r.Body); ; {
		if err := json.Unmarshal(text, &a.Question); err != nil {
			return err
		}
		switch a.Question {
		case "fail":
			return fault.New(fault.ErrLocked, "wait for them", "alice@laptop has it")
		case "leave":
			return nil
		}
		if file, waits := strings.CutPrefix(a.Question, "wait "); waits { // which it says by the file
			if err := os.WriteFile(file, nil, 0o600); err != nil {
				return err
			}
			<-ctx.Done()
			return context.Cause(ctx)
		}
		if err := json.NewEncoder(s.Stdout).Encode(a); err != nil {
			return err
		}
		var err error
		if text, err = in.ReadBytes('\n'); err != nil {
			return nil
		}
	}
}

// await waits until the file is there, or, where it listens, for the end of ctx.
func await(ctx context.Context, file string, listens bool) bool {
	for {
		if _, err := os.Stat(file); err == nil {
			return true
		}
		if listens && ctx.Err() != nil {
			return false
		}
		time.Sleep(5 * time.Millisecond)
	}
}
