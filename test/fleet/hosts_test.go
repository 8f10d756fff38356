//go:build e2e

package fleet

import (
	"crypto/rand"
	"crypto/sha256"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"conductor/test/load"
)

func TestMain(m *testing.M) { os.Exit(Main(m)) }

// size is how many hosts the fleet of these tests has. script/test has a small
// one, for those tests that need no more.
var size int

func init() { flag.IntVar(&size, "hosts", 4, "how many hosts the fleet has") }

func TestHosts_AreUpEachWithItsOwn(t *testing.T) {
	f := Up(t, size)
	if n := len(f.Hosts()); n != size {
		t.Fatalf("%d hosts, want %d", n, size)
	}
	boots := map[string]string{}
	for _, h := range append(f.Hosts(), f.LB.Host) {
		if got := h.Exec("hostname"); got != h.Name() {
			t.Errorf("%s calls itself %s", h.Name(), got)
		}
		if got := h.Exec("systemctl", "is-system-running"); got != "running" {
			t.Errorf("%s is %s", h.Name(), got)
		}
		for _, what := range []string{"cat /proc/sys/kernel/random/boot_id", "cat /etc/machine-id", "cat /etc/ssh/ssh_host_rsa_key.pub"} {
			got := h.Exec("sh", "-c", what)
			if other, there := boots[got]; there {
				t.Errorf("%s: the same on %s and %s", what, other, h.Name())
			}
			boots[got] = h.Name()
		}
		if got := h.Exec("dpkg-query", "-W", "-f", "${db:Status-Abbrev}", "conductor"); got != "ii " {
			t.Errorf("%s: conductor's package is %q", h.Name(), got)
		}
	}
	for _, h := range f.Hosts() {
		supervisor := h.Exec("systemctl", "show", "-P", "MainPID", "conductor-supervise")
		if got, want := h.Exec("nsenter", "-m", "-t", supervisor, "cat", "/proc/sys/kernel/random/boot_id"), h.Exec("cat", "/proc/sys/kernel/random/boot_id"); got != want {
			t.Errorf("%s: its supervisor sees the boot %s, others see %s", h.Name(), got, want)
		}
		if got := h.Exec("docker", "info", "-f", "{{.Driver}} {{.Containers}}"); got != "overlay2 0" {
			t.Errorf("%s: driver and containers %s", h.Name(), got)
		}
		// It says so with the beats of its watchdog, each 15 s.
		eventually(t, 30*time.Second, h.Name()+"'s supervisor says that it has no services", func() bool {
			return strings.Contains(h.Exec("systemctl", "show", "-P", "StatusText", "conductor-supervise"), "looks after 0 services")
		})
	}
}

func TestSSH_KnowsTheHostsAndNoOther(t *testing.T) {
	f := Up(t, size)
	for _, h := range append(f.Hosts(), f.LB.Host) {
		out, err := h.SSH(f, "whoami; hostname; sudo -n id -u")
		if want := "deploy\n" + h.Name() + "\n0\n"; out != want || err != nil {
			t.Errorf("ssh %s: %q, %v", h.Name(), out, err)
		}
	}
	web1 := f.Host("web1")
	config := []string{"-F", f.SSHConfig(), "-o", "BatchMode=yes"}
	for _, kind := range []string{"ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512"} {
		if out, err := ssh(append(config, "-o", "HostKeyAlgorithms="+kind, web1.IP(), "true")...); err != nil {
			t.Errorf("with a host key of kind %s, by address: %v %s", kind, err, out)
		}
	}
	// Other hosts at that address, as far as ssh can tell.
	known, err := os.ReadFile(filepath.Join(f.Dir, "known_hosts"))
	must(t, err)
	unknown := strings.ReplaceAll(string(known), "web1,"+web1.IP()+" ", "other ")
	changed := strings.ReplaceAll(unknown, "web2,"+f.Host("web2").IP()+" ", "web1,"+web1.IP()+" ")
	for said, text := range map[string]string{"host key is known for " + web1.IP(): unknown, "HOST IDENTIFICATION HAS CHANGED": changed} {
		file := filepath.Join(t.TempDir(), "known_hosts")
		must(t, os.WriteFile(file, []byte(text), 0o600))
		out, err := ssh(append([]string{"-o", "UserKnownHostsFile=" + file}, append(config, "web1", "true")...)...)
		if err == nil || !strings.Contains(out, said) || !strings.Contains(out, "Host key verification failed") {
			t.Errorf("%v %s\nwant: %s", err, out, said)
		}
	}
	key := filepath.Join(t.TempDir(), "key")
	must(t, exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key).Run())
	if out, err := exec.Command("ssh", "-F", "/dev/null", "-o", "UserKnownHostsFile="+filepath.Join(f.Dir, "known_hosts"), "-o", "BatchMode=yes",
		"-o", "IdentityAgent=none", "-i", key, "deploy@"+web1.IP(), "true").CombinedOutput(); err == nil || !strings.Contains(string(out), "Permission denied (publickey)") {
		t.Errorf("another key: %v %s", err, out)
	}
}

