package notify

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"conductor/internal/spec"
)

// listener is a target that takes note, and does what answer says.
type listener struct {
	name   string
	answer func(ctx context.Context) error // nil: takes all

	mu    sync.Mutex
	got   []Message   // all that it was sent, taken or not
	tries []time.Time // when
}

func (l *listener) Name() string { return l.name }

func (l *listener) Send(ctx context.Context, m Message) error {
	l.mu.Lock()
	l.got, l.tries = append(l.got, m), append(l.tries, time.Now())
	l.mu.Unlock()
	if l.answer == nil {
		return nil
	}
	return l.answer(ctx)
}

// texts are the bodies of what was sent, without the times.
func (l *listener) texts() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	for _, m := range l.got {
		for line := range strings.Lines(m.Body()) {
			if _, rest, ok := strings.Cut(line, " "); ok && line[2] == ':' {
				line = rest
			}
			out = append(out, strings.TrimSpace(line))
		}
	}
	return out
}

// running runs a Notifier in the bubble until the test's end.
func running(t *testing.T, opts Options, targets ...Target) *Notifier {
	t.Helper()
	n := New(targets, opts)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- n.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return n
}

func of(service string, kind Kind, text ...string) Change {
	return Change{Host: "h1", Service: service, Revision: "v1", Kind: kind, Text: strings.Join(text, " ")}
}

func pass(d time.Duration) {
	time.Sleep(d) // of the bubble
	synctest.Wait()
}

func TestNotifier_TellsAHundredChangesInOneMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := &listener{name: "a"}, &listener{name: "b"}
		n := running(t, Options{}, a, b)
		begun := time.Now()
		n.Tell(Change{Host: "h1", Kind: EngineGone, Text: "connection refused"})
		for i := range 100 {
			pass(15 * time.Millisecond)
			n.Tell(of(fmt.Sprintf("s%02d", i), Crashing, "exited 1"))
		}
		pass(time.Minute)
		for _, l := range []*listener{a, b} {
			if len(l.got) != 1 || len(l.got[0].Lines) != 101 {
				t.Fatalf("%s was sent %d messages", l.name, len(l.got))
			}
			if took := l.tries[0].Sub(begun); took != 1500*time.Millisecond+quiet {
				t.Errorf("it was sent after %s", took)
			}
			m := l.got[0]
			if m.Subject() != "h1: the engine is gone, 100 services are crashing" {
				t.Error(m.Subject())
			}
			body := l.texts()
			if len(body) != bodyBound+1 || body[0] != "the engine is gone: connection refused" ||
				body[1] != "s00 (v1) is crashing: exited 1" || body[bodyBound] != "and 1 more" {
				t.Errorf("%q", body)
			}
		}
		if s := n.Stats(); s != (Stats{Sent: 2}) {
			t.Errorf("%+v", s)
		}
	})
}

func TestNotifier_GathersNoLongerThanItMay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &listener{name: "a"}
		n := running(t, Options{}, a)
		begun := time.Now()
		for i := range 25 { // one a second: never quiet
			n.Tell(of(fmt.Sprintf("s%02d", i), Sick))
			pass(time.Second)
		}
		pass(time.Minute)
		var at []time.Duration
		lines := 0
		for i, m := range a.got {
			at = append(at, a.tries[i].Sub(begun).Round(time.Second))
			lines += len(m.Lines)
		}
		if len(at) != 3 || at[0] != gathering || at[1] > 21*time.Second || lines != 25 {
			t.Errorf("sent at %v, %d lines", at, lines)
		}
	})
}

