package spec

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"
)

// The tables below are every key of fleet.yml, and the forms that only it has.

func fleetKeys() keys[Fleet] {
	return keys[Fleet]{
		hostsKey(),
		members("services", "The services, by their ids: where they run, and how a revision goes over their hosts.",
			fleetServiceKeys(), isService, defaultFleetService,
			func(f *Fleet) *[]FleetService { return &f.Services }, "on"),
		balancerKey(),
		members("targets", "What else the same deploy brings to the revision, by names that you choose.",
			targetKeys(), isTargetName, func(name string) FleetTarget {
				return FleetTarget{Name: name, Timeout: Duration(30 * time.Minute)}
			}, func(f *Fleet) *[]FleetTarget { return &f.Targets }, "command"),
		section("hooks", "Commands that run at points of a deploy, where it runs.",
			hookPointKeys(), func(f *Fleet) *map[HookPoint]Hook { return &f.Hooks }),
		field("ssh", "How ssh is called, a list of words, such as [ssh, -F, FILE]; it runs in this file's folder. Default: [ssh].",
			argv(), func(f *Fleet) *[]string { return &f.SSH }),
		field("definitions", "The folder that has the services' definitions, for conductor sync. Default: none.",
			directory(), func(f *Fleet) *string { return &f.Definitions }),
		field("notify", "Who is told how a deploy ended, as in conductor.yml.",
			notifyTargets(), func(f *Fleet) *[]NotifyTarget { return &f.Notify }),
	}
}

func hostsKey() key[Fleet] {
	k := members("hosts", "The machines, by names that you choose.",
		fleetHostKeys(), isHostName, func(name string) FleetHost { return FleetHost{Name: name, Sync: true} },
		func(f *Fleet) *[]FleetHost { return &f.Hosts })
	read := k.read
	k.read = func(v value, f *Fleet) {
		if read(v, f); v.mapping() && len(v.node.Content) == 0 {
			v.fail("write hosts: {NAME: {ssh: USER@HOST, roles: [ROLE]}}", "names no host")
		}
	}
	return k
}

func fleetHostKeys() keys[FleetHost] {
	return keys[FleetHost]{
		field("ssh", "How ssh reaches it: USER@HOST, HOST, or a name of ~/.ssh/config. Default: the host's name here.",
			destination(), func(h *FleetHost) *string { return &h.SSH }),
		field("port", "The port of its sshd. Default: what ssh's own configuration says.",
			integer[int](1, 65535), func(h *FleetHost) *int { return &h.Port }),
		kept("roles", "What it is for: words that services name in on.",
			names("a role"), func(h *FleetHost) *[]string { return &h.Roles }),
		field("address", "Where a balancer of kind nginx reaches it, HOST or HOST:PORT. Default: the host that ssh reaches.",
			matching(text(), serverGrammar, "HOST or HOST:PORT", "such as 10.0.0.1:80"), func(h *FleetHost) *string { return &h.Address }),
		field("server", "Its name at a balancer of kind haproxy. Default: its name here.",
			haproxyName("the name of a server"), func(h *FleetHost) *string { return &h.Server }),
		field("sync", "Whether conductor sync writes definitions there; false where config management does. Default: true.",
			boolean(), func(h *FleetHost) *bool { return &h.Sync }),
	}
}

func defaultFleetService(id string) FleetService {
	return FleetService{
		ID: id, Strategy: Strategy{Kind: StrategyOneAtATime}, DrainTimeout: Duration(30 * time.Second),
		TestTimeout: Duration(30 * time.Minute), MigrateTimeout: Duration(time.Hour),
	}
}

func fleetServiceKeys() keys[FleetService] {
	return keys[FleetService]{
		field("on", "Where it runs: roles, or names of hosts.",
			some(names("a role or the name of a host")), func(s *FleetService) *[]string { return &s.On }),
		field("strategy", "How a revision goes over the hosts. Default: one-at-a-time.",
			strategy(), func(s *FleetService) *Strategy { return &s.Strategy }),
		field("test", "A command of the image that has to exit with 0 before any host is touched. Default: none.",
			command(), func(s *FleetService) *[]string { return &s.Test }),
		field("migrate", "A command of the image, run once for a revision over all hosts. Default: none.",
			command(), func(s *FleetService) *[]string { return &s.Migrate }),
		field("max_failed", "So many hosts may fail, and are left out, before the deploy stops. Default: 0.",
			integer[int](0, 1000), func(s *FleetService) *int { return &s.MaxFailed }),
		field("drain_timeout", "Time that requests in flight may take at a host that has left the balancer. Default: 30s.",
			span(0, maxTime), func(s *FleetService) *Duration { return &s.DrainTimeout }),
		field("test_timeout", "Time that test may take. Default: 30m.",
			span(time.Second, maxTime), func(s *FleetService) *Duration { return &s.TestTimeout }),
		field("migrate_timeout", "Time that migrate may take. Default: 1h.",
			span(time.Second, maxTime), func(s *FleetService) *Duration { return &s.MigrateTimeout }),
		setting("image", "How hosts get it: registry, each pulls it; ship, it travels over ssh. Default: registry.",
			oneOf("registry", "ship"), func(s *FleetService, how string) { s.Ship = how == "ship" }),
	}
}

