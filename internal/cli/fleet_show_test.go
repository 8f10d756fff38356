package cli

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"conductor/internal/balancer"
	"conductor/internal/fleet"
	"conductor/internal/remote"
)

// said is a transport whose hosts say a word, and end with these exit codes.
type said map[string]int

func (s said) Do(_ context.Context, h remote.Host, _ remote.Request, streams remote.Streams) error {
	_, _ = io.WriteString(streams.Stderr, "a word") // the end of a line is not owed
	if code := s[h.Name]; code != 0 {
		return &remote.ExitError{Host: h.Name, Code: code, Stderr: "a word"}
	}
	return nil
}

func (said) Close() error { return nil }

func TestFleetExec_EndsWithTheCommandsOwnExitCode(t *testing.T) {
	file := filepath.Join(t.TempDir(), "fleet.yml")
	if err := os.WriteFile(file, []byte("hosts: {web1: {}, web2: {}, web3: {}}\nservices:\n  shop: {on: [web1, web2, web3]}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	code := Main(t.Context(), []string{"fleet", "exec", "--fleet", file, "--id", "shop", "bin/check"}, Env{
		Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs, Getenv: func(string) string { return "" }, Name: "conductor",
		OpenFleet: func(FleetSetup) (*FleetParts, error) {
			at := map[string]remote.Host{}
			for _, name := range []string{"web1", "web2", "web3"} {
				at[name] = remote.Host{Name: name, SSH: name}
			}
			return &FleetParts{Transport: said{"web2": 126, "web3": 2}, At: at}, nil
		},
	})
	if code != 126 || out.Len() > 0 {
		t.Errorf("exit code %d, stdout %q", code, &out)
	}
	for _, line := range []string{"web1 | a word\n", "web2 | a word\nweb2 | exit code 126\n", "web3 | a word\nweb3 | exit code 2\n"} {
		for part := range strings.Lines(line) {
			if strings.Count(errs.String(), part) != 1 {
				t.Errorf("want %q once:\n%s", part, &errs)
			}
		}
	}
	if strings.Contains(errs.String(), "conductor:") {
		t.Errorf("it is told as a failure of conductor:\n%s", &errs)
	}
}

// What is told of one host takes nothing of what is told of all.
func TestFleetTable_LongNotesHideNoColumn(t *testing.T) {
	long := strings.Repeat("a long story ", 20)
	in := &balancer.Server{In: true, Up: true}
	table := fleetTable([]hostStatus{
		{Host: "web1", Service: "shop", Server: in, Error: long + "\nand its end"},
		{Host: "web2", Service: "shop", Server: in, Seen: &fleet.Seen{Live: "v1", State: "running", Definition: "d", Holder: "alice@laptop", Troubles: []string{long}}},
	})
	table.Width = 80
	var b bytes.Buffer
	if err := table.Write(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"SERVICE  HOST  RUNS  STATE    BALANCER\n", "shop     web1  ?     unknown  in\n   a long story", "shop     web2  v1    running  in\n   a deploy by alice@laptop is under way\n   a long story",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("want %q in\n%s", want, &b)
		}
	}
}