func TestNotifier_TellsChangesOfStateAlone(t *testing.T) {
	job := func(kind Kind, name, text string) Change {
		return Change{Host: "h1", Service: "shop", Kind: kind, Job: name, Text: text}
	}
	// Each step is told of, and is followed by a minute of silence.
	for name, steps := range map[string][]struct {
		changes []Change
		want    []string
	}{
		"repeats": {
			{[]Change{of("shop", Sick, "503")}, []string{"shop (v1) is sick: 503"}},
			{[]Change{of("shop", Sick, "503"), of("shop", Sick, "504")}, nil},
			{[]Change{of("shop", Crashing, "exited 1")}, []string{"shop (v1) is crashing: exited 1"}},
			{[]Change{of("shop", Sick, "503"), of("shop", Crashing, "exited 2")}, nil},
			{[]Change{of("shop", Recovered)}, []string{"shop (v1) has recovered, was sick for 4m: 503"}},
			{[]Change{of("shop", Recovered)}, nil},
			{[]Change{of("shop", Sick, "503")}, []string{"shop (v1) is sick: 503"}},
		},
		"recovered of nothing": {
			{[]Change{of("shop", Recovered), {Host: "h1", Kind: EngineBack}}, nil},
		},
		"within one message": {
			{[]Change{of("shop", Sick, "503"), of("shop", Recovered)}, []string{"shop (v1) has recovered, was sick for less than a second: 503"}},
			{[]Change{of("shop", Sick, "503"), of("shop", Recovered), of("shop", Sick, "504")}, []string{"shop (v1) is sick, after 3 changes: 504"}},
			{[]Change{of("shop", Recovered, "200"), of("other", Sick)}, []string{"other (v1) is sick", "shop (v1) has recovered, was sick for 1m: 200"}},
		},
		"services and hosts apart": {
			{[]Change{of("a", Sick), of("b", Sick)}, []string{"a (v1) is sick", "b (v1) is sick"}},
			{[]Change{of("a", Recovered)}, []string{"a (v1) has recovered, was sick for 1m"}},
			{[]Change{{Host: "h2", Service: "b", Kind: Sick}}, []string{"b is sick"}},
			{[]Change{{Host: "h2", Service: "b", Kind: Recovered}, of("b", Recovered)},
				[]string{"h1 b (v1) has recovered, was sick for 3m", "h2 b has recovered, was sick for 1m"}},
		},
		"the engine": {
			{[]Change{{Host: "h1", Kind: EngineGone, Text: "refused"}}, []string{"the engine is gone: refused"}},
			{[]Change{{Host: "h1", Kind: EngineGone}, of("a", Recovered)}, nil},
			{[]Change{{Host: "h1", Kind: EngineBack}}, []string{"the engine is back, was gone for 2m: refused"}},
		},
		"upgrades happen": {
			{[]Change{of("shop", FailedUpgrade, "exited 1")}, []string{"the upgrade of shop to v1 failed: exited 1"}},
			{[]Change{of("shop", FailedUpgrade, "exited 1"), of("shop", FailedUpgrade, "exited 2")}, []string{"the upgrade of shop to v1 failed 2 times: exited 2"}},
			{[]Change{of("shop", Recovered)}, nil},
		},
		"jobs": {
			{[]Change{job(FailedRun, "nightly", "exited 1"), job(FailedRun, "hourly", "")}, []string{"a run of shop hourly failed", "a run of shop nightly failed: exited 1"}},
			{[]Change{job(FailedRun, "nightly", "exited 1"), of("shop", Recovered)}, nil},
			{[]Change{job(Recovered, "nightly", "")}, []string{"shop nightly has recovered, had failed for 2m: exited 1"}},
			{[]Change{job(FailedRun, "", ""), job(FailedRun, "", "")}, []string{"a run of shop failed 2 times"}},
			{[]Change{job(FailedRun, "", "")}, []string{"a run of shop failed"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := &listener{name: "a"}
				n := running(t, Options{}, a)
				for i, step := range steps {
					a.got = nil
					for _, c := range step.changes {
						n.Tell(c)
					}
					pass(time.Minute)
					if len(a.got) > 1 {
						t.Errorf("step %d: %d messages", i, len(a.got))
					}
					if d := cmp.Diff(step.want, a.texts()); d != "" {
						t.Errorf("step %d: %s", i, d)
					}
				}
			})
		})
	}
}

func TestNotifier_ForgetsServices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &listener{name: "a"}
		n := running(t, Options{}, a)
		n.Tell(of("shop", Sick))
		n.Tell(of("other", Sick))
		pass(time.Minute)
		n.Forget("h1", "shop")
		n.Tell(of("shop", Recovered))
		n.Tell(of("other", Sick))
		pass(time.Minute)
		n.Tell(of("shop", Sick))
		pass(time.Minute)
		if d := cmp.Diff([]string{"other (v1) is sick", "shop (v1) is sick", "shop (v1) is sick"}, a.texts()[:3]); d != "" || len(a.got) != 2 {
			t.Error(len(a.got), d)
		}
	})
}

