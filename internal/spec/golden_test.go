package spec

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"conductor/internal/fault"
)

var update = flag.Bool("update", false, "write the problems found into the files of testdata")

// The files under testdata/invalid, testdata/config/invalid*.yml and
// testdata/fleet/invalid*.yml have the problems that are expected of them as
// comments at their end: line:column: message, and the hint below.

const expectation = "#! "

func TestParse_ReportsEveryProblemAtItsPlace(t *testing.T) {
	var files []string
	for _, pattern := range []string{"testdata/invalid/*.yml", "testdata/config/invalid*.yml", "testdata/fleet/invalid*.yml"} {
		some, err := filepath.Glob(pattern)
		if err != nil || len(some) == 0 {
			t.Fatal("no files", pattern, err)
		}
		files = append(files, some...)
	}
	for _, file := range files {
		t.Run(strings.TrimPrefix(file, "testdata/"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			switch filepath.Base(filepath.Dir(file)) {
			case "config":
				_, err = ParseConfig(file, data)
			case "fleet":
				_, err = ParseFleet(file, data)
			default:
				_, err = ParseService(file, strings.TrimSuffix(filepath.Base(file), ".yml"), data)
			}
			var ps Problems
			if !errors.As(err, &ps) || !errors.Is(err, fault.ErrDefinition) {
				t.Fatalf("err = %v, want Problems that are fault.ErrDefinition", err)
			}
			var got strings.Builder
			for _, p := range ps {
				for line := range strings.SplitSeq(strings.TrimPrefix(p.String(), file+":"), "\n") {
					got.WriteString(expectation + line + "\n")
				}
			}
			var input, want strings.Builder
			for line := range strings.Lines(string(data)) {
				if strings.HasPrefix(line, expectation) {
					want.WriteString(line)
				} else {
					input.WriteString(line)
				}
			}
			if *update {
				if err := os.WriteFile(file, []byte(input.String()+got.String()), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if d := cmp.Diff(want.String(), got.String()); d != "" {
				t.Errorf("problems (-want +got):\n%s", d)
			}
		})
	}
}