// strategyWords are the strategies without figures.
var strategyWords = []StrategyKind{StrategyOneAtATime, StrategyHalves, StrategyAll}

// strategyMeant says which of them was meant by another word for it, or by one
// that is misspelled.
func strategyMeant(s string) string {
	switch s {
	case "half", "halfs", "blue-green", "bluegreen":
		s = string(StrategyHalves)
	case "rolling", "one-by-one", "one", "serial":
		s = string(StrategyOneAtATime)
	case "parallel", "at-once", "all-at-once":
		s = string(StrategyAll)
	}
	var known []string
	for _, k := range strategyWords {
		known = append(known, string(k))
	}
	return didYouMean(s, known)
}

// strategy is a word, or a mapping with figures.
func strategy() form[Strategy] {
	type figures struct {
		percent int
		first   string
		Strategy
	}
	word := checked(oneOf(strategyWords...), func(_ value, k StrategyKind) (Strategy, bool) {
		return Strategy{Kind: k}, true
	})
	ks := keys[figures]{
		field("percent", "So many percent of the hosts at a time, at least one host.",
			integer[int](1, 100), func(s *figures) *int { return &s.percent }),
		field("first", "This host alone, and then the others: one at a time, or by percent.",
			matching(text(), idGrammar, "the name of a host", idRule), func(s *figures) *string { return &s.first }),
		setting("pause", "What comes after the first host: confirm, somebody is asked; or a time that passes. Default: confirm.",
			pause(), func(s *figures, p Strategy) { s.Strategy = p }),
	}
	long := checked(record(ks, figures{Strategy: Strategy{Confirm: true}}), func(v value, s figures) (Strategy, bool) {
		switch {
		case s.first != "":
			return Strategy{Kind: StrategyFirst, First: s.first, Percent: s.percent, Confirm: s.Confirm, Pause: s.Pause}, true
		case v.d.has(v.join("pause")):
			v.d.failAt(v.join("pause"), "write first: HOST beside it", "is what comes after the first host")
			return Strategy{}, false
		case s.percent == 0:
			v.fail("write {percent: 25} or {first: HOST}", "needs percent or first")
			return Strategy{}, false
		}
		return Strategy{Kind: StrategyPercent, Percent: s.percent}, true
	})
	f := either(word, long)
	read := f.read
	f.read = func(v value) (Strategy, bool) {
		s, isWord := v.scalar()
		switch {
		case s == "percent" || s == "first":
			v.fail("write strategy: {percent: 25} or strategy: {first: HOST}", "%s needs its figure", s)
			return Strategy{}, false
		case isWord && !slices.Contains(strategyWords, StrategyKind(s)):
			v.mustBe("one-at-a-time, halves, all, {percent: 25} or {first: HOST}", strategyMeant(s))
			return Strategy{}, false
		}
		return read(v)
	}
	return f
}

// pause is a time, or the word confirm.
func pause() form[Strategy] {
	wait := checked(span(0, maxTime), func(_ value, t Duration) (Strategy, bool) { return Strategy{Pause: t}, true })
	return form[Strategy]{
		schema: schema{"anyOf": []schema{{"const": "confirm"}, wait.schema}},
		read: func(v value) (Strategy, bool) {
			s, _ := v.scalar()
			switch {
			case s == "confirm":
				return Strategy{Confirm: true}, true
			case s == "" || s[0] < '0' || s[0] > '9':
				v.mustBe("confirm, or a time such as 5m", didYouMean(s, []string{"confirm"}))
				return Strategy{}, false
			}
			return wait.read(v)
		},
	}
}

