package remotetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"conductor/internal/fault"
	"conductor/internal/remote"
)

// World is a transport with hosts at its other end.
type World struct {
	remote.Transport
	Host    remote.Host // one that does what Far does
	Nowhere remote.Host // one that does not answer
	Cut     func()      // cuts the connection to Host, with all sessions on it
}

// patience is how long a test waits for what comes at once.
const patience = 30 * time.Second

// Suite is what every transport does.
func Suite(t *testing.T, open func(t *testing.T) World) {
	for _, test := range []struct {
		name string
		run  func(t *testing.T, w World)
	}{
		{"RequestArrivesAsItIs", requestArrives},
		{"RefusesWhatCannotBeSent", refuses},
		{"OutputsArePassedOnApart", outputs},
		{"InputArrivesWhole", input},
		{"InputAndOutputAtOnce", both},
		{"ExitCodes", exitCodes},
		{"FailuresKeepClassAndHint", failure},
		{"InterruptedTellsWhatBecameOfIt", interrupted},
		{"InterruptedAfterTheCommitIsNoFailure", finished},
		{"BytesEndWithTheContext", bytesEnd},
		{"EndedBeforeItBegan", endedBefore},
		{"HoldEndsWithTheContext", hold},
		{"HoldTakesItsLockWhenItIsTold", attend},
		{"ManyAtOnce", manyAtOnce},
		{"DialogueKeepsItsSession", dialogueKeeps},
		{"DialogueAtOnce", dialogueAtOnce},
		{"DialogueGoesOnAfterACut", dialogueCut},
		{"DialogueFailures", dialogueFailures},
		{"Unreachable", unreachable},
		{"CutIsToldAndTheNextOneWorks", cutAndAgain},
		{"WhatWasCutGoesOn", goesOn},
		{"ReaderThatFails", readerFails},
		{"ClosedCutsAndRefuses", closed},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := open(t)
			t.Cleanup(func() {
				if err := w.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			})
			test.run(t, w)
		})
	}
}

func command(args ...string) remote.Request {
	return remote.Request{Version: "1.0", Do: remote.Command, Args: args}
}

func exec(args ...string) remote.Request {
	return remote.Request{Version: "1.0", Do: remote.Exec, Args: args}
}