func ssh(args ...string) (string, error) {
	out, err := exec.Command("ssh", args...).CombinedOutput()
	return string(out), err
}

func TestBalancer_Socket(t *testing.T) {
	f := Up(t, size)
	if got := f.LB.Ask("show info"); !strings.Contains(got, "Version: 2.6") {
		t.Errorf("show info: %s", got)
	}
	for _, h := range f.Hosts() {
		eventually(t, 10*time.Second, h.Name()+" serves nothing, which its check sees", func() bool { return f.LB.Server(h.Name())["status"] == "DOWN" })
	}
	f.LB.Ask("set server shop/web1 state drain")
	if got := f.LB.Server("web1")["status"]; !strings.HasPrefix(got, "DRAIN") && !strings.HasPrefix(got, "DOWN") {
		t.Errorf("web1 is told to drain and is %s", got)
	}
	if got := f.LB.Ask("set server shop/web1 state nonsense"); !strings.Contains(got, "ready") {
		t.Errorf("a state that is none: %q", got)
	}
	if got := f.LB.Exec("stat", "-c", "%a %U", "/run/haproxy/admin.sock"); got != "660 root" && got != "660 haproxy" {
		t.Errorf("the socket is of mode and owner %s", got)
	}
}

func TestService_DeployedByHandAnswersThroughTheBalancer(t *testing.T) {
	f := Up(t, size)
	deploy(t, f, "v1")
	l := load.Start(t.Context(), load.Config{Addr: f.LB.Addr(), Host: "shop.test", Duration: time.Hour, Rate: 200, RevisionHeader: "X-Revision"})
	eventually(t, 10*time.Second, "the load gets answers", func() bool { return l.Good() > 20 })
	deploy(t, f, "v2")
	r := l.Stop()
	if r.Failed != 0 || r.OK == 0 {
		t.Errorf("%d of %d requests failed:\n%s", r.Failed, r.Sent, r)
	}
	for _, h := range f.Hosts() {
		if n := f.LB.Server(h.Name())["stot"]; n == "0" {
			t.Errorf("%s got no request", h.Name())
		}
		if got := h.Exec("docker", "ps", "-q", "--filter", "label=conductor.service=shop"); len(strings.Fields(got)) != 2 {
			t.Errorf("%s runs %q, want two containers", h.Name(), got)
		}
	}
	// Inside, a container has its limits, and its end for want of memory is told.
	f.Host("web1").Write("/etc/conductor/services/hog.yml", "image: "+f.Repo()+"\nkind: worker\nlimits: {memory: 32m}\nenvironment: {HOG: 256m}\nhealth: {start_timeout: 30s}\n")
	if out, err := f.Host("web1").Try("conductor", "service", "upgrade", "--id", "hog", "--revision", "v1"); err == nil || !strings.Contains(err.Error()+out, "memory") {
		t.Errorf("a service that takes more memory than it may: %v", err)
	}
}

func TestExample_IsValid(t *testing.T) {
	f := Up(t, size)
	if out, err := f.Command("validate", "fleet.yml", "services/shop.yml").CombinedOutput(); err != nil {
		t.Errorf("%v %s", err, out)
	}
}

// deploy upgrades shop on all hosts at once, as a person would on each, and
// waits until the balancer sees it.
func deploy(t *testing.T, f *Fleet, revision string) {
	t.Helper()
	f.Each(func(h *Host) {
		_, err := h.SSH(f, "sudo conductor --output quiet service upgrade --id shop --revision "+revision)
		must(t, err)
	})
	for _, h := range f.Hosts() {
		eventually(t, 10*time.Second, h.Name()+" is up at the balancer", func() bool { return f.LB.Server(h.Name())["status"] == "UP" })
	}
	for range 2 * size {
		if got := ask(t, f); got != revision {
			t.Errorf("the balancer answers with %q, want %s", got, revision)
		}
	}
}

