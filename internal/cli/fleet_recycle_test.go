package cli

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"conductor/internal/fault"
	"conductor/internal/spec"
)

func TestRecyclable(t *testing.T) {
	f, err := spec.ParseFleet("/x/fleet.yml", []byte(`
hosts: {web1: {roles: [web]}, web2: {roles: [web]}, lb1: {roles: [lb]}}
services: {shop: {on: [web]}, blog: {on: [web2]}}
balancer: {kind: haproxy, on: lb1, backend: shop}
`))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ words, want string }{{"", "[web1 web2]"}, {"web2,lb1", "[web2]"}, {"web", "[web1 web2]"}} {
		hosts, err := recyclable(f, strings.FieldsFunc(test.words, func(r rune) bool { return r == ',' }))
		if err != nil || fmt.Sprint(hosts) != test.want {
			t.Errorf("%s: %v, %v, want %s", test.words, hosts, err, test.want)
		}
	}
	if _, err := recyclable(f, []string{"lb1"}); !errors.Is(err, fault.ErrUsage) {
		t.Errorf("the balancer's own: %v", err)
	}
	if got := fmt.Sprint(placed(f)); got != "[{shop [web1 web2] 30s} {blog [web2] 30s}]" {
		t.Errorf("placed %s", got)
	}
}
