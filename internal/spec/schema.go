package spec

import (
	"encoding/json"
	"maps"
	"slices"

	"conductor/internal/fault"
)

// Schema returns the JSON Schema (draft 2020-12) of the forms in which a file
// may be written: which is "service" for services/ID.yml, "config" for
// conductor.yml, "fleet" for fleet.yml. It comes from the tables that the parser reads by, so it knows
// the same keys; what holds between keys only the parser knows. Another which
// is fault.ErrUsage.
func Schema(which string) ([]byte, error) {
	var s schema
	switch which {
	case "service":
		s = with(serviceKeys().schema("image"), "title", "A service of Conductor")
	case "config":
		s = with(configKeys().schema(), "title", "The configuration of Conductor")
	case "fleet":
		s = with(fleetKeys().schema("hosts"), "title", "A fleet of Conductor")
	default:
		return nil, fault.New(fault.ErrUsage, "there are service, config and fleet", "unknown schema %s", quote(which))
	}
	s["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	b, err := json.MarshalIndent(s, "", "  ")
	return append(b, '\n'), err
}

// paths are the paths of all keys in an object's schema, outer ones first.
func (s schema) paths(prefix string) []string {
	properties, _ := s["properties"].(schema)
	var out, below []string
	for _, name := range slices.Sorted(maps.Keys(properties)) {
		out = append(out, prefix+name)
		below = append(below, properties[name].(schema).paths(prefix+name+".")...)
	}
	return append(out, below...)
}