func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func requestArrives(t *testing.T, w World) {
	big := strings.Repeat("a b\tc", 150_000)
	for _, word := range []string{
		"", "plain", "two words", `'; touch /tmp/hostile; '`, `$(id) ${HOME} %h !! \ " ' & | > < ; # ~ *`, "-oProxyCommand=id", "--",
		"new\nline", "nul\x00byte", "\x1b[31m", "Grüße, 你好", "\u2028<&>", remote.Greeting, big,
	} {
		want := remote.Request{
			Protocol: remote.Protocol, Version: "1.0", Do: remote.Command, By: "alice@laptop", Reason: "it's $(urgent)",
			Service: "shop", Revision: "v1", Args: []string{"echo", word}, Body: json.RawMessage(`{"image":"'$x'\n","size":4611686018427387905}`),
		}
		var got remote.Request
		if err := remote.Ask(soon(t), w, w.Host, want, &got); err != nil {
			t.Fatalf("%.40q: %v", word, err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%.40q: got %.200v", word, got)
		}
	}
}

func refuses(t *testing.T, w World) {
	for name, h := range map[string]remote.Host{
		"an option":         {Name: "a", SSH: "-oProxyCommand=id"},
		"an option as user": {Name: "a", SSH: "-oProxyCommand=id@web1"},
		"an option as name": {Name: "a", SSH: "deploy@-oProxyCommand=id"},
		"empty":             {Name: "a"},
		"a command":         {Name: "a", SSH: "web1;id"},
		"a substitution":    {Name: "a", SSH: "$(id)@web1"},
		"white space":       {Name: "a", SSH: "web1 id"},
		"a line":            {Name: "a", SSH: "web1\nid"},
		"a port":            {Name: "a", SSH: "web1", Port: 1 << 16},
	} {
		if err := w.Do(soon(t), h, command("echo"), remote.Streams{}); !errors.Is(err, fault.ErrUsage) {
			t.Errorf("%s: %v, want wrong usage", name, err)
		}
	}
	for name, r := range map[string]remote.Request{
		"too long":        command(strings.Repeat("x", remote.MaxRequest)),
		"by has a line":   {Do: remote.Command, By: "alice\nbob"},
		"nothing to do":   {},
		"reason is bytes": {Do: remote.Command, Reason: "\xff"},
	} {
		if err := w.Do(soon(t), w.Host, r, remote.Streams{}); !errors.Is(err, fault.ErrUsage) {
			t.Errorf("%s: %v, want wrong usage", name, err)
		}
	}
}

func outputs(t *testing.T, w World) {
	for _, text := range [][2]string{
		{"out", "err"}, {"", ""}, {"no end of line", "\n"},
		{"\x00bytes\xff\n", "\x00bytes\xff\n\x00conductor end "},
		{remote.Greeting + "again", remote.Greeting + "\x00conductor end {}"},
		{strings.Repeat("long ", 100_000), strings.Repeat("\x00\n", 50_000)},
	} {
		var out, errs bytes.Buffer
		r := exec("say", text[0], text[1])
		if !strings.Contains(text[0]+text[1], "\xff") {
			if err := w.Do(soon(t), w.Host, r, remote.Streams{Stdout: &out, Stderr: &errs}); err != nil {
				t.Fatal(err)
			}
			if out.String() != text[0] || errs.String() != text[1] {
				t.Errorf("%.40q: got %.60q and %.60q", text, out.String(), errs.String())
			}
			if err := w.Do(soon(t), w.Host, r, remote.Streams{}); err != nil { // nobody reads
				t.Fatal(err)
			}
			continue
		}
		if err := w.Do(soon(t), w.Host, exec("cat"), remote.Streams{Stdin: strings.NewReader(text[0]), Stdout: &out}); err != nil {
			t.Fatal(err)
		}
		if out.String() != text[0] {
			t.Errorf("%q: got %q", text[0], out.String())
		}
	}
}

func noise(t *testing.T, n int) []byte {
	b := make([]byte, n)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return b
}

func input(t *testing.T, w World) {
	for _, n := range []int{0, 1, 64<<10 + 1, 5 << 20} {
		b := noise(t, n)
		var out strings.Builder
		if err := w.Do(soon(t), w.Host, exec("sum"), remote.Streams{Stdin: bytes.NewReader(b), Stdout: &out}); err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("%d %x\n", n, sha256.Sum256(b)); out.String() != want {
			t.Errorf("%d bytes: got %q, want %q", n, out.String(), want)
		}
	}
}

func both(t *testing.T, w World) {
	b := noise(t, 3<<20)
	var out bytes.Buffer
	if err := w.Do(soon(t), w.Host, exec("cat"), remote.Streams{Stdin: bytes.NewReader(b), Stdout: &out}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(out.Bytes(), b) {
		t.Errorf("%d bytes went, %d others came back", len(b), out.Len())
	}
}

func exitCodes(t *testing.T, w World) {
	for _, code := range []int{0, 1, 2, 7, 8, 126, 127, 254, 255} {
		for _, r := range []remote.Request{command("exit", fmt.Sprint(code)), exec("exit", fmt.Sprint(code))} {
			err := w.Do(soon(t), w.Host, r, remote.Streams{})
			exit, is := errors.AsType[*remote.ExitError](err)
			switch {
			case code == 0 && err != nil:
				t.Errorf("%s, code 0: %v", r.Do, err)
			case code != 0 && (!is || exit.Code != code || exit.Stderr != "first\nit went [31mwrong" || exit.Host != w.Host.Name):
				t.Errorf("%s, code %d: %#v", r.Do, code, err)
			case errors.Is(err, fault.ErrLocked) != (code == 7 && r.Do == remote.Command):
				t.Errorf("%s, code %d: of class locked: %t", r.Do, code, errors.Is(err, fault.ErrLocked))
			case remote.Unreached(err):
				t.Errorf("%s, code %d counts as unreached", r.Do, code)
			}
		}
	}
}

func failure(t *testing.T, w World) {
	err := w.Do(soon(t), w.Host, command("fail"), remote.Streams{})
	if !errors.Is(err, fault.ErrLocked) || fault.Hint(err) != "wait for them" || err == nil || err.Error() != w.Host.Name+": alice@laptop has it" {
		t.Errorf("got %v, hint %q", err, fault.Hint(err))
	}
}
