package crond

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"conductor/internal/fault"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestCrontabs_InstallReadRemove(t *testing.T) {
	c := Crontabs{Dir: t.TempDir(), Namespace: "conductor"}
	const text = "MAILTO=ops\n* * * * * root x\n"
	for range 2 { // nothing is there to remove, and nothing more
		must(t, c.Remove("shop"))
	}
	if got, err := c.Read("shop"); got != "" || err != nil {
		t.Errorf("read %q, %v before there is one", got, err)
	}
	for _, want := range []string{"# older\n", text} {
		must(t, c.Install("shop", want))
		if got, err := c.Read("shop"); got != want || err != nil {
			t.Errorf("read %q, %v, want %q", got, err, want)
		}
	}
	info, err := os.Stat(c.Path("shop"))
	if err != nil || info.Mode() != 0o644 {
		t.Errorf("%v, %v", info, err)
	}
	b, err := os.ReadFile(c.Path("shop"))
	must(t, err)
	if !strings.HasSuffix(string(b), "\n"+text) || !strings.HasPrefix(string(b), "# Jobs of shop") {
		t.Errorf("the file is\n%s", b)
	}
	must(t, c.Remove("shop"))
	if left, _ := os.ReadDir(c.Dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// A file that somebody has edited is another one, and is replaced.
func TestCrontabs_EditedFilesAreNotWhatWasInstalled(t *testing.T) {
	c := Crontabs{Dir: t.TempDir(), Namespace: "conductor"}
	const text = "* * * * * root x\n"
	for _, edit := range []func(string) string{
		func(s string) string { return s + "* * * * * root y\n" },
		func(s string) string { return strings.Replace(s, "Do not edit", "I did edit", 1) },
		func(s string) string { return "" + s[:len(s)-3] },
	} {
		must(t, c.Install("shop", text))
		b, err := os.ReadFile(c.Path("shop"))
		must(t, err)
		must(t, os.WriteFile(c.Path("shop"), []byte(edit(string(b))), 0o644))
		if got, err := c.Read("shop"); got == text || got == "" || err != nil {
			t.Errorf("read %q, %v", got, err)
		}
	}
}

func TestCrontabs_LeaveTheFilesOfOthers(t *testing.T) {
	c := Crontabs{Dir: t.TempDir(), Namespace: "conductor"}
	const theirs = "* * * * * root theirs\n"
	must(t, os.WriteFile(c.Path("shop"), []byte(theirs), 0o644))
	_, err := c.Read("shop")
	for _, err := range []error{err, c.Check("shop"), c.Install("shop", "x"), c.Remove("shop")} {
		if !errors.Is(err, fault.ErrHost) || !strings.Contains(err.Error(), c.Path("shop")) {
			t.Errorf("got %v", err)
		}
	}
	if b, err := os.ReadFile(c.Path("shop")); string(b) != theirs {
		t.Errorf("now it is %q, %v", b, err)
	}
	missing := Crontabs{Dir: filepath.Join(c.Dir, "none"), Namespace: "conductor"}
	if err := missing.Check("shop"); !errors.Is(err, fault.ErrHost) || !strings.Contains(err.Error(), "cron_dir") && !strings.Contains(fault.Hint(err), "cron_dir") {
		t.Errorf("without the folder: %v", err)
	}
	must(t, missing.Remove("shop"))
}

// Cron compares times in whole seconds: no two states of the folder, and no two
// files of a service, have the same.
func TestCrontabs_CronSeesEveryChange(t *testing.T) {
	c := Crontabs{Dir: t.TempDir(), Namespace: "conductor"}
	second := func(path string) int64 {
		info, err := os.Stat(path)
		must(t, err)
		return info.ModTime().Unix()
	}
	folder, file := map[int64]bool{}, map[int64]bool{}
	for range 3 {
		must(t, c.Install("shop", "* * * * * root x\n"))
		if s := second(c.Path("shop")); file[s] {
			t.Errorf("two crontabs are of %d", s)
		} else {
			file[s] = true
		}
		if s := second(c.Dir); folder[s] {
			t.Errorf("the folder was of %d before", s)
		} else {
			folder[s] = true
		}
		must(t, c.Remove("shop"))
		if s := second(c.Dir); folder[s] {
			t.Errorf("the folder was of %d before", s)
		} else {
			folder[s] = true
		}
	}
}

// Debian's cron reads a file whose name has no other characters; the names of
// no two services are the same.
func TestCrontabs_NamesAreTakenByCronAndUnambiguous(t *testing.T) {
	ids := []string{"a", "b", "a-b", "a_b", "gocardless_app_production", "conductor", "b-a"}
	seen := map[string]string{}
	for _, ns := range append(ids, "conductor-a") {
		for _, id := range ids {
			name := filepath.Base(Crontabs{Dir: "/etc/cron.d", Namespace: ns}.Path(id))
			if !regexp.MustCompile(`^[A-Za-z0-9_-]+$`).MatchString(name) {
				t.Errorf("cron passes over %s", name)
			}
			if other, taken := seen[name]; taken {
				t.Errorf("%s is of %s and of %s/%s", name, other, ns, id)
			}
			seen[name] = ns + "/" + id
		}
	}
	if n := (Crontabs{Dir: "/etc/cron.d", Namespace: "conductor"}).Path("shop"); n != "/etc/cron.d/conductor-shop" {
		t.Error(n)
	}
}

func TestZoneOf(t *testing.T) {
	for environ, want := range map[string]string{
		"PATH=/bin\x00TZ=Europe/Berlin\x00":     "Europe/Berlin",
		"TZ=:America/New_York\x00":              "America/New_York",
		"TZ=/usr/share/zoneinfo/Asia/Tokyo\x00": "Asia/Tokyo",
		"TZ=Nowhere/Land\x00":                   "UTC",
		"TZ=\x00":                               "UTC",
		"X=TZ=Asia/Tokyo\x00":                   hostZone().String(),
	} {
		if got := zoneOf([]byte(environ)).String(); got != want {
			t.Errorf("%q: %s, want %s", environ, got, want)
		}
	}
}
