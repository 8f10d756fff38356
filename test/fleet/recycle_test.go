//go:build e2e

package fleet

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// rust gives the host a package of which there is a newer version in its only
// source, and whose configuration somebody has changed.
func (h *Host) rust() {
	h.t.Helper()
	h.t.Cleanup(func() {
		h.Exec("sh", "-euc", "dpkg --purge rust >/dev/null; rm -rf /srv/packages /etc/apt/sources.list; mv /etc/apt/sources.list.was /etc/apt/sources.list")
	})
	h.Exec("sh", "-euc", `
		mkdir -p /srv/packages/rust/DEBIAN /srv/packages/rust/etc
		cd /srv/packages
		for v in 1 2; do
			printf 'Package: rust\nVersion: %s\nArchitecture: all\nMaintainer: Nobody <nobody@localhost>\nDescription: grows old\n' $v >rust/DEBIAN/control
			echo /etc/rust.conf >rust/DEBIAN/conffiles
			echo version $v >rust/etc/rust.conf
			dpkg-deb --root-owner-group --build rust rust_$v.deb >/dev/null
		done
		rm -r rust
		dpkg -i rust_1.deb >/dev/null
		echo mine >>/etc/rust.conf
		{ dpkg-deb -f rust_2.deb; echo "Filename: ./rust_2.deb"; echo "Size: $(stat -c %s rust_2.deb)"; echo "SHA256: $(sha256sum rust_2.deb | cut -d' ' -f1)"; } >Packages
		[ -e /etc/apt/sources.list.was ] || mv /etc/apt/sources.list /etc/apt/sources.list.was
		echo 'deb [trusted=yes] file:/srv/packages ./' >/etc/apt/sources.list`)
}

// fresh fails the test unless the host has the newer package, the changed
// configuration, and other instances than before.
func (h *Host) fresh(before string) {
	h.t.Helper()
	if got := h.Exec("sh", "-euc", "dpkg-query -W -f '${Version}' rust; echo; cat /etc/rust.conf"); got != "2\nversion 1\nmine" {
		h.t.Errorf("%s has %q", h.Name(), got)
	}
	after := h.instances()
	for id := range strings.Lines(before) {
		if strings.Contains(after, strings.TrimSpace(id)) {
			h.t.Errorf("%s has an instance of before: %s", h.Name(), id)
		}
	}
	if strings.Count(after, "\n") != strings.Count(before, "\n") {
		h.t.Errorf("%s has the instances\n%s\nand had\n%s", h.Name(), after, before)
	}
}

func (h *Host) instances() string {
	h.t.Helper()
	return h.Exec("docker", "ps", "-q", "--no-trunc", "--filter", "label=conductor.service=shop")
}

// Each host has its turn, and no request fails: not when one is refused for want
// of a spare, nor when one breaks in the middle, nor when it is rebooted.
func TestRecycle(t *testing.T) {
	f, l := deployed(t, 500)
	web1, web2 := f.Host("web1"), f.Host("web2")
	web1.rust()
	web2.rust()

	f.run(t, "fleet", "recycle", "--plan").want(0, "web1", "it was never recycled", "packages", "shop are replaced", "admit")
	before := web1.instances()
	r := f.run(t, "fleet", "recycle").want(0, "web1: recycled")
	t.Logf("recycled in %s\n%s", r.took.Round(time.Millisecond), r.stdout)
	web1.fresh(before)
	wantRuns(t, f, all("v1 UP")...)

	f.run(t, "fleet", "drain", "web3").want(0)
	f.run(t, "fleet", "recycle").want(5, "recycle web2", "web3 is out of the balancer")
	wantRuns(t, f, "v1 UP", "v1 UP", "v1 MAINT", "v1 UP")
	f.run(t, "fleet", "admit", "web3").want(0)
	file := filepath.Join(f.Dir, "fleet.yml")
	was, err := os.ReadFile(file)
	must(t, err)
	must(t, os.WriteFile(file, []byte(strings.Replace(string(was), "on: [web]", "on: [web2]", 1)), 0o644))
	f.run(t, "fleet", "recycle", "--hosts", "web2").want(5, "it is the only host of shop")
	must(t, os.WriteFile(file, was, 0o644))

	// Its source of packages is away.
	web2.Exec("mv", "/srv/packages", "/srv/away")
	f.run(t, "fleet", "recycle").want(9, "recycle web2: packages", "apt-get update", "is out of the balancer, and stays out", "takes web2 first")
	wantRuns(t, f, "v1 UP", "v1 DRAIN", "v1 UP", "v1 UP")
	f.run(t, "fleet", "recycle", "--hosts", "web3").want(5, "web2 is out of the balancer")
	web2.Exec("mv", "/srv/away", "/srv/packages")

	before = web2.instances()
	booted := make(chan error, 1)
	go func() { // a container that reboots ends, and somebody has to start it
		err := exec.Command("docker", "wait", web2.container).Run()
		if err == nil {
			err = exec.Command("docker", "start", web2.container).Run()
		}
		booted <- err
	}()
	r = f.run(t, "fleet", "recycle", "--reboot").want(0, "broken off", "rebooted", "web2: recycled")
	must(t, <-booted)
	t.Logf("with a reboot in %s\n%s", r.took.Round(time.Millisecond), r.stdout)
	web2.fresh(before)
	wantRuns(t, f, all("v1 UP")...)
	f.run(t, "fleet", "recycle", "--plan").want(0, "web3")
	nothingFailed(t, l)
}

// The package that the program makes of itself is that of script/package.
func TestPackage_IsTheSame(t *testing.T) {
	f := Up(t, size)
	file := filepath.Join(t.TempDir(), "conductor.deb")
	f.run(t, "package", file).want(0)
	if out, err := exec.Command("cmp", file, filepath.Join(f.Dir, "conductor.deb")).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
