package spec

import (
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// The forms of values that become part of a container.

var (
	envNameGrammar = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]*$`)
	labelGrammar   = regexp.MustCompile(`^[!-<>-~]+$`) // visible ASCII without =
	cpusGrammar    = regexp.MustCompile(`^(0|[1-9][0-9]*)?(\.[0-9]+)?$`)
)

// absolute is an absolute path, of the host or in the container.
func absolute() form[string] {
	return checked(text(), func(v value, s string) (string, bool) {
		if !path.IsAbs(s) {
			v.mustBe("an absolute path", "nothing is relative to this file: write it from /")
			return "", false
		}
		return path.Clean(s), true
	})
}

// environment is a mapping or a list of KEY=VALUE; values are as written, and
// may have several lines.
func environment() form[map[string]string] {
	item := form[string]{schema: scalarSchema(), read: func(v value) (string, bool) {
		s, ok := v.scalar()
		switch {
		case isNull(v.node):
			v.fail("nothing is taken from the shell: write \"\" for an empty value, and quotes around ~ and null", "has no value")
			return "", false
		case !ok:
			v.mustBe("text", "")
			return "", false
		case strings.ContainsRune(s, 0):
			v.fail("", "must not have a NUL character in it")
			return "", false
		}
		return s, true
	}}
	return hidden(pairs(isEnvName, item, func(v value, name string) (string, bool) {
		v.fail("nothing is taken from the shell: write "+name+"=VALUE", "%s has no value", name)
		return "", false
	}))
}

func isEnvName(k value, s string) bool {
	if !envNameGrammar.MatchString(s) {
		k.fail("letters, digits, _, . and -, and no digit first", "%s is not a name of a variable", quote(s))
		return false
	}
	return true
}

func labels() form[map[string]string] {
	item := form[string]{schema: scalarSchema(), read: func(v value) (string, bool) {
		s, ok := v.scalar()
		if !ok {
			v.mustBe("text", "write \"\" for an empty value")
			return "", false
		}
		return s, s == "" || v.clean(s)
	}}
	return pairs(func(k value, s string) bool {
		switch {
		case !labelGrammar.MatchString(s):
			k.fail("", "%s is not a name of a label", quote(s))
			return false
		case strings.HasPrefix(s, "conductor."):
			k.fail("choose another prefix", "%s is one of Conductor's own labels", quote(s))
			return false
		}
		return true
	}, item, func(value, string) (string, bool) { return "", true })
}

func isOption(k value, s string) bool {
	if !labelGrammar.MatchString(s) {
		k.fail("", "%s is not a name of an option", quote(s))
		return false
	}
	return true
}

func envFilePath() form[EnvFile] {
	return checked(absolute(), func(_ value, s string) (EnvFile, bool) { return EnvFile{Path: s, Required: true}, true })
}

func oneSource(v value, s Secret) (Secret, bool) {
	if (s.File == "") == (s.Command == nil) {
		v.fail("write {file: /PATH} or {command: [WORD, …]}", "needs one of file and command")
		return s, false
	}
	return s, true
}

// ulimitNames are the limits that the engine knows.
var ulimitNames = []string{"core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice",
	"nofile", "nproc", "rss", "rtprio", "rttime", "sigpending", "stack"}

func isUlimit(k value, s string) bool {
	if !slices.Contains(ulimitNames, s) {
		k.fail(didYouMean(s, ulimitNames), "unknown limit %s", quote(s))
		return false
	}
	return true
}

func ulimit() form[Ulimit] {
	both := checked(integer[int64](-1, most), func(_ value, n int64) (Ulimit, bool) { return Ulimit{n, n}, true })
	long := record(keys[Ulimit]{
		field("soft", "What holds at first.", integer[int64](-1, most), func(u *Ulimit) *int64 { return &u.Soft }),
		field("hard", "What the process may raise it to.", integer[int64](-1, most), func(u *Ulimit) *int64 { return &u.Hard }),
	}, Ulimit{}, "soft", "hard")
	return either(both, checked(long, func(v value, u Ulimit) (Ulimit, bool) {
		if u.Hard >= 0 && (u.Soft < 0 || u.Soft > u.Hard) {
			v.fail("", "soft must not be above hard")
			return u, false
		}
		return u, true
	}))
}

// capabilities are Linux's, without CAP_.
var capabilities = strings.Fields(`ALL AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF
	CHECKPOINT_RESTORE CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID IPC_LOCK IPC_OWNER KILL LEASE
	LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE MKNOD NET_ADMIN NET_BIND_SERVICE NET_BROADCAST NET_RAW PERFMON
	SETFCAP SETGID SETPCAP SETUID SYSLOG SYS_ADMIN SYS_BOOT SYS_CHROOT SYS_MODULE SYS_NICE SYS_PACCT
	SYS_PTRACE SYS_RAWIO SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG WAKE_ALARM`)

// capability is a capability, with or without CAP_, in any case.
func capability() form[string] {
	return checked(text(), func(v value, s string) (string, bool) {
		name := strings.TrimPrefix(strings.ToUpper(s), "CAP_")
		if !slices.Contains(capabilities, name) {
			v.fail(didYouMean(name, capabilities), "unknown capability %s", quote(s))
			return "", false
		}
		return name, true
	})
}

func securityOpt() form[string] {
	return checked(text(), func(v value, s string) (string, bool) {
		name, rest, found := strings.Cut(s, "=")
		if !found {
			name, rest, found = strings.Cut(s, ":")
		}
		known := []string{"no-new-privileges", "seccomp", "apparmor", "label", "systempaths"}
		switch {
		case !slices.Contains(known, name):
			v.fail(didYouMean(name, known), "unknown security option %s", quote(s))
			return "", false
		case strings.ContainsAny(s, " \t") || found == (rest == "") || !found && name != "no-new-privileges":
			v.mustBe("NAME=VALUE", "")
			return "", false
		case name == "seccomp" && rest != "unconfined" && rest != "builtin":
			// The engine's API takes a profile's text, not the name of its file.
			v.mustBe("seccomp=unconfined or seccomp=builtin", "a profile for all containers is set in the engine's own configuration")
			return "", false
		}
		return s, true
	})
}

var (
	signalNames = strings.Fields(`HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT
		CHLD CONT STOP TSTP TTIN TTOU URG XCPU XFSZ VTALRM PROF WINCH IO POLL PWR SYS`)
	realtimeGrammar = regexp.MustCompile(`^RTM(IN(\+([1-9]|1[0-5]))?|AX(-([1-9]|1[0-4]))?)$`)
)

// stopSignal is a signal's name, with or without SIG, or its number.
func stopSignal() form[string] {
	return checked(scalar(), func(v value, s string) (string, bool) {
		if _, ok := parseInteger(s, 1, 64); ok {
			return s, true
		}
		name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
		if !slices.Contains(signalNames, name) && !realtimeGrammar.MatchString(name) {
			hint := didYouMean(name, signalNames)
			v.mustBe("a signal, such as SIGTERM or 15", strings.Replace(hint, "mean ", "mean SIG", 1))
			return "", false
		}
		return "SIG" + name, true
	})
}

func processors() form[float64] {
	s := schema{"anyOf": []schema{{"type": "number", "minimum": 0.01}, {"type": "string", "pattern": `^[0-9]*(\.[0-9]+)?$`}}}
	return form[float64]{schema: s, read: func(v value) (float64, bool) {
		s, _ := v.scalar()
		f, err := strconv.ParseFloat(s, 64)
		if err != nil || !cpusGrammar.MatchString(s) || f < 0.01 || f > 4096 {
			v.mustBe("a number of processors from 0.01, such as 0.5", "")
			return 0, false
		}
		return f, true
	}}
}

// dependsOn is a list of services, or a mapping as Compose has it.
func dependsOn() form[[]string] {
	type condition struct{ condition string }
	long := mapOf(isService, record(keys[condition]{
		field("condition", "What is waited for.", oneOf("service_started", "service_healthy"), func(c *condition) *string { return &c.condition }),
	}, condition{}))
	many := listOf(checked(text(), func(v value, s string) (string, bool) { return s, isService(v, s) }))
	return form[[]string]{schema: schema{"anyOf": []schema{many.schema, long.schema}}, read: func(v value) ([]string, bool) {
		if !v.mapping() {
			return many.read(v)
		}
		m, ok := long.read(v)
		var ids []string
		for id := range m {
			ids = append(ids, id)
		}
		slices.Sort(ids)
		return ids, ok
	}}
}

func isService(k value, s string) bool {
	if !ValidID(s) {
		k.fail("an id has "+idRule, "%s is not the id of a service", quote(s))
		return false
	}
	return true
}