// balancerKey is none, or a mapping whose keys depend on its kind.
func balancerKey() key[Fleet] {
	k := field("balancer", "What spreads requests over the hosts: none, or its kind and how it is told. Default: none.",
		oneOf(BalancerNone), func(f *Fleet) *BalancerKind { return &f.Balancer.Kind })
	k.schema = schema{"anyOf": []schema{{"enum": k.schema["enum"]}, balancerKeys().schema()}, "description": k.schema["description"]}
	k.read = func(v value, f *Fleet) {
		switch s, _ := v.scalar(); {
		case v.mapping():
			f.Balancer.Kind = ""
			balancerKeys().read(v, &f.Balancer)
		case s != string(BalancerNone):
			v.mustBe("none or a mapping", "such as "+balancerExamples[BalancerHAProxy])
		}
	}
	return k
}

func balancerKeys() keys[Balancer] {
	return append(keys[Balancer]{
		field("kind", "What it is. Default: command where there is such a key.",
			oneOf(BalancerHAProxy, BalancerNginx, BalancerCommand, BalancerNone), func(b *Balancer) *BalancerKind { return &b.Kind }),
		field("on", "The host it runs on: a name in hosts, or else as ssh takes it (haproxy, nginx).",
			destination(), func(b *Balancer) *string { return &b.On }),
		field("backend", "Haproxy's backend, or nginx's upstream, that has the hosts as servers.",
			haproxyName("a name of the balancer's configuration"), func(b *Balancer) *string { return &b.Backend }),
		field("socket", "Haproxy's runtime API, an absolute path there. Default: /run/haproxy/admin.sock.",
			balancerPath(), func(b *Balancer) *string { return &b.Socket }),
		field("file", "Nginx's file that has the upstream, an absolute path there.",
			balancerPath(), func(b *Balancer) *string { return &b.File }),
		section("command", "Any other balancer, by commands.",
			balancerCommands(), func(b *Balancer) *Balancer { return b }, "drain", "admit"),
	}, balancerCommands()...)
}

func balancerCommands() keys[Balancer] {
	return keys[Balancer]{
		field("drain", "The command after which it sends a host nothing new (command).",
			argv(), func(b *Balancer) *[]string { return &b.Drain }),
		field("admit", "The command after which it sends a host requests again (command).",
			argv(), func(b *Balancer) *[]string { return &b.Admit }),
	}
}

// balancerPath is a path that other programs' lines of text can have in them.
func balancerPath() form[string] {
	return matching(absolute(), fileGrammar, "an absolute path", "of letters, digits and / . _ @ + = , : * ~ -")
}

func targetKeys() keys[FleetTarget] {
	return keys[FleetTarget]{
		field("command", "The command that brings it to the revision, a list of words; it runs in this file's folder, without a shell.",
			argv(), func(t *FleetTarget) *[]string { return &t.Command }),
		field("timeout", "Time that the command may take. Default: 30m.",
			span(time.Second, maxTime), func(t *FleetTarget) *Duration { return &t.Timeout }),
		field("services", "With whose deploys it goes. Default: all.",
			some(names("the id of a service")), func(t *FleetTarget) *[]string { return &t.Services }),
	}
}

func hookPointKeys() keys[map[HookPoint]Hook] {
	var ks keys[map[HookPoint]Hook]
	for _, h := range []struct {
		point HookPoint
		doc   string
	}{
		{BeforeDeploy, "Before anything is done."},
		{BeforeHost, "Before a host is touched."},
		{AfterHost, "When a host serves the revision."},
		{AfterDeploy, "When all hosts and targets are on the revision."},
		{OnFailure, "When a deploy has failed."},
	} {
		ks = append(ks, setting(string(h.point), h.doc, hook(), func(m *map[HookPoint]Hook, x Hook) {
			if *m == nil {
				*m = map[HookPoint]Hook{}
			}
			(*m)[h.point] = x
		}))
	}
	return ks
}

// hook is a command, or one with its timeout.
func hook() form[Hook] {
	base := Hook{Timeout: Duration(5 * time.Minute)}
	short := checked(argv(), func(_ value, words []string) (Hook, bool) {
		h := base
		h.Command = words
		return h, true
	})
	long := record(keys[Hook]{
		field("command", "The command, a list of words; it runs in this file's folder, without a shell.",
			argv(), func(h *Hook) *[]string { return &h.Command }),
		field("timeout", "Time that the command may take. Default: 5m.",
			span(time.Second, maxTime), func(h *Hook) *Duration { return &h.Timeout }),
	}, base, "command")
	return form[Hook]{schema: schema{"anyOf": []schema{short.schema, long.schema}}, read: func(v value) (Hook, bool) {
		if v.mapping() {
			return long.read(v)
		}
		return short.read(v)
	}}
}

