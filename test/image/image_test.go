package image

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// fake is an engine that keeps what it was sent.
func fake(t *testing.T, answer string) (*Engine, *[]string) {
	t.Helper()
	var calls []string
	// A unix socket's path is short; a test's folder need not be.
	dir, err := os.MkdirTemp("", "image")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		calls = append(calls, r.Method+" "+r.URL.String()+"\n"+string(b))
		io.WriteString(w, answer)
	}))
	s.Listener.Close()
	s.Listener = l
	s.Start()
	t.Cleanup(s.Close)
	return NewEngine(l.Addr().String()), &calls
}

func TestEngine_ImportQuotesValues(t *testing.T) {
	e, calls := fake(t, `{"status":"sha256:1"}`)
	i := Image{Binary: binary(t), Env: map[string]string{"B": `a "b" $c \d`, "A": "1"}, Labels: map[string]string{"l": "x"}}
	if err := e.Import(t.Context(), "x:5000/app:v2", i); err != nil {
		t.Fatal(err)
	}
	path, _, _ := strings.Cut(strings.Fields((*calls)[0])[1], "\n")
	u, err := url.Parse(path)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{`CMD ["/app"]`, `ENV A="1"`, `ENV B="a \"b\" \$c \\d"`, `LABEL l="x"`}
	if got := u.Query()["changes"]; !slices.Equal(got, want) {
		t.Errorf("changes %q, want %q", got, want)
	}
	if u.Query().Get("repo") != "x:5000/app" || u.Query().Get("tag") != "v2" {
		t.Errorf("sent %s", u)
	}
}

// binary is a file that stands for a binary.
func binary(t *testing.T) string {
	f := filepath.Join(t.TempDir(), "app")
	if err := os.WriteFile(f, []byte("binary"), 0o755); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestEngine_ErrorInTheStream(t *testing.T) {
	e, _ := fake(t, `{"status":"importing"}`+"\n"+`{"error":"no space left on device"}`)
	err := e.Import(t.Context(), "x/app:v2", Image{Binary: binary(t)})
	if err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("error %v", err)
	}
	if err := e.Import(t.Context(), "no-tag", Image{Binary: binary(t)}); err == nil {
		t.Error("an image without a tag was imported")
	}
}

func TestEngine_Tags(t *testing.T) {
	b, err := json.Marshal([]map[string]any{{"RepoTags": []string{"ct-a/app:1", "other:1"}}, {"RepoTags": nil}})
	if err != nil {
		t.Fatal(err)
	}
	e, _ := fake(t, string(b))
	tags, err := e.Tags(t.Context(), "ct-a/")
	if err != nil || len(tags) != 1 || tags[0] != "ct-a/app:1" {
		t.Errorf("tags %v, error %v", tags, err)
	}
}
