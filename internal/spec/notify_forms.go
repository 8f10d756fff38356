package spec

import (
	"fmt"
	"net/mail"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// The forms of values that say who is told of changes.

func notifyKeys() keys[NotifyTarget] {
	return keys[NotifyTarget]{
		field("name", "By which services choose it. Default: webhook, slack or email; the second of a kind is email-2.",
			notifyName(), func(t *NotifyTarget) *string { return &t.Name }),
		setting("webhook", "A URL to which JSON is posted, or the file that has it.",
			hiddenURL(), func(t *NotifyTarget, u HiddenURL) { t.Webhook = &u }),
		setting("slack", "An incoming webhook of Slack or of what takes the same, or the file that has its URL.",
			hiddenURL(), func(t *NotifyTarget, u HiddenURL) { t.Slack = &u }),
		setting("email", "Messages by SMTP.",
			checked(record(emailKeys(), Email{TLS: MailStartTLS}, "to", "from", "server"), email), func(t *NotifyTarget, e Email) { t.Email = &e }),
	}
}

func emailKeys() keys[Email] {
	return keys[Email]{
		field("to", "Who gets the messages.",
			oneOrMore(mailbox()), func(e *Email) *[]string { return &e.To }),
		field("from", "Who they are from.",
			mailbox(), func(e *Email) *string { return &e.From }),
		field("server", "The mail server, HOST or HOST:PORT. Default: port 587, with tls: tls 465, with tls: none 25.",
			mailServer(), func(e *Email) *string { return &e.Server }),
		field("user", "The name for authentication. Default: none is needed.",
			text(), func(e *Email) *string { return &e.User }),
		field("password", "The file that has the password.",
			hidden(secretFile()), func(e *Email) *string { return &e.PasswordFile }),
		field("tls", "How the connection is kept private: starttls, which must succeed; tls, from the first byte; none. Default: starttls.",
			oneOf(MailStartTLS, MailTLSOnly, MailPlain), func(e *Email) *MailTLS { return &e.TLS }),
	}
}

// notifyTargets are the targets with their names.
func notifyTargets() form[[]NotifyTarget] {
	one := checked(record(notifyKeys(), NotifyTarget{}), func(v value, t NotifyTarget) (NotifyTarget, bool) {
		ways := 0
		for _, is := range []bool{t.Webhook != nil, t.Slack != nil, t.Email != nil} {
			if is {
				ways++
			}
		}
		if ways != 1 {
			v.fail("write one target for each", "needs one of webhook, slack and email")
		}
		return t, ways == 1
	})
	// What is no mapping may be a URL; in one, only some values are secret.
	read := one.read
	one.read = func(v value) (NotifyTarget, bool) {
		v.hidden = !v.mapping()
		return read(v)
	}
	return checked(hidden(listOf(one)), func(v value, ts []NotifyTarget) ([]NotifyTarget, bool) {
		named := map[string]bool{}
		for i, t := range ts {
			if t.Name != "" && named[t.Name] {
				v.d.failAt(fmt.Sprintf("%s[%d].name", v.path, i), "", "there is another target %s", t.Name)
				return nil, false
			}
			named[t.Name] = true
		}
		for i := range ts {
			t := &ts[i]
			if t.Name != "" {
				continue
			}
			kind := t.kind()
			t.Name = kind
			for n := 2; named[t.Name]; n++ {
				t.Name = kind + "-" + strconv.Itoa(n)
			}
			named[t.Name] = true
		}
		return ts, true
	})
}

// kind is the key that says how the target is told.
func (t NotifyTarget) kind() string {
	switch {
	case t.Webhook != nil:
		return "webhook"
	case t.Slack != nil:
		return "slack"
	}
	return "email"
}

// within makes the target's paths absolute, by the folder of the file.
func (t NotifyTarget) within(dir string) {
	var paths []*string
	for _, u := range []*HiddenURL{t.Webhook, t.Slack} {
		if u != nil {
			paths = append(paths, &u.File)
		}
	}
	if t.Email != nil {
		paths = append(paths, &t.Email.PasswordFile)
	}
	for _, p := range paths {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
}

func notifyName() form[string] {
	return checked(text(), func(v value, s string) (string, bool) {
		if !ValidID(s) {
			v.mustBe("the name of a target", idRule)
			return "", false
		}
		return s, true
	})
}

// notifyNames are a service's choice. None chosen is an empty list, and not nil.
func notifyNames() form[[]string] {
	return checked(listOf(notifyName()), func(v value, names []string) ([]string, bool) {
		for i, n := range names {
			if slices.Contains(names[:i], n) {
				v.fail("", "%s is written twice", quote(n))
				return nil, false
			}
		}
		return append([]string{}, names...), true
	})
}

// secretFile is {file: PATH}: a value that is kept apart.
func secretFile() form[string] {
	ks := keys[string]{field("file", "The file that has the value, beside this file or an absolute path.",
		directory(), func(s *string) *string { return s })}
	f := record(ks, "", "file")
	read := f.read
	f.read = func(v value) (string, bool) {
		if !v.mapping() {
			v.mustBe("{file: PATH}", "the value itself is kept in a file of its own")
			return "", false
		}
		v.hidden = false // a path is no secret
		return read(v)
	}
	return f
}

func hiddenURL() form[HiddenURL] {
	plain := text()
	plain.schema = schema{"type": "string", "pattern": "^https?://"}
	direct := checked(plain, func(v value, s string) (HiddenURL, bool) {
		if !ValidURL(s) {
			v.mustBe("a URL that begins with https:// or http://", "or {file: PATH}, where the URL is in a file")
			return HiddenURL{}, false
		}
		return HiddenURL{URL: s}, true
	})
	return hidden(either(direct, checked(secretFile(), func(_ value, s string) (HiddenURL, bool) {
		return HiddenURL{File: s}, true
	})))
}

// ValidURL reports whether something can be posted to s.
func ValidURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != "" && u.Opaque == ""
}

// mailbox is an address: ops@example.com, or Ops <ops@example.com>.
func mailbox() form[string] {
	return checked(text(), func(v value, s string) (string, bool) {
		a, err := mail.ParseAddress(s)
		if err != nil {
			v.mustBe("an address, such as ops@example.com", "")
			return "", false
		}
		if a.Name == "" {
			return a.Address, true
		}
		return a.String(), true
	})
}

var serverGrammar = regexp.MustCompile(`^([A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?$`)

func mailServer() form[string] {
	return checked(text(), func(v value, s string) (string, bool) {
		m := serverGrammar.FindStringSubmatch(s)
		if m == nil || m[3] != "" && !validPort(m[3]) {
			v.mustBe("HOST or HOST:PORT", "such as smtp.example.com:587")
			return "", false
		}
		return s, true
	})
}

func validPort(s string) bool {
	_, ok := parseInteger(s, 1, 65535)
	return ok
}

// email fills in the port, and checks what holds between the keys.
func email(v value, e Email) (Email, bool) {
	switch {
	case len(e.To) == 0:
		v.fail("name an address", "to has no addresses")
		return e, false
	case (e.User == "") != (e.PasswordFile == ""):
		v.fail("write both, or none of them", "needs user and password together")
		return e, false
	case e.User != "" && e.TLS == MailPlain:
		v.fail("write tls: starttls or tls: tls", "a password is not sent over a connection that anybody can read")
		return e, false
	}
	if i := strings.LastIndexByte(e.Server, ':'); i < 0 || strings.HasSuffix(e.Server, "]") {
		e.Server += ":" + mailPorts[e.TLS]
	}
	return e, true
}