func TestNotifier_DropsAndSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &listener{name: "a"}
		n := running(t, Options{Queue: 3}, a)
		for range 2 { // what is known needs no place
			for i := range 5 {
				n.Tell(of(fmt.Sprint("s", i), Sick))
			}
			n.Tell(of("s0", Crashing))
		}
		pass(time.Minute)
		want := []string{"s0 (v1) is crashing, after 2 changes", "s1 (v1) is sick", "s2 (v1) is sick", "4 changes before these could not be told"}
		if d := cmp.Diff(want, a.texts()); d != "" {
			t.Error(d)
		}
		if s := n.Stats(); s != (Stats{Sent: 1, Dropped: 4}) {
			t.Errorf("%+v", s)
		}
		a.got = nil
		n.Tell(of("s3", Sick)) // was not told yet
		pass(time.Minute)
		if d := cmp.Diff([]string{"s3 (v1) is sick"}, a.texts()); d != "" {
			t.Error(d)
		}
	})
}

func TestNotifier_NeverBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &listener{name: "a", answer: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}
		n := running(t, Options{}, a)
		n.Tell(of("first", Sick))
		pass(quiet) // it is being sent, for attempt
		begun := time.Now()
		for i := range 20000 {
			n.Tell(of(fmt.Sprint("s", i), Sick))
		}
		if time.Since(begun) != 0 || n.Stats().Dropped != 19000 {
			t.Errorf("%s, %+v", time.Since(begun), n.Stats())
		}
		// Before Run, too.
		idle := New([]Target{a}, Options{Queue: 1})
		for i := range 10 {
			idle.Tell(of(fmt.Sprint("s", i), Sick))
		}
		if idle.Stats().Dropped != 9 {
			t.Errorf("%+v", idle.Stats())
		}
	})
}

func TestNotifier_TellsWhomTheServiceChose(t *testing.T) {
	for _, c := range []struct {
		names []string
		want  string
	}{
		{nil, "a b"}, {[]string{}, ""}, {[]string{"b"}, "b"}, {[]string{"a", "b"}, "a b"}, {[]string{"gone"}, "a b"}, {[]string{"gone", "a"}, "a b"},
	} {
		synctest.Test(t, func(t *testing.T) {
			a, b := &listener{name: "a"}, &listener{name: "b"}
			n := running(t, Options{}, a, b)
			n.Tell(of("shop", Sick), c.names...)
			pass(time.Minute)
			var got []string
			for _, l := range []*listener{a, b} {
				if len(l.got) > 0 {
					got = append(got, l.name)
				}
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("%q: %q were told, want %q", c.names, got, c.want)
			}
		})
	}
}

func TestFromConfig_HasItsTargets(t *testing.T) {
	c, err := spec.ParseConfig("/etc/c.yml", []byte(`notify:
  - webhook: https://a.example/
  - slack: {file: url}
  - {name: ops, email: {to: a@b.example, from: c@d.example, server: mail}}`))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, b := range FromConfig(c, Options{}).inboxes {
		got = append(got, fmt.Sprintf("%s %T", b.target.Name(), b.target))
	}
	if d := cmp.Diff([]string{"webhook *notify.poster", "slack *notify.poster", "ops *notify.email"}, got); d != "" {
		t.Error(d)
	}
	none := FromConfig(spec.DefaultConfig(), Options{})
	none.Tell(of("shop", Sick))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := none.Run(ctx); err != nil || none.Stats() != (Stats{}) {
		t.Error(err, none.Stats())
	}
}

// All of it over the network: a host that ends tells all its targets.
func TestNotifier_TellsOverTheNetwork(t *testing.T) {
	hook, slack, server := newPosted(t, answers(200)), newPosted(t, answers(200)), newMailServer(t, nil)
	n := New([]Target{
		NewWebhook("hook", spec.HiddenURL{URL: hook.URL}), NewSlack("slack", spec.HiddenURL{URL: slack.URL}),
		NewEmail("mail", mailTo(t, server, mailPassword), server.trust),
	}, Options{Warn: func(target string, _ bool, err error) { t.Error(target, err) }})
	for i := range 100 {
		n.Tell(of(fmt.Sprint("s", i), Sick))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := n.Run(ctx); err != nil {
		t.Error(err)
	}
	if n.Stats() != (Stats{Sent: 3}) || len(hook.bodies) != 1 || len(slack.bodies) != 1 || len(server.delivered()) != 1 {
		t.Errorf("%+v, %d, %d, %d", n.Stats(), len(hook.bodies), len(slack.bodies), len(server.delivered()))
	}
}
