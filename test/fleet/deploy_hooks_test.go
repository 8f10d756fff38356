//go:build e2e

package fleet

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// script writes a program at the desk, in the fleet's folder.
func (f *Fleet) script(t testing.TB, name, text string) {
	t.Helper()
	path := filepath.Join(f.Dir, name)
	must(t, os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o755))
	t.Cleanup(func() { os.Remove(path) })
}

// notes are the lines that a script has written at the desk, and no longer there.
func (f *Fleet) notes(t testing.TB, name string) []string {
	t.Helper()
	path := filepath.Join(f.Dir, name)
	text, err := os.ReadFile(path)
	must(t, err)
	must(t, os.Remove(path))
	return strings.Split(strings.TrimSpace(string(text)), "\n")
}

// note has a script write a line of what it is told, and fail where it is told so.
const note = `
echo "$CONDUCTOR_HOOK$CONDUCTOR_TARGET host=$CONDUCTOR_HOST hosts=$CONDUCTOR_HOSTS service=$CONDUCTOR_SERVICE revision=$CONDUCTOR_REVISION error=$CONDUCTOR_ERROR in=$PWD" | tr '\n' ' ' >>notes
echo >>notes
[ "$(cat fail 2>/dev/null)" != "$CONDUCTOR_HOOK$CONDUCTOR_TARGET $CONDUCTOR_HOST" ] || { echo "no, it says"; exit 7; }
`

// failAt has a script fail there; "" nowhere.
func (f *Fleet) failAt(t testing.TB, what string) {
	t.Helper()
	must(t, os.WriteFile(filepath.Join(f.Dir, "fail"), []byte(what), 0o644))
	t.Cleanup(func() { os.Remove(filepath.Join(f.Dir, "fail")) })
}

// wantNotes fails the test unless the scripts were run in this order, and each
// told the words that stand behind it.
func wantNotes(t testing.TB, got []string, want ...string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("the scripts wrote %q, want %q", got, want)
	}
	for n, w := range want {
		for _, word := range strings.Fields(w) {
			if !strings.Contains(got[n]+" ", word+" ") {
				t.Errorf("a script wrote %q, want %q in it", got[n], word)
			}
		}
	}
}

// Hooks are run at their times and told what they are about; one that fails, or
// takes too long, stops what has not begun.
func TestDeploy_RunsHooks(t *testing.T) {
	f, l := deployed(t, 200)
	f.script(t, "hook", note)
	hooks := "hooks: {before_deploy: [./hook], before_host: [./hook], after_host: [./hook], after_deploy: [./hook], on_failure: [./hook]}"
	f.describe(t, "strategy: {percent: 50}", hooks)
	f.run(t, "deploy", "--id", "shop", "--revision", "v2", "--hosts", "web1,web2").want(0)
	about := "hosts=web1 web2 service=shop revision=v2 error= in=" + f.Dir
	notes := f.notes(t, "notes")
	if len(notes) != 6 {
		t.Fatalf("the hooks wrote %q", notes)
	}
	wantNotes(t, notes[:1], "before_deploy host= "+about)
	wantNotes(t, notes[5:], "after_deploy host= "+about)
	for _, host := range []string{"web1", "web2"} {
		var of []string
		for _, n := range notes[1:5] {
			if strings.Contains(n, "host="+host+" ") {
				of = append(of, n)
			}
		}
		wantNotes(t, of, "before_host host="+host+" "+about, "after_host host="+host+" "+about)
	}

	// One that fails.
	f.describe(t, "strategy: one-at-a-time", hooks)
	f.failAt(t, "before_host web4")
	f.run(t, "deploy", "--id", "shop", "--revision", "v2").want(9, "hook before_host", "exit status 7", "no, it says")
	wantRuns(t, f, "v2 UP", "v2 UP", "v2 UP", "v1 UP")
	wantNotes(t, f.notes(t, "notes"), "before_deploy", "before_host host=web3", "after_host host=web3", "before_host host=web4",
		"on_failure error=hook before_host (./hook): exit status 7 no, it says")
	f.failAt(t, "before_deploy ")
	f.run(t, "deploy", "--id", "shop", "--revision", "v1").want(9, "hook before_deploy", "no, it says")
	wantNotes(t, f.notes(t, "notes"), "before_deploy") // nothing has begun that could fail
	wantRuns(t, f, "v2 UP", "v2 UP", "v2 UP", "v1 UP")

	// One that takes too long.
	f.describe(t, "strategy: all", "hooks: {before_deploy: {command: [sleep, '60'], timeout: 1s}}")
	f.run(t, "deploy", "--id", "shop", "--revision", "v1").want(124, "hook before_deploy", "did not end within 1s").within(15 * time.Second)
	wantRuns(t, f, "v2 UP", "v2 UP", "v2 UP", "v1 UP")
	f.describe(t, "strategy: all")
	f.run(t, "deploy", "--id", "shop", "--revision", "v2").want(0)
	wantRuns(t, f, all("v2 UP")...)
	nothingFailed(t, l)
}

// What conductor does not deploy itself goes with a deploy, after the hosts; the
// deploy ends well only when that does.
func TestDeploy_RunsTargets(t *testing.T) {
	f, l := deployed(t, 200)
	f.script(t, "target", note)
	f.script(t, "hook", note)
	f.describe(t, "strategy: all", "targets: {legacy: {command: [./target]}, other: {command: [./target], services: [nothing]}}")
	f.run(t, "deploy", "--id", "shop", "--revision", "v2").want(3, "nothing") // there is no such service
	f.describe(t, "strategy: all", "targets: {legacy: {command: [./target]}}", "hooks: {after_deploy: [./hook], on_failure: [./hook]}")
	f.failAt(t, "legacy ")
	f.run(t, "deploy", "--id", "shop", "--revision", "v2").want(9, "target legacy", "exit status 7", "no, it says", "legacy  ?")
	wantRuns(t, f, all("v2 UP")...)
	wantNotes(t, f.notes(t, "notes"), "legacy service=shop revision=v2 in="+f.Dir, "on_failure error=target legacy")
	f.failAt(t, "")
	f.run(t, "deploy", "--id", "shop", "--revision", "v2").want(0, "legacy  v2")
	wantNotes(t, f.notes(t, "notes"), "legacy service=shop revision=v2", "after_deploy")
	f.describe(t, "strategy: all", "targets: {legacy: {command: [sleep, '60'], timeout: 1s}}")
	f.run(t, "deploy", "--id", "shop", "--revision", "v1").want(124, "target legacy", "did not end within 1s").within(30 * time.Second)
	nothingFailed(t, l)
}
