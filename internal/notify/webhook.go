package notify

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"conductor/internal/fault"
	"conductor/internal/secret"
	"conductor/internal/spec"
)

// postTimeout bounds one request, from the connection to the end of the answer.
const postTimeout = 10 * time.Second

// SchemaVersion is that of a webhook's JSON. It changes when a reader of the
// one before could go wrong; keys are added without.
const SchemaVersion = 1

// Payload is what a webhook gets. It is part of the contract.
type Payload struct {
	Version int             `json:"version"` // SchemaVersion
	ID      string          `json:"id"`      // the same whenever the message is sent again
	Time    time.Time       `json:"time"`    // RFC 3339
	Subject string          `json:"subject"` // one line
	Text    string          `json:"text"`    // lines for people
	Changes []PayloadChange `json:"changes"` // at least one
	Lost    int             `json:"lost"`    // changes before these that could not be told
}

// PayloadChange is one Line.
type PayloadChange struct {
	Time     time.Time  `json:"time"`
	Host     string     `json:"host"`
	Service  string     `json:"service,omitempty"` // absent: the host itself
	Revision string     `json:"revision,omitempty"`
	Job      string     `json:"job,omitempty"`
	Kind     Kind       `json:"kind"`
	Text     string     `json:"text,omitempty"`
	Was      Kind       `json:"was,omitempty"` // of what recovered: what it was
	Since    *time.Time `json:"since,omitempty"`
	Times    int        `json:"times"` // changes that this one stands for, from 1
}

// Payload is the message as a webhook gets it.
func (m Message) Payload() Payload {
	p := Payload{Version: SchemaVersion, ID: m.ID, Time: m.At, Subject: m.Subject(), Text: m.Body(), Lost: m.Lost}
	for _, l := range m.Lines {
		c := PayloadChange{
			Time: l.At, Host: l.Host, Service: l.Service, Revision: l.Revision, Job: l.Job,
			Kind: l.Kind, Text: l.Text, Was: l.Was, Times: l.Times,
		}
		if !l.Since.IsZero() {
			c.Since = &l.Since
		}
		p.Changes = append(p.Changes, c)
	}
	return p
}

// poster posts JSON to a URL that nobody is to see.
type poster struct {
	name string
	url  spec.HiddenURL
	body func(Message) any
	// transport, and no client: what is told is for this address alone, and so is
	// the secret in it. A client reads where a redirect leads, and says so.
	transport *http.Transport
}

// NewWebhook returns a target that gets each message as a Payload.
func NewWebhook(name string, u spec.HiddenURL) Target {
	return newPoster(name, u, func(m Message) any { return m.Payload() })
}

func newPoster(name string, u spec.HiddenURL, body func(Message) any) *poster {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DisableKeepAlives = true // the next message may be days away
	return &poster{name: name, url: u, body: body, transport: t}
}

func (p *poster) Name() string { return p.name }

// Send posts once. Only an answer of 200 to 299 means that it was taken.
func (p *poster) Send(ctx context.Context, m Message) error {
	address, err := p.address()
	if err != nil {
		return err
	}
	data, err := json.Marshal(p.body(m))
	if err != nil {
		return fmt.Errorf("notify %s: write message: %w", p.name, err)
	}
	ctx, cancel := context.WithTimeout(ctx, postTimeout)
	defer cancel()
	to := spec.Origin(address)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(data))
	if err != nil { // it has the URL in it
		return fault.New(fault.ErrHost, "correct its URL", "notify %s: its URL cannot be posted to", p.name)
	}
	if u := request.URL.User; u != nil {
		password, _ := u.Password()
		request.SetBasicAuth(u.Username(), password)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", "conductor")
	answer, err := p.transport.RoundTrip(request)
	if err != nil {
		return fault.New(fault.ErrUnreachable, "ask from this host: curl -I "+to, "notify %s: post to %s: %w", p.name, to, shown(err))
	}
	// Its text may have the URL in it, and is not shown.
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, 64<<10))
	_ = answer.Body.Close()
	switch code := answer.StatusCode; {
	case code >= 200 && code <= 299:
		return nil
	case code >= 300 && code <= 399:
		return fault.New(fault.ErrUnreachable, "write the URL that it leads to", "notify %s: post to %s: answered %s, and redirects are not followed", p.name, to, status(code))
	default:
		return fault.New(fault.ErrUnreachable, "check the URL, and that it is still valid over there", "notify %s: post to %s: answered %s", p.name, to, status(code))
	}
}

// address is the URL, read anew each time so that a new one holds at once.
func (p *poster) address() (string, error) {
	address := p.url.URL
	if p.url.File != "" {
		s, err := secret.File("the URL of notify "+p.name, p.url.File)
		if err != nil {
			return "", err
		}
		address = strings.TrimSpace(s)
	}
	if !spec.ValidURL(address) {
		return "", fault.New(fault.ErrHost, "write one URL that begins with https:// or http:// into "+p.url.File,
			"notify %s: what %s has is no URL", p.name, p.url.File)
	}
	return address, nil
}

// shown is an error that has nothing in it of what was sent or answered; any
// other might repeat the request.
func shown(err error) error {
	if _, ok := errors.AsType[*net.OpError](err); ok {
		return err
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return err
	}
	for _, known := range []error{context.DeadlineExceeded, context.Canceled, io.EOF, io.ErrUnexpectedEOF, http.ErrSchemeMismatch} {
		if errors.Is(err, known) {
			return err
		}
	}
	return errors.New("it does not answer as an HTTP server does")
}

func status(code int) string {
	return strings.TrimSpace(fmt.Sprintf("%d %s", code, http.StatusText(code)))
}
