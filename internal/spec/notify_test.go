package spec

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/fstest"
)

func TestSet_CheckNotifyFindsNamesThatAreNoTargets(t *testing.T) {
	set, err := LoadServices(fstest.MapFS{
		"a.yml": {Data: []byte("image: a\nnotify: [ops, oops]\n")},
		"b.yml": {Data: []byte("image: b\nnotify: [nobody-at-all]\n")},
		"c.yml": {Data: []byte("image: c\nnotify: []\n")},
		"d.yml": {Data: []byte("image: d\n")},
	}, "/etc/services")
	if err != nil || set.Err() != nil {
		t.Fatal(err, set.Err())
	}
	err = set.CheckNotify(Config{Notify: []NotifyTarget{{Name: "ops"}}})
	want := strings.Join([]string{
		"/etc/services/a.yml:2:1: notify: there is no target oops",
		"    hint: did you mean ops?",
		"/etc/services/b.yml:2:1: notify: there is no target nobody-at-all",
		"    hint: name one of the targets in notify of conductor.yml",
	}, "\n")
	var ps Problems
	if !errors.As(err, &ps) || ps.Error() != want {
		t.Errorf("%v\nwant\n%s", err, want)
	}
	delete(set.Services, "b")
	if err := set.CheckNotify(Config{Notify: []NotifyTarget{{Name: "ops"}, {Name: "oops"}}}); err != nil {
		t.Error(err)
	}
}

func TestNotify_NoneIsNotAll(t *testing.T) {
	for text, want := range map[string]string{"image: a": "[]string(nil)", "image: a\nnotify: []": "[]string{}"} {
		s, err := ParseService("a.yml", "a", []byte(text))
		if got := fmt.Sprintf("%#v", s.Policy.Notify); err != nil || got != want {
			t.Errorf("%q: %s, want %s (%v)", text, got, want, err)
		}
		roundTrip(t, s)
	}
}

// What may post is in no message and in no print of a configuration.
func TestConfig_HidesURLs(t *testing.T) {
	c, err := ParseConfig("/etc/c.yml", []byte(`notify:
  - webhook: https://user:secret1@h.example:8443/secret2?secret3
  - slack: {file: /etc/url}`))
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(*c.Notify[0].Webhook, " ", *c.Notify[1].Slack)
	if got != "https://h.example:8443 the URL in /etc/url" {
		t.Error(got)
	}
	for _, text := range []string{"notify: https://h/secret", "notify: [https://h/secret]", "notify: [{webhook: 'ftp://h/secret'}]",
		"notify: [{webhook: 'https://h/%zzsecret'}]", "notify: [{slack: {file: [secret]}}]", "notify: [{slack: [https://h/secret]}]",
		"notify: [{email: {password: secret}}]", "notify: [{email: {password: [secret]}}]"} {
		_, err := ParseConfig("/etc/c.yml", []byte(text))
		if err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", text, err)
		}
	}
}
