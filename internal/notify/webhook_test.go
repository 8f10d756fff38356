package notify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"conductor/internal/fault"
	"conductor/internal/spec"
)

// posted is a server that keeps what it gets.
type posted struct {
	*httptest.Server
	requests []string // method, path, user and type
	bodies   []string
}

func newPosted(t *testing.T, answer http.HandlerFunc) *posted {
	p := &posted{}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		user, password, _ := r.BasicAuth()
		p.requests = append(p.requests, fmt.Sprint(r.Method, " ", r.URL, " ", user, password, " ", r.Header.Get("Content-Type")))
		p.bodies = append(p.bodies, string(b))
		answer(w, r)
	}))
	t.Cleanup(p.Close)
	return p
}

func answers(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

func TestWebhook_PostsTheDocumentedSchema(t *testing.T) {
	p := newPosted(t, answers(http.StatusNoContent))
	m := message(of("shop", Sick, "503 <busy>"), Change{Host: "h1", Service: "shop", Job: "nightly", Kind: Recovered})
	m.Lines[1].Was, m.Lines[1].Since, m.Lines[1].Times = FailedRun, noon.Add(-time.Hour), 2
	m.Lost = 3
	if err := NewWebhook("ops", spec.HiddenURL{URL: p.URL + "/hook?token=t"}).Send(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"POST /hook?token=t  application/json"}, p.requests); d != "" {
		t.Error(d)
	}
	var got, want any
	if err := json.Unmarshal([]byte(p.bodies[0]), &got); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(`{
		"version": 1, "id": "ID1", "time": "2026-03-01T12:00:00Z", "lost": 3,
		"subject": "h1: shop is sick, shop nightly has recovered",
		"text": "12:00:00 shop (v1) is sick: 503 <busy>\n12:00:00 shop nightly has recovered, had failed for 1h\n3 changes before these could not be told\n",
		"changes": [
			{"time": "2026-03-01T12:00:00Z", "host": "h1", "service": "shop", "revision": "v1", "kind": "sick", "text": "503 <busy>", "times": 1},
			{"time": "2026-03-01T12:00:00Z", "host": "h1", "service": "shop", "job": "nightly", "kind": "recovered",
				"was": "failed-run", "since": "2026-03-01T11:00:00Z", "times": 2}
		]}`), &want); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestSlack_PostsText(t *testing.T) {
	p := newPosted(t, answers(http.StatusOK))
	if err := NewSlack("team", spec.HiddenURL{URL: strings.Replace(p.URL, "//", "//me:pw@", 1)}).Send(t.Context(), message(of("shop", Sick, "a < b"))); err != nil {
		t.Fatal(err)
	}
	var got map[string]string
	if err := json.Unmarshal([]byte(p.bodies[0]), &got); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(map[string]string{"text": "h1: shop (v1) is sick: a &lt; b"}, got); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"POST / mepw application/json"}, p.requests); d != "" {
		t.Error(d)
	}
}

func TestWebhook_ReadsItsURLAnew(t *testing.T) {
	p := newPosted(t, answers(http.StatusOK))
	file := filepath.Join(t.TempDir(), "url")
	target := NewWebhook("ops", spec.HiddenURL{File: file})
	if err := target.Send(t.Context(), message(of("a", Sick))); !errors.Is(err, fault.ErrHost) || !strings.Contains(fault.Hint(err), file) {
		t.Errorf("err = %v", err)
	}
	for _, path := range []string{"/one\n", "/two\r\n"} {
		if err := os.WriteFile(file, []byte(p.URL+path), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := target.Send(t.Context(), message(of("a", Sick))); err != nil {
			t.Error(err)
		}
	}
	if d := cmp.Diff([]string{"POST /one  application/json", "POST /two  application/json"}, p.requests); d != "" {
		t.Error(d)
	}
}

// Nothing that fails shows more of the URL than scheme and host, whatever the
// other side answers.
func TestWebhook_HidesItsURL(t *testing.T) {
	second := newPosted(t, answers(http.StatusOK))
	echo := func(code int, location func(r *http.Request) string) *posted {
		return newPosted(t, func(w http.ResponseWriter, r *http.Request) {
			if location != nil {
				w.Header().Set("Location", location(r))
			}
			w.WriteHeader(code)
			_, _ = io.WriteString(w, r.URL.String()+r.Header.Get("Authorization"))
		})
	}
	closed := httptest.NewServer(nil)
	closed.Close()
	hijacked := newPosted(t, func(w http.ResponseWriter, r *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			_, _ = io.WriteString(c, r.URL.String()+" is no HTTP\r\n")
			_ = c.Close()
		}
	})
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	file := filepath.Join(t.TempDir(), "url")
	if err := os.WriteFile(file, []byte("secret1 https://h/secret2"), 0o600); err != nil {
		t.Fatal(err)
	}
	on := func(base string) spec.HiddenURL {
		return spec.HiddenURL{URL: strings.Replace(base, "//", "//secret0:secret1@", 1) + "/secret2?secret3=secret4#secret5"}
	}
	for name, c := range map[string]struct {
		ctx  context.Context
		url  spec.HiddenURL
		want string
	}{
		"not found": {url: on(echo(404, nil).URL), want: "answered 404 Not Found"},
		"error":     {url: on(echo(500, nil).URL), want: "answered 500 Internal Server Error"},
		"unknown":   {url: on(echo(599, nil).URL), want: "answered 599"},
		"redirect": {url: on(echo(302, func(r *http.Request) string { return second.URL + r.URL.String() }).URL),
			want: "answered 302 Found, and redirects are not followed"},
		"bad redirect": {url: on(echo(307, func(r *http.Request) string { return "http://%zz" + r.URL.String() }).URL), want: "answered 307"},
		"closed":       {url: on(closed.URL), want: "connection refused"},
		"ended":        {ctx: ended, url: on(second.URL), want: "context canceled"},
		"no HTTP":      {url: on(hijacked.URL), want: "does not answer as an HTTP server does"},
		"no URL":       {url: spec.HiddenURL{File: file}, want: "what " + file + " has is no URL"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := c.ctx
			if ctx == nil {
				ctx = t.Context()
			}
			err := NewWebhook("ops", c.url).Send(ctx, message(of("a", Sick)))
			if err == nil || !strings.Contains(err.Error(), "notify ops: ") || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("err = %v, want %s", err, c.want)
			}
			if strings.Contains(fmt.Sprintf("%+v", err)+fault.Hint(err), "secret") {
				t.Error(err, fault.Hint(err))
			}
			if fault.Hint(err) == "" {
				t.Error("no hint")
			}
		})
	}
	if len(second.requests) > 0 {
		t.Errorf("a redirect was followed: %q", second.requests)
	}
}

func TestWebhook_WaitsNoLongerThanItMay(t *testing.T) {
	release := make(chan struct{})
	p := newPosted(t, func(http.ResponseWriter, *http.Request) { <-release })
	t.Cleanup(func() { close(release) }) // before the server's
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	begun := time.Now()
	err := NewWebhook("ops", spec.HiddenURL{URL: p.URL}).Send(ctx, message(of("a", Sick)))
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) > 5*time.Second {
		t.Errorf("err = %v after %s", err, time.Since(begun))
	}
}
