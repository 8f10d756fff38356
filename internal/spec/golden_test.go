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

// The files under testdata/invalid and testdata/config/invalid*.yml have the
// problems that are expected of them as comments at their end: line:column:
// message, and the hint below.

const expectation = "#! "

func TestParse_ReportsEveryProblemAtItsPlace(t *testing.T) {
	files, err := filepath.Glob("testdata/invalid/*.yml")
	if err != nil || len(files) == 0 {
		t.Fatal("no files", err)
	}
	for _, file := range append(files, "testdata/config/invalid.yml", "testdata/config/invalid_names.yml", "testdata/config/invalid_text.yml") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if filepath.Base(filepath.Dir(file)) == "config" {
				_, err = ParseConfig(file, data)
			} else {
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