// argv is a command that is a list of words: where it runs people have a shell,
// and a line of text would look as if that read it.
func argv() form[[]string] {
	words := listOf(argument())
	return checked(form[[]string]{schema: with(words.schema, "minItems", 1), read: func(v value) ([]string, bool) {
		if !v.list() {
			v.mustBe("a list of words", "no shell runs it: write [WORD, …]")
			return nil, false
		}
		return words.read(v)
	}}, func(v value, words []string) ([]string, bool) {
		switch {
		case len(words) == 0:
			v.fail("write [WORD, …]", "has no words")
		case words[0] == "":
			v.fail("", "the first word is empty")
		default:
			return words, true
		}
		return nil, false
	})
}

// names are words in the form of ids, each once. Where one is wrong the others
// are returned beside false.
func names(what string) form[[]string] {
	f := oneOrMore(checked(text(), func(v value, s string) (string, bool) {
		v.d.at[v.path] = at(v.node)
		if !ValidID(s) {
			v.mustBe(what, idRule)
			return "", false
		}
		return s, true
	}))
	read := f.read
	f.read = func(v value) ([]string, bool) {
		words, ok := read(v)
		words = slices.DeleteFunc(words, func(s string) bool { return s == "" })
		for i, w := range words {
			if slices.Contains(words[:i], w) {
				v.fail("", "%s is written twice", quote(w))
				ok = false
			}
		}
		return words, ok
	}
	return f
}

// some is a list that is not empty.
func some(f form[[]string]) form[[]string] {
	return checked(f, func(v value, words []string) ([]string, bool) {
		if len(words) == 0 {
			v.fail("name one, or remove the key", "names none")
		}
		return words, len(words) > 0
	})
}

func isHostName(k value, s string) bool {
	if !ValidID(s) {
		k.fail("it is your name for it: "+idRule+"; its address goes into ssh", "%s is not the name of a host", quote(s))
		return false
	}
	return true
}

func isTargetName(k value, s string) bool {
	if !ValidID(s) {
		k.fail(idRule, "%s is not the name of a target", quote(s))
		return false
	}
	return true
}

// haproxyGrammar is what HAProxy itself allows in names. They go into a line of
// commands, where other characters would begin another one.
var haproxyGrammar = regexp.MustCompile(`^[A-Za-z0-9_.:-]+$`)

func haproxyName(what string) form[string] {
	return matching(text(), haproxyGrammar, what, "letters, digits and _ . : -")
}

var (
	sshUserGrammar = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.+@-]*$`)
	sshHostGrammar = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?$`)
	sshPortGrammar = regexp.MustCompile(`^([^:]+):([0-9]+)$`)
)

// ValidDestination reports whether ssh can be given s as its destination:
// [USER@]HOST, where HOST is a name, also one of ssh's configuration, or an
// address. It begins with no -, and neither ssh nor a command that ssh's
// configuration makes of it finds more in it than a name.
func ValidDestination(s string) bool {
	user, host := splitDestination(s)
	if user != "" && !sshUserGrammar.MatchString(user) || user == "" && strings.HasPrefix(s, "@") || len(s) > 255 {
		return false
	}
	if a, err := netip.ParseAddr(host); err == nil {
		return a.Zone() == ""
	}
	return sshHostGrammar.MatchString(host)
}

// splitDestination is what ssh makes of a destination: the last @ counts.
func splitDestination(s string) (user, host string) {
	if i := strings.LastIndexByte(s, '@'); i >= 0 {
		return s[:i], s[i+1:]
	}
	return "", s
}

func destination() form[string] {
	plain := text()
	plain.schema = schema{"type": "string", "pattern": `^[A-Za-z0-9_:][A-Za-z0-9_.+@:-]*$`}
	return checked(plain, func(v value, s string) (string, bool) {
		if ValidDestination(s) {
			return s, true
		}
		hint := "letters, digits and . _ - ; what else ssh needs goes into ~/.ssh/config"
		_, host := splitDestination(s)
		if m := sshPortGrammar.FindStringSubmatch(host); m != nil {
			hint = fmt.Sprintf("a port has a key of its own: port: %s", m[2])
		} else if strings.Contains(s, "://") {
			hint = "write ssh: USER@HOST and port: PORT"
		}
		v.mustBe("USER@HOST, HOST or a name of ~/.ssh/config", hint)
		return "", false
	})
}
