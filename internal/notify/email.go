package notify

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/wneessen/go-mail"
	"github.com/wneessen/go-mail/smtp"

	"conductor/internal/fault"
	"conductor/internal/secret"
	"conductor/internal/spec"
)

// mailTimeout bounds each step of a mail: to connect, to send.
const mailTimeout = 10 * time.Second

type email struct {
	name  string
	spec  spec.Email
	trust *x509.CertPool
}

// NewEmail returns a target that gets each message as a mail. trust are who may
// sign the server's certificate; nil: whom the host trusts.
func NewEmail(name string, e spec.Email, trust *x509.CertPool) Target {
	return &email{name: name, spec: e, trust: trust}
}

func (e *email) Name() string { return e.name }

// Send delivers a mail to the server, once.
func (e *email) Send(ctx context.Context, m Message) error {
	msg, err := e.compose(m)
	if err != nil {
		return fault.New(fault.ErrDefinition, "correct its addresses", "notify %s: %w", e.name, err)
	}
	password := ""
	if e.spec.PasswordFile != "" {
		if password, err = secret.File("the password of notify "+e.name, e.spec.PasswordFile); err != nil {
			return err
		}
	}
	if err = e.deliver(ctx, msg, password); err != nil && !msg.IsDelivered() {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return fault.New(fault.ErrUnreachable, "check server, tls and user of the target, and what the server's log says",
			"notify %s: mail by %s: %w", e.name, e.spec.Server, without(err, password))
	}
	return nil
}

func (e *email) compose(m Message) (*mail.Msg, error) {
	msg := mail.NewMsg()
	if err := errors.Join(msg.From(e.spec.From), msg.To(e.spec.To...)); err != nil {
		return nil, err
	}
	host, err := os.Hostname()
	if err != nil {
		host = "conductor.invalid"
	}
	msg.Subject(m.Subject())
	msg.SetDateWithValue(m.At)
	msg.SetMessageIDWithValue(m.ID + "@" + host)
	msg.SetGenHeader("Auto-Submitted", "auto-generated") // so that no absence note answers
	msg.SetBodyString(mail.TypeTextPlain, m.Body())
	return msg, nil
}

// deliver has a connection of its own, which ends with ctx: the client heeds
// that only until it is connected, and leaves it open where something fails.
func (e *email) deliver(ctx context.Context, msg *mail.Msg, password string) error {
	ctx, done := context.WithCancel(ctx)
	defer done() // closes the connection
	host, _, err := net.SplitHostPort(e.spec.Server)
	if err != nil {
		return err
	}
	private := &tls.Config{ServerName: host, RootCAs: e.trust, MinVersion: tls.VersionTLS12}
	opts := []mail.Option{
		mail.WithTimeout(mailTimeout), mail.WithTLSConfig(private), mail.WithTLSPolicy(mail.TLSMandatory),
	}
	switch e.spec.TLS {
	case spec.MailTLSOnly:
		opts = append(opts, mail.WithSSL())
	case spec.MailPlain:
		opts = append(opts, mail.WithTLSPolicy(mail.NoTLS))
	}
	auth := &login{
		plain: smtp.PlainAuth("", e.spec.User, password, host, false),
		login: smtp.LoginAuth(e.spec.User, password, host, false),
	}
	if e.spec.User != "" {
		opts = append(opts, mail.WithSMTPAuthCustom(auth))
	}
	opts = append(opts, mail.WithDialContextFunc(func(dialing context.Context, network, _ string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(dialing, network, e.spec.Server)
		if err != nil {
			return nil, err
		}
		context.AfterFunc(ctx, func() { _ = conn.Close() })
		if e.spec.TLS != spec.MailTLSOnly {
			return conn, nil
		}
		secured := tls.Client(conn, private)
		return secured, secured.HandshakeContext(dialing)
	}))
	client, err := mail.NewClient(host, opts...)
	if err != nil {
		return err
	}
	conn, err := client.DialToSMTPClientWithContext(ctx)
	if answer, ok := errors.AsType[*textproto.Error](err); ok && auth.chosen != nil {
		// Its words may repeat what it was sent, in whatever way.
		return fmt.Errorf("authentication as %s failed: %d %s", e.spec.User, answer.Code, enhanced.FindString(answer.Msg))
	}
	if err != nil {
		return err
	}
	if err := client.SendWithSMTPClient(conn, msg); err != nil {
		return err
	}
	_ = client.CloseWithSMTPClient(conn) // it was taken
	return nil
}

// enhanced is the status that may come before the words of an answer.
var enhanced = regexp.MustCompile(`^[245]\.[0-9]{1,3}\.[0-9]{1,3}\b`)

// login authenticates by what the server offers: PLAIN, else LOGIN.
type login struct {
	plain, login smtp.Auth
	chosen       smtp.Auth
}

func (l *login) Start(server *smtp.ServerInfo) (string, []byte, error) {
	switch {
	case slices.Contains(server.Auth, "PLAIN"):
		l.chosen = l.plain
	case slices.Contains(server.Auth, "LOGIN"):
		l.chosen = l.login
	default:
		return "", nil, fmt.Errorf("the server offers neither PLAIN nor LOGIN, but %q", server.Auth)
	}
	return l.chosen.Start(server)
}

func (l *login) Next(fromServer []byte, more bool) ([]byte, error) {
	return l.chosen.Next(fromServer, more)
}

// without is err, in one line, with the password taken out: a server may repeat
// it later, too.
func without(err error, password string) error {
	text := err.Error()
	if password != "" {
		quoted := strconv.Quote(password) // as textproto shows answers
		text = strings.NewReplacer(password, "…", quoted[1:len(quoted)-1], "…").Replace(text)
	}
	return errors.New(oneLine(text, textBound))
}
