//go:build e2e

package fleet

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A host that the balancer does not know, beside others that it knows, would get
// its revision with no request to it, or unseen: that is a mistake in a name.
func TestDeploy_BalancerKnowsSomeHosts(t *testing.T) {
	f, l := deployed(t, 200)
	text, err := os.ReadFile(filepath.Join(f.Dir, "fleet.yml"))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(f.Dir, "fleet.yml"), []byte(strings.Replace(string(text), "web4: {", "web4: {server: shop4, ", 1)), 0o644))
	for _, args := range [][]string{{}, {"--hosts", "web4"}, {"--hosts", "web1"}, {"--plan"}} {
		f.run(t, append([]string{"deploy", "--id", "shop", "--revision", "v2"}, args...)...).
			want(3, "the balancer does not know", "it knows web1, web2, web3", "and not web4", "let fleet.yml call them as it does")
	}
	wantRuns(t, f, all("v1 UP")...)
	nothingFailed(t, l)
}

// Conductors fit together that speak one protocol, whatever their versions;
// where they do not, that is told in words, and nothing is touched.
func TestDeploy_VersionsThatDiffer(t *testing.T) {
	f, l := deployed(t, 200)
	web2 := f.Host("web2")
	const shim = "/usr/local/bin/conductor" // before the package's in PATH
	t.Cleanup(func() { web2.Exec("rm", "-f", shim) })
	put := func(line string) {
		web2.Write(shim, "#!/bin/sh\n"+line+"\n")
		web2.Exec("chmod", "755", shim)
	}
	f.describe(t, "strategy: all")
	// As a host answers that speaks the next protocol; and whose session something
	// holds open.
	put(`sed -u '1s/"protocol":1,/"protocol":2,/' | /usr/bin/conductor "$@"`)
	f.run(t, "deploy", "--id", "shop", "--revision", "v2").want(9, "web2: ", "the asking conductor is", "they speak protocol 2 and 1", "bring both to one version").within(30 * time.Second)
	wantRuns(t, f, all("v1 UP")...)
	// As one does that is older, and speaks this one.
	put(`/usr/bin/conductor "$@" | sed -u 's/"version":"[^"]*"/"version":"0.0.1"/'`)
	f.run(t, "deploy", "--id", "shop", "--revision", "v2").want(0, "conductor is 0.0.1")
	wantRuns(t, f, all("v2 UP")...)
	// Neither is there.
	put(`echo "conductor: no command \"session\"" >&2; exit 2`)
	f.run(t, "deploy", "--id", "shop", "--revision", "v1").want(9, "web2", "too old", "install the version there")
	web2.Exec("rm", shim)
	wantRuns(t, f, all("v2 UP")...)
	nothingFailed(t, l)
}

// What a killed deploy leaves at the desk goes with the next one; that of one
// which runs does not.
func TestDeploy_SweepsWhatAKilledOneLeft(t *testing.T) {
	f := Up(t, size)
	f.describe(t, "strategy: all, image: ship")
	f.layered("swept", "v1", 60_000_000)
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	folders := func() (names []string) {
		entries, err := os.ReadDir(tmp)
		must(t, err)
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return names
	}
	u := f.start(t, "deploy", "--id", "shop", "--revision", "swept")
	eventually(t, 30*time.Second, "it has folders for ssh and for layers", func() bool {
		layers, err := filepath.Glob(filepath.Join(tmp, "conductor-ship-*", "layers-*", "*"))
		return err == nil && len(layers) > 0
	})
	running := folders()
	f.run(t, "fleet", "status").want(0) // has one of its own, which goes
	if got := folders(); strings.Join(got, " ") != strings.Join(running, " ") {
		t.Errorf("%q were there of a deploy that runs, now %q are", running, got)
	}
	u.kill()
	if len(folders()) < 2 {
		t.Fatalf("a killed deploy leaves %q, which shows nothing", folders())
	}
	f.run(t, "deploy", "--id", "shop", "--revision", "swept", "--wait").want(0)
	if left := folders(); len(left) > 0 {
		t.Errorf("%q are left", left)
	}
}
