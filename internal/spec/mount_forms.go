package spec

import (
	"path"
	"regexp"
	"slices"
	"strings"
)

// The forms of mounts: tmpfs and volumes.

var (
	volumeNameGrammar = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]+$`)
	tmpfsGrammar      = regexp.MustCompile(`^[A-Za-z0-9=,._%-]+$`)
)

// tmpfs is PATH[:OPTIONS].
func tmpfs() form[string] {
	return checked(text(), func(v value, s string) (string, bool) {
		target, options, found := strings.Cut(s, ":")
		if !isTarget(target) || found && !tmpfsGrammar.MatchString(options) {
			v.mustBe("PATH[:OPTIONS] with an absolute path", "such as /run:size=64m,mode=1777")
			return "", false
		}
		return s, true
	})
}

// tmpfsTarget is the path of PATH[:OPTIONS], as it is compared with others.
func tmpfsTarget(s string) string {
	target, _, _ := strings.Cut(s, ":")
	return path.Clean(target)
}

// isTarget reports whether something can be mounted at p.
func isTarget(p string) bool { return path.IsAbs(p) && path.Clean(p) != "/" }

// volumeWords are the words of the short syntax beside ro and rw.
var (
	selinuxWords     = []string{"z", "Z"}
	propagationWords = []string{"private", "rprivate", "shared", "rshared", "slave", "rslave"}
)

func volumeText() form[Volume] {
	return checked(text(), func(v value, s string) (Volume, bool) {
		parts := strings.Split(s, ":")
		var vol Volume
		switch len(parts) {
		case 1:
			vol.Target = parts[0]
		case 2, 3:
			vol.Source, vol.Target = parts[0], parts[1]
			if vol.Source == "" {
				v.mustBe("[SOURCE:]TARGET[:OPTIONS]", "")
				return vol, false
			}
		default:
			v.mustBe("[SOURCE:]TARGET[:OPTIONS]", "")
			return vol, false
		}
		if len(parts) == 3 {
			for o := range strings.SplitSeq(parts[2], ",") {
				if o == "ro" || o == "rw" {
					vol.ReadOnly = o == "ro"
					continue
				}
				vol.Options = append(vol.Options, o)
			}
		}
		vol.Bind = path.IsAbs(vol.Source)
		return checkVolume(v, vol)
	})
}

// checkVolume holds for both syntaxes.
func checkVolume(v value, vol Volume) (Volume, bool) {
	fail := func(hint, format string, args ...any) (Volume, bool) {
		v.fail(hint, format, args...)
		return vol, false
	}
	switch {
	case !isTarget(vol.Target):
		return fail("", "the target must be an absolute path and not /, is %s", quote(vol.Target))
	case vol.Bind && !path.IsAbs(vol.Source), vol.Source != "" && !vol.Bind && !volumeNameGrammar.MatchString(vol.Source):
		return fail("nothing is relative to this file: write it from /",
			"the source must be an absolute path or a volume's name, is %s", quote(vol.Source))
	}
	for _, o := range vol.Options {
		switch {
		case slices.Contains(selinuxWords, o):
		case o == "nocopy" && !vol.Bind:
		case slices.Contains(propagationWords, o) && vol.Bind:
		case o == "nocopy" || slices.Contains(propagationWords, o):
			return fail("nocopy is for volumes, propagation for paths of the host", "the option %s does not fit the source", quote(o))
		default:
			return fail(didYouMean(o, slices.Concat([]string{"ro", "rw", "nocopy"}, selinuxWords, propagationWords)),
				"unknown option %s", quote(o))
		}
	}
	vol.Target = path.Clean(vol.Target)
	if vol.Bind {
		vol.Source = path.Clean(vol.Source)
	}
	return vol, true
}

// longVolume is the long syntax of a volume.
type longVolume struct {
	kind, source, target string
	readOnly, nocopy     bool
	propagation, selinux string
}

func volumeKeys() keys[longVolume] {
	return keys[longVolume]{
		field("type", "bind for a path of the host, volume for a volume.",
			oneOf("bind", "volume"), func(l *longVolume) *string { return &l.kind }),
		field("source", "A path of the host, or a volume's name.",
			text(), func(l *longVolume) *string { return &l.source }),
		field("target", "The path in the container.",
			text(), func(l *longVolume) *string { return &l.target }),
		field("read_only", "Whether the container cannot write to it.",
			boolean(), func(l *longVolume) *bool { return &l.readOnly }),
		section("bind", "Options of a bind mount.", keys[longVolume]{
			field("propagation", "How mounts below it spread.",
				oneOf(propagationWords...), func(l *longVolume) *string { return &l.propagation }),
			field("selinux", "z: shared label, Z: private label.",
				oneOf(selinuxWords...), func(l *longVolume) *string { return &l.selinux }),
		}, func(l *longVolume) *longVolume { return l }),
		section("volume", "Options of a volume.", keys[longVolume]{
			field("nocopy", "Does not copy the image's files into a new volume.",
				boolean(), func(l *longVolume) *bool { return &l.nocopy }),
		}, func(l *longVolume) *longVolume { return l }),
	}
}

func volumeLong(v value, l longVolume) (Volume, bool) {
	vol := Volume{Source: l.source, Target: l.target, ReadOnly: l.readOnly, Bind: l.kind == "bind"}
	for _, o := range []string{l.propagation, l.selinux} {
		if o != "" {
			vol.Options = append(vol.Options, o)
		}
	}
	if l.nocopy {
		vol.Options = append(vol.Options, "nocopy")
	}
	if vol.Bind && vol.Source == "" {
		v.fail("", "a bind mount needs a source")
		return vol, false
	}
	return checkVolume(v, vol)
}