// ask is the revision that answers at the balancer.
func ask(t *testing.T, f *Fleet) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+f.LB.Addr()+"/", nil)
	must(t, err)
	req.Host = "shop.test"
	resp, err := http.DefaultClient.Do(req)
	must(t, err)
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	return resp.Header.Get("X-Revision")
}

func TestImage_ComesFromThisMachine(t *testing.T) {
	f := Up(t, size)
	ref := f.Image("v3")
	web1 := f.Host("web1")
	if out, err := web1.Try("docker", "image", "inspect", ref); err == nil {
		t.Fatalf("%s is there already: %s", ref, out)
	}
	web1.Load(ref)
	here, err := exec.Command("docker", "image", "inspect", "-f", "{{.Id}}", ref).Output()
	must(t, err)
	if there := web1.Exec("docker", "image", "inspect", "-f", "{{.Id}}", ref); there != strings.TrimSpace(string(here)) {
		t.Errorf("image %s there, %s here", there, here)
	}
}

// A host whose systemd had the kernel make hierarchies of control groups would
// keep this machine's engine from telling.
func TestEngine_TellsOfContainersWithoutMemoryBesideTheHosts(t *testing.T) {
	f := Up(t, size)
	ref := f.Image("hog", "HOG=256m")
	name := f.Name + "-hog"
	t.Cleanup(func() { exec.Command("docker", "rm", "-f", name).Run() })
	out, err := exec.Command("docker", "run", "--name", name, "--label", "ct-fleet="+f.Name, "-m", "32m", "--memory-swap", "32m", ref).CombinedOutput()
	if err == nil {
		t.Errorf("it had its memory: %s", out)
	}
	if got, err := exec.Command("docker", "inspect", "-f", "{{.State.OOMKilled}}", name).Output(); err != nil || string(got) != "true\n" {
		t.Errorf("OOMKilled: %s %v", got, err)
	}
}

// answers: web1's sshd says its name within two seconds.
func answers(h *Host) bool {
	c, err := net.DialTimeout("tcp", h.IP()+":22", 2*time.Second)
	if err != nil {
		return false
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(2 * time.Second))
	b := make([]byte, 4)
	_, err = io.ReadFull(c, b)
	return err == nil && string(b) == "SSH-"
}

func TestFault_CutAndJoined(t *testing.T) {
	f := Up(t, size)
	web1 := f.Host("web1")
	for range 2 {
		web1.Cut()
		if answers(web1) {
			t.Fatal("web1 is cut off and answers")
		}
		if _, err := web1.Try("timeout", "1", "bash", "-c", "</dev/tcp/"+f.LB.IP()+"/22"); err == nil {
			t.Fatal("web1 is cut off and reaches lb1")
		}
		if !answers(f.Host("web2")) {
			t.Fatal("web1 is cut off, and web2 does not answer")
		}
		web1.Heal()
		eventually(t, 10*time.Second, "web1 answers again", func() bool { return answers(web1) })
	}
}

func TestFault_Slow(t *testing.T) {
	f := Up(t, size)
	web1 := f.Host("web1")
	const delay = 20 * time.Millisecond
	before := handshake(t, web1)
	t.Logf("scp of 32 MiB takes %s", scp(t, f))
	web1.Slow(delay)
	if got := handshake(t, web1); got < 2*delay || got > 3*delay {
		t.Errorf("a handshake takes %s over a link with %s of delay (%s without)", got, delay, before)
	}
	// Much goes through it, whole, and not slower for its size.
	t.Logf("scp of 32 MiB with %s of delay takes %s", delay, scp(t, f))
	web1.Cut()
	if answers(web1) {
		t.Error("web1 is slow and cut off, and answers")
	}
	web1.Join()
	eventually(t, 10*time.Second, "web1 answers again, slowly", func() bool { return answers(web1) })
	if got := handshake(t, web1); got < 2*delay {
		t.Errorf("joined, a handshake takes %s", got)
	}
	web1.Heal()
	eventually(t, 10*time.Second, "web1 answers again", func() bool { return answers(web1) })
	if got := handshake(t, web1); got >= delay {
		t.Errorf("healed, a handshake takes %s", got)
	}
}

