package spec

import (
	"net/url"
	"slices"
)

// NotifyTarget is who is told of changes of state: exactly one of Webhook,
// Slack and Email is set.
type NotifyTarget struct {
	Name    string // by which services choose it; unique
	Webhook *HiddenURL
	Slack   *HiddenURL // Slack's incoming webhooks, and what takes the same
	Email   *Email
}

// HiddenURL is a URL that is not to be seen, since it lets whoever has it post:
// as it is, or the file that has it. Printing it shows no more than its host.
type HiddenURL struct {
	URL  string // http:// or https://
	File string // absolute path; read whenever it is needed
}

// String tells where the URL leads, or where it is to be had.
func (h HiddenURL) String() string {
	if h.File != "" {
		return "the URL in " + h.File
	}
	return Origin(h.URL)
}

// Origin is scheme://host of a URL: what may be shown of one that is hidden.
func Origin(s string) string {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" {
		return "a URL"
	}
	return u.Scheme + "://" + u.Host
}

// Email is a message by SMTP.
type Email struct {
	To     []string // addresses, with or without a name
	From   string
	Server string // HOST:PORT
	User   string // empty: no authentication
	// PasswordFile is an absolute path; read whenever it is needed. One line end
	// at its end is not part of the password.
	PasswordFile string
	TLS          MailTLS
}

// MailTLS is how the connection to a mail server is kept private.
type MailTLS string

const (
	MailStartTLS MailTLS = "starttls" // required, not tried
	MailTLSOnly  MailTLS = "tls"      // from the first byte
	MailPlain    MailTLS = "none"
)

// mailPorts are the usual ones.
var mailPorts = map[MailTLS]string{MailStartTLS: "587", MailTLSOnly: "465", MailPlain: "25"}

// CheckNotify finds services that name targets which are none of c's, as
// Problems; nil where there are none.
func (s Set) CheckNotify(c Config) error {
	var known []string
	for _, t := range c.Notify {
		known = append(known, t.Name)
	}
	var ps Problems
	for _, id := range s.IDs() {
		for _, name := range s.Services[id].Policy.Notify {
			if slices.Contains(known, name) {
				continue
			}
			hint := didYouMean(name, known)
			if hint == "" {
				hint = "name one of the targets in notify of conductor.yml"
			}
			ps = append(ps, s.problem(id, "notify", hint, "there is no target "+name))
		}
	}
	return ps.err()
}
