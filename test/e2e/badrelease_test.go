//go:build e2e

package e2e

import (
	"encoding/json"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"conductor/test/load"
)

// badRelease is a release that cannot become healthy.
type badRelease struct {
	name  string
	env   []string // of its image
	def   Def      // of the service, from the first release on
	bad   Def      // changed together with the release
	words []string // the cause, and what to do about it
}

// startTimeout is what the services of these tests have.
const startTimeout = 2 * time.Second

// A release whose process ends is given up within a second of that.
func TestBadRelease_ThatEndsIsGivenUpAtOnce(t *testing.T) {
	for _, b := range []badRelease{
		{
			name: "exits at once", env: []string{"EXIT_AT_START=3"},
			words: []string{"exited 3", "cannot reach the database at db.internal:5432"},
		}, {
			name: "out of memory", env: []string{"HOG=128m"}, def: Def{"limits": "{memory: 32m}"},
			words: []string{"out of memory", "limits.memory", "32 MiB"},
		}, {
			name: "lacks its command", bad: Def{"command": "[bin/no-such-server, --port, '8080']"},
			words: []string{"bin/no-such-server", "set command to one that the image has"},
		}, {
			name: "lacks its command, without init", def: Def{"init": "false"},
			bad:   Def{"command": "[bin/no-such-server, --port, '8080']"},
			words: []string{"bin/no-such-server", "set command to one that the image has"},
		},
	} {
		t.Run(b.name, func(t *testing.T) {
			// Not beside others: it measures how long something takes.
			b.test(t, func(e *Env, r Run, ended time.Time) {
				died := e.lastDeath(r.Find("created").Time)
				if died.IsZero() { // it never ran: the engine refused its start
					died = r.Find("failed").Time
				}
				took := ended.Sub(died)
				if took > time.Second {
					t.Errorf("given up %s after its process ended, want at most 1s: %s", took, r)
				}
				t.Logf("given up %s after its process ended", took.Round(time.Millisecond))
			})
		})
	}
}

// A release that runs and does not become healthy is given up at start_timeout.
func TestBadRelease_ThatIsNotHealthyIsGivenUpAtStartTimeout(t *testing.T) {
	for _, b := range []badRelease{
		{
			name: "never listens", env: []string{"LISTEN=none"},
			words: []string{"connection refused", "listens on nothing"},
		}, {
			name: "another port", env: []string{"PORT=3000"},
			words: []string{"connection refused", "the container listens on ", ":3000: set http.port: 3000"},
		}, {
			name: "loopback only", env: []string{"LISTEN=127.0.0.1"},
			words: []string{"connection refused", "listens on 127.0.0.1:8080 only", "bind 0.0.0.0"},
		}, {
			name: "answers 500", env: []string{"STATUS=500"},
			words: []string{"GET :8080/health", "500", "undefined method 'name' for nil"},
		}, {
			name: "redirects", env: []string{"REDIRECT=https://shop.example.com/health"},
			words: []string{"301", "https://shop.example.com/health", "health.headers"},
		},
	} {
		t.Run(b.name, func(t *testing.T) {
			// Not beside others: it measures how long something takes.
			b.test(t, func(_ *Env, r Run, _ time.Time) {
				took := r.Find("failed").Time.Sub(r.Find("started").Time)
				if took < startTimeout-50*time.Millisecond || took > startTimeout+time.Second {
					t.Errorf("given up %s after its start, want start_timeout, %s: %s", took, startTimeout, r)
				}
				t.Logf("given up %s after its start", took.Round(time.Millisecond))
			})
		})
	}
}

// test upgrades to the bad release under load: exit 5, the cause named, and
// all is as it was, throughout.
func (b badRelease) test(t *testing.T, check func(e *Env, r Run, ended time.Time)) {
	e := New(t)
	e.Image("v1")
	e.Image("v2", b.env...)
	def := Def{
		"health":  "{path: /health, interval: 500ms, start_timeout: " + startTimeout.String() + "}",
		"secrets": "{TOKEN: {file: " + e.Path("token") + ", as: file}}",
	}
	for k, v := range b.def {
		def[k] = v
	}
	e.write("token", "s3cret-token")
	addr := e.Web("shop", def)
	def["http"] = "{port: 8080, listen: '" + addr + "'}"
	e.Upgrade("shop", "v1").Want(0)
	for k, v := range b.bad {
		def[k] = v
	}
	e.Web("shop", def)
	before := e.Snapshot()
	l := e.Load(load.Config{Addr: addr, Rate: 200})

	r := e.Upgrade("shop", "v2")
	ended := time.Now()
	r.Want(5, b.words...)
	if n := len(e.Containers("shop")); n != 2 {
		t.Errorf("%d containers are left, want 2", n)
	}
	e.Unchanged(before)
	res := e.NoFailures(l)
	if len(res.Revisions) != 1 || res.Revisions[0].Name != "v1" {
		t.Errorf("answers came from %+v, want v1 alone", res.Revisions)
	}
	for _, w := range b.words {
		if !strings.Contains(r.Stderr, w) {
			t.Errorf("stderr does not say %q: %s", w, r)
		}
		f := r.Find("failed")
		if f == nil || !strings.Contains(f.Cause+f.Detail+r.Result.Hint, w) {
			t.Errorf("the events do not say %q: %s", w, r)
		}
	}
	if r.Result == nil || *r.Result.OK || r.Result.Code != 5 || r.Result.Hint == "" {
		t.Errorf("the result is not a failure with exit code 5 and a hint: %s", r)
	}
	check(e, r, ended)

	// It is not tried again, and its last words stay in the history.
	e.Do("converge")
	e.Unchanged(before)
	if h := e.Conductor("service", "history", "--id", "shop").Want(0, "v2", "did not become healthy"); len(h.Stdout) == 0 {
		t.Errorf("no history: %s", h)
	}
}

// lastDeath is when the engine saw the last process of this namespace's
// containers end since a time; zero: none did.
func (e *Env) lastDeath(since time.Time) time.Time {
	e.t.Helper()
	filters, err := json.Marshal(map[string][]string{
		"type": {"container"}, "event": {"die"}, "label": {"conductor.namespace=" + e.Namespace},
	})
	must(e.t, err)
	var out []byte
	must(e.t, e.Engine.Do(e.ctx(), "GET", "/events", url.Values{
		"since": {strconv.FormatInt(since.Unix(), 10)}, "until": {strconv.FormatInt(time.Now().Unix()+1, 10)},
		"filters": {string(filters)},
	}, nil, &out))
	var last time.Time
	for line := range strings.Lines(string(out)) {
		var ev struct {
			Nano  int64 `json:"timeNano"`
			Actor struct {
				Attributes map[string]string
			}
		}
		must(e.t, json.Unmarshal([]byte(line), &ev))
		if at := time.Unix(0, ev.Nano); at.After(last) && at.After(since) && ev.Actor.Attributes["conductor.revision"] == "v2" {
			last = at
		}
	}
	return last
}
