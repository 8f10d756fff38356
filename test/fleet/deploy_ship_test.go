//go:build e2e

package fleet

import (
	"archive/tar"
	"bytes"
	"crypto/rand"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// layered makes a revision on this machine's engine: another one with a layer of
// so many random bytes on top, which do not get smaller on their way.
func (f *Fleet) layered(revision, on string, size int) {
	f.t.Helper()
	data := make([]byte, size)
	rand.Read(data)
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	must(f.t, w.WriteHeader(&tar.Header{Name: "data-" + revision, Mode: 0o644, Size: int64(size), Format: tar.FormatPAX}))
	_, err := w.Write(data)
	must(f.t, err)
	must(f.t, w.Close())
	ref := f.Repo() + ":" + revision
	c, err := output("here", nil, exec.Command("docker", "create", "--label", "ct-fleet="+f.Name, f.Repo()+":"+on))
	must(f.t, err)
	c = strings.TrimSpace(c)
	defer exec.Command("docker", "rm", "-f", c).Run()
	_, err = output("here", layer.Bytes(), exec.Command("docker", "cp", "-", c+":/"))
	must(f.t, err)
	_, err = output("here", nil, exec.Command("docker", "commit", "-c", "ENV REVISION="+revision, c, ref))
	must(f.t, err)
	f.images = append(f.images, ref)
}

// received is how many bytes have come in at each host's interface.
type received []int64

// meters are the hosts' interfaces, seen from this end of their cables.
func (f *Fleet) meters() (links []string) {
	for _, h := range f.Hosts() {
		links = append(links, h.link())
	}
	return links
}

func read(t testing.TB, links []string) (r received) {
	t.Helper()
	for _, link := range links {
		text, err := os.ReadFile("/sys/class/net/" + link + "/statistics/tx_bytes")
		must(t, err)
		n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		must(t, err)
		r = append(r, n)
	}
	return r
}

func (r received) since(before received) (d received) {
	for n := range r {
		d = append(d, r[n]-before[n])
	}
	return d
}

// What a host has does not travel: of an image of 200 MB a changed layer of 2 MB
// alone, to all hosts at once.
func TestDeploy_ShipsChangedLayersAlone(t *testing.T) {
	const large, small, most = 198_000_000, 2_000_000, 2_200_000
	f := Up(t, size)
	f.describe(t, "strategy: all, image: ship")
	f.layered("base", "v1", large)
	f.layered("big1", "base", small)
	f.layered("big2", "base", small)
	links := f.meters()

	before := read(t, links)
	u := f.start(t, "deploy", "--id", "shop", "--revision", "big1")
	some, last := make([]time.Duration, size), make([]time.Duration, size) // when 5% and 95% of it had come to each
	for running := true; running; time.Sleep(10 * time.Millisecond) {
		select {
		case <-u.ended:
			running = false
		default:
		}
		for n, got := range read(t, links).since(before) {
			if some[n] == 0 && got > large/20 {
				some[n] = time.Since(u.began)
			}
			if last[n] == 0 && got > large*19/20 {
				last[n] = time.Since(u.began)
			}
		}
	}
	r := u.wait().want(0)
	t.Logf("200 MB to each of %d hosts: %s, deployed; bytes to each: %v", size, r.took.Round(time.Millisecond), read(t, links).since(before))
	if slices.Contains(some, 0) || slices.Contains(last, 0) || slices.Max(some) > slices.Min(last) {
		t.Errorf("not at once: the first of it was there after %v, the last after %v", some, last)
	}

	before = read(t, links)
	r = f.run(t, "deploy", "--id", "shop", "--revision", "big2").want(0)
	got := read(t, links).since(before)
	t.Logf("with another layer of 2 MB: %s; bytes to each: %v", r.took.Round(time.Millisecond), got)
	for n, bytes := range got {
		if bytes > most || bytes < small {
			t.Errorf("%d bytes have come to host %d, want %d to %d", bytes, n+1, small, most)
		}
	}
	ids := map[string]bool{}
	for _, h := range f.Hosts() {
		ids[h.Exec("docker", "image", "inspect", "-f", "{{.ID}}", f.Repo()+":big2")] = true
	}
	if len(ids) != 1 {
		t.Errorf("the hosts have the images %v", ids)
	}
	wantRuns(t, f, all("big2 UP")...)
}

// What a host has received when a shipping is broken off does not travel again:
// neither when the host was cut off, nor when the deploy was killed.
func TestDeploy_ShippingBrokenOff(t *testing.T) {
	const large, beside = 200_000_000, 1_500_000 // what else a deploy says to a host
	f := Up(t, size)
	f.describe(t, "strategy: all, image: ship")
	f.layered("huge", "v1", large)
	links := f.meters()
	before := read(t, links)
	u := f.start(t, "deploy", "--id", "shop", "--revision", "huge")
	has := func(host int, bytes int64) func() bool {
		return func() bool { return read(t, links).since(before)[host] > bytes }
	}
	eventually(t, time.Minute, "a part has come to web2", has(1, large/5))
	f.Host("web2").Cut()
	eventually(t, time.Minute, "half has come to web1", has(0, large/2))
	u.kill()
	f.Host("web2").Join()
	first := read(t, links).since(before)
	began := time.Now()
	kept := f.kept()
	t.Logf("broken off after %s with %v bytes at each interface, of which each host keeps %v", time.Since(u.began).Round(time.Millisecond), first, kept)

	before = read(t, links)
	r := f.run(t, "deploy", "--id", "shop", "--revision", "huge").want(0)
	second := read(t, links).since(before)
	t.Logf("the rest: %s; bytes to each: %v", time.Since(began).Round(time.Millisecond), second)
	for n := range size {
		if lost := first[n] - kept[n]; lost > 24<<20 { // on its way, and in the buffers of both ends
			t.Errorf("of %d bytes that have come to host %d it keeps %d", first[n], n+1, kept[n])
		}
		if missing := large - kept[n]; second[n] > missing*103/100+beside {
			t.Errorf("host %d lacked %d bytes, and %d have come to it: %s", n+1, missing, second[n], r)
		}
	}
	wantRuns(t, f, all("huge UP")...)
}

// kept is how much of layers the hosts have that is not in their engines, once
// nothing is added to it any more.
func (f *Fleet) kept() (all received) {
	f.t.Helper()
	look := func() (r received) {
		for _, h := range f.Hosts() {
			n, err := strconv.ParseInt(h.Exec("sh", "-euc", "cat /var/lib/conductor/incoming/*.part /var/lib/conductor/incoming/*.layer 2>/dev/null | wc -c"), 10, 64)
			must(f.t, err)
			r = append(r, n)
		}
		return r
	}
	eventually(f.t, 20*time.Second, "the hosts have taken in what came", func() bool {
		was := all
		all = look()
		busy := false
		for n := range all {
			busy = busy || was == nil || was[n] != all[n]
		}
		return !busy
	})
	return all
}
