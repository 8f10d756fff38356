package spec

import (
	"regexp"
	"strings"

	"github.com/distribution/reference"

	"conductor/internal/fault"
)

const placeholder = "{revision}"

var (
	tagGrammar    = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`)
	digestGrammar = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
)

// Reference is the image's name for a revision. fault.ErrUsage: the revision
// cannot be part of such a name.
func (c Container) Reference(revision string) (string, error) {
	if strings.Contains(c.Image, "@"+placeholder) {
		if !digestGrammar.MatchString(revision) {
			return "", fault.New(fault.ErrUsage, "image is "+c.Image+": name a digest, sha256: and 64 hexadecimal digits",
				"revision %s is not a digest", quote(revision))
		}
	} else if !tagGrammar.MatchString(revision) {
		return "", fault.New(fault.ErrUsage, "a tag has letters, digits, _, . and -, at most 128 of them, and begins with none of . and -",
			"revision %s cannot be an image's tag", quote(revision))
	}
	name := c.Image + ":" + revision
	if strings.Contains(c.Image, placeholder) {
		name = strings.Replace(c.Image, placeholder, revision, 1)
	}
	if _, err := reference.ParseNormalizedNamed(name); err != nil {
		return "", fault.New(fault.ErrUsage, "the definition has image: "+c.Image, "revision %s makes no image name: %s: %w", quote(revision), name, err)
	}
	return name, nil
}

// imageTemplate is an image without tag, or with {revision} in its tag or as
// its digest.
func imageTemplate() form[string] {
	return checked(text(), func(v value, s string) (string, bool) {
		refuse := func(hint, format string, args ...any) (string, bool) {
			v.fail(hint, format, args...)
			return "", false
		}
		n := strings.Count(s, placeholder)
		rest := strings.ReplaceAll(s, placeholder, "")
		switch {
		case strings.Contains(rest, "$"):
			return refuse("nothing is interpolated; the revision goes where "+placeholder+" is", "%s has a $ in it", quote(s))
		case strings.ContainsAny(rest, "{}"):
			return refuse("the one placeholder is "+placeholder, "%s has an unknown placeholder", quote(s))
		case n > 1:
			return refuse("write it once", "%s has %s more than once", quote(s), placeholder)
		case n == 0:
			named, err := reference.ParseNormalizedNamed(s)
			if err != nil {
				return refuse("such as registry.example.com/shop", "%s is not an image name: %s", quote(s), err)
			}
			if !reference.IsNameOnly(named) {
				return refuse("remove the tag, the revision becomes it; or write "+placeholder+" in its place",
					"%s has a fixed tag or digest", quote(s))
			}
			return s, true
		}
		i := strings.Index(s, placeholder)
		sample, before := "r", s[:i]
		slash, colon, sign := strings.LastIndexByte(before, '/'), strings.LastIndexByte(before, ':'), strings.IndexByte(before, '@')
		switch {
		case strings.HasSuffix(before, "@"):
			sample = "sha256:" + strings.Repeat("0", 64)
		case sign >= 0 || colon <= slash || strings.Contains(s[i:], "/"):
			return refuse("such as registry.example.com/shop:"+placeholder, "%s has %s outside of its tag", quote(s), placeholder)
		case strings.Contains(s[i:], "@"):
			return refuse("a digest would name one image for ever; remove it", "%s has a fixed digest", quote(s))
		}
		if _, err := reference.ParseNormalizedNamed(strings.Replace(s, placeholder, sample, 1)); err != nil {
			return refuse("such as registry.example.com/shop:"+placeholder, "%s is not an image name: %s", quote(s), err)
		}
		return s, true
	})
}