// scp brings 32 MiB to web1, looks whether all is there, and says how long it took.
func scp(t *testing.T, f *Fleet) time.Duration {
	t.Helper()
	data := make([]byte, 32<<20)
	rand.Read(data)
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, data, 0o600))
	at := time.Now()
	if out, err := exec.Command("scp", "-q", "-F", f.SSHConfig(), file, "web1:file").CombinedOutput(); err != nil {
		t.Fatalf("scp: %v %s", err, out)
	}
	took := time.Since(at)
	got := f.Host("web1").Exec("sh", "-euc", "sha256sum <~deploy/file; rm ~deploy/file")
	if want := fmt.Sprintf("%x  -", sha256.Sum256(data)); got != want {
		t.Errorf("what arrived has the sum %s, want %s", got, want)
	}
	return took
}

// handshake is how long a TCP handshake takes, the least of five.
func handshake(t *testing.T, h *Host) time.Duration {
	t.Helper()
	least := time.Hour
	for range 5 {
		at := time.Now()
		c, err := net.DialTimeout("tcp", h.IP()+":22", 5*time.Second)
		must(t, err)
		least = min(least, time.Since(at))
		c.Close()
	}
	return least
}

func TestFault_FullDisk(t *testing.T) {
	f := Up(t, size)
	web1 := f.Host("web1")
	for _, dir := range []string{"/var/lib/docker", "/var/lib/conductor"} {
		web1.Fill(0)
		if out, err := web1.Try("dd", "if=/dev/zero", "of="+dir+"/probe", "bs=64k", "count=1"); err == nil || !strings.Contains(err.Error(), "No space left") {
			t.Errorf("the disk is full, and dd to %s: %v %s", dir, err, out)
		}
		web1.Heal()
		web1.Exec("dd", "if=/dev/zero", "of="+dir+"/probe", "bs=64k", "count=1")
		web1.Exec("rm", dir+"/probe")
	}
	web1.Fill(10 << 20)
	web1.Exec("dd", "if=/dev/zero", "of=/var/lib/docker/probe", "bs=1M", "count=5")
	web1.Exec("rm", "/var/lib/docker/probe")
	if _, err := web1.Try("dd", "if=/dev/zero", "of=/var/lib/docker/probe", "bs=1M", "count=20"); err == nil {
		t.Error("20 MB are written where 10 MB were left")
	}
	web1.Exec("rm", "/var/lib/docker/probe")
}

func TestFault_Processes(t *testing.T) {
	f := Up(t, size)
	web1 := f.Host("web1")
	up := func() bool { _, err := web1.Try("docker", "version"); return err == nil }

	web1.StopDocker()
	if up() {
		t.Error("the engine is stopped and answers")
	}
	web1.Heal()
	if !up() {
		t.Error("the engine is started and does not answer")
	}
	before := web1.Exec("systemctl", "show", "-P", "MainPID", "docker")
	web1.KillDocker()
	eventually(t, 30*time.Second, "systemd starts another engine", func() bool {
		return up() && web1.Exec("systemctl", "show", "-P", "MainPID", "docker") != before
	})

	web1.HangSSH()
	if answers(web1) {
		t.Error("sshd hangs and answers")
	}
	web1.Heal()
	if !answers(web1) {
		t.Error("sshd goes on and does not answer")
	}
}

func TestFault_PowerOff(t *testing.T) {
	f := Up(t, size)
	deploy(t, f, "v1")
	web1 := f.Host("web1")
	boot := web1.Exec("cat", "/proc/sys/kernel/random/boot_id")
	web1.Stop()
	if answers(web1) {
		t.Error("web1 is off and answers")
	}
	eventually(t, 15*time.Second, "the balancer sees it", func() bool { return strings.HasPrefix(f.LB.Server("web1")["status"], "DOWN") })
	if got := ask(t, f); got != "v1" {
		t.Errorf("the others answer with %q", got)
	}
	web1.Start()
	if got := web1.Exec("cat", "/proc/sys/kernel/random/boot_id"); got == boot {
		t.Error("web1 has not booted")
	}
	eventually(t, 30*time.Second, "web1 serves again, and the balancer sees it", func() bool { return f.LB.Server("web1")["status"] == "UP" })
}
