package spec

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	yaml "go.yaml.in/yaml/v4"

	"conductor/internal/fault"
)

func compile(t testing.TB, which string) *jsonschema.Schema {
	t.Helper()
	b, err := Schema(which)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("file:///s.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("file:///s.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// generic is what an editor's YAML reader makes of a file.
func generic(t testing.TB, data []byte) any {
	t.Helper()
	var v any
	if err := yaml.Load(data, &v); err != nil {
		t.Fatal(err)
	}
	var plain func(v any) any
	plain = func(v any) any {
		switch v := v.(type) {
		case map[string]any:
			for k := range v {
				v[k] = plain(v[k])
			}
		case []any:
			for i := range v {
				v[i] = plain(v[i])
			}
		case time.Time:
			return v.Format(time.DateOnly)
		}
		return v
	}
	b, err := json.Marshal(plain(v))
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func TestSchema_AcceptsWhatTheParserAccepts(t *testing.T) {
	s := compile(t, "service")
	for _, file := range validFiles(t) {
		if err := s.Validate(generic(t, read(t, file))); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
	if err := compile(t, "config").Validate(generic(t, read(t, "testdata/config/valid.yml"))); err != nil {
		t.Error(err)
	}
	for _, file := range fleetFiles(t) {
		if err := compile(t, "fleet").Validate(generic(t, read(t, file))); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

func TestSchema_RefusesWhatTheParserRefuses(t *testing.T) {
	service := compile(t, "service")
	for _, name := range []string{"keys", "types", "ranges", "image_without", "paths"} {
		data := []byte("replicas: 1")
		if name != "image_without" {
			data = read(t, filepath.Join("testdata/invalid", name+".yml"))
		}
		if err := service.Validate(generic(t, data)); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	for _, text := range []string{"image: 1", "image: a\nhttp: {}", "image: a\nkind: x", "image: a\nhttp: {port: 0}", "image: a\nenvironment: {A: null}",
		"image: a\ncommand: []", "image: a\nstop_grace_period: 10", "image: a\nlimits: {memory: 1m, x: 1}", "image: a\nvolumes: [{type: tmpfs, target: /a}]"} {
		if err := service.Validate(generic(t, []byte(text))); err == nil {
			t.Errorf("%q was accepted", text)
		}
		if _, err := ParseService("a.yml", "a", []byte(text)); err == nil {
			t.Errorf("%q was parsed", text)
		}
	}
	if err := compile(t, "config").Validate(generic(t, read(t, "testdata/config/invalid.yml"))); err == nil {
		t.Error("the invalid configuration was accepted")
	}
	fleet := compile(t, "fleet")
	for _, text := range []string{"{}", "hosts: {a: {port: 0}}", "hosts: {a: {shs: x}}", "hosts: {a: {ssh: '-v'}}", "hosts: {a: {}}\nservices: {b: {}}",
		"hosts: {a: {}}\nservices: {b: {on: a, strategy: half}}", "hosts: {a: {}}\nservices: {b: {on: a, strategy: {percent: 101}}}",
		"hosts: {a: {}}\nbalancer: nginx", "hosts: {a: {}}\nbalancer: {kind: ngnix}", "hosts: {a: {}}\nhooks: {before: [a]}",
		"hosts: {a: {}}\nhooks: {on_failure: a}", "hosts: {a: {}}\ntargets: {t: {command: a}}", "hosts: {a: {}}\ntargets: {t: {}}"} {
		if err := fleet.Validate(generic(t, []byte(text))); err == nil {
			t.Errorf("%q was accepted", text)
		}
		if _, err := ParseFleet("fleet.yml", []byte(text)); err == nil {
			t.Errorf("%q was parsed", text)
		}
	}
}

// The valid samples together have every key of the schema, so that each is
// known to the parser and to the schema, and none is in one of them alone.
func TestSchema_HasTheParsersKeys(t *testing.T) {
	for _, c := range []struct {
		which string
		files []string
	}{{"service", validFiles(t)}, {"config", []string{"testdata/config/valid.yml"}}, {"fleet", fleetFiles(t)}} {
		b, err := Schema(c.which)
		if err != nil {
			t.Fatal(err)
		}
		var s any
		if err := json.Unmarshal(b, &s); err != nil {
			t.Fatal(err)
		}
		inSchema, used := map[string]bool{}, map[string]bool{}
		schemaKeys(s, "", inSchema)
		for _, file := range c.files {
			usedKeys(s, generic(t, read(t, file)), "", used)
		}
		if d := cmp.Diff(slices.Sorted(maps.Keys(inSchema)), slices.Sorted(maps.Keys(used))); d != "" {
			t.Errorf("%s: keys of the schema (-) and of the samples (+):\n%s", c.which, d)
		}
	}
}

// schemaKeys collects the paths of all properties, with [] and {} for elements
// of lists and of mappings with free keys.
func schemaKeys(s any, path string, into map[string]bool) {
	m, _ := s.(map[string]any)
	for name, p := range properties(m) {
		into[path+"."+name] = true
		schemaKeys(p, path+"."+name, into)
	}
	schemaKeysOf(m, path, into)
}

func schemaKeysOf(m map[string]any, path string, into map[string]bool) {
	if items, ok := m["items"]; ok {
		schemaKeys(items, path+"[]", into)
	}
	if extra, ok := m["additionalProperties"].(map[string]any); ok {
		schemaKeys(extra, path+"{}", into)
	}
	any, _ := m["anyOf"].([]any)
	for _, a := range any {
		schemaKeys(a, path, into)
	}
}

func properties(m map[string]any) map[string]any {
	p, _ := m["properties"].(map[string]any)
	return p
}

// usedKeys collects the paths of the keys that a document has, in the same words.
func usedKeys(s, doc any, path string, into map[string]bool) {
	m, _ := s.(map[string]any)
	if alternatives, ok := m["anyOf"].([]any); ok {
		for _, a := range alternatives {
			usedKeys(a, doc, path, into)
		}
	}
	switch doc := doc.(type) {
	case map[string]any:
		for k, v := range doc {
			if p, ok := properties(m)[k]; ok {
				into[path+"."+k] = true
				usedKeys(p, v, path+"."+k, into)
			} else if extra, ok := m["additionalProperties"].(map[string]any); ok {
				usedKeys(extra, v, path+"{}", into)
			}
		}
	case []any:
		for _, v := range doc {
			usedKeys(m["items"], v, path+"[]", into)
		}
	}
}

func TestSchema_IsUnknownForOtherFiles(t *testing.T) {
	if _, err := Schema("services"); !errors.Is(err, fault.ErrUsage) {
		t.Errorf("err = %v, want fault.ErrUsage", err)
	}
}
