package notify

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"conductor/internal/fault"
	"conductor/internal/spec"
)

// mailTo is a target at the server, authenticated by a file.
func mailTo(t *testing.T, s *mailServer, password string) spec.Email {
	t.Helper()
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return spec.Email{
		To: []string{"a@example.com", `"On call" <b@example.com>`}, From: "conductor@example.com",
		Server: s.address, User: mailUser, PasswordFile: file, TLS: spec.MailStartTLS,
	}
}

func TestEmail_IsDelivered(t *testing.T) {
	for name, c := range map[string]struct {
		server func(*mailServer)
		target func(*spec.Email)
		auth   string // how it authenticated
	}{
		"starttls, PLAIN": {auth: "(TLS) AUTH PLAIN"},
		"starttls, LOGIN": {server: func(s *mailServer) { s.mechanisms = "CRAM-MD5 LOGIN" }, auth: "(TLS) AUTH LOGIN"},
		"tls": {
			server: func(s *mailServer) { s.tls, s.startTLS = true, false },
			target: func(e *spec.Email) { e.TLS = spec.MailTLSOnly }, auth: "(TLS) AUTH PLAIN",
		},
		"none, no password": {
			server: func(s *mailServer) { s.startTLS, s.mechanisms = false, "" },
			target: func(e *spec.Email) { e.TLS, e.User, e.PasswordFile = spec.MailPlain, "", "" },
		},
		"starttls, no password": {
			server: func(s *mailServer) { s.mechanisms = "" },
			target: func(e *spec.Email) { e.User, e.PasswordFile = "", "" },
		},
		"QUIT fails": {server: func(s *mailServer) { s.replies["QUIT"] = "421 bye" }, auth: "(TLS) AUTH PLAIN"},
		"RSET fails": {server: func(s *mailServer) { s.replies["RSET"] = "500 what?" }, auth: "(TLS) AUTH PLAIN"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newMailServer(t, c.server)
			e := mailTo(t, s, mailPassword)
			if c.target != nil {
				c.target(&e)
			}
			m := message(of("schön", Sick, "503: "+strings.Repeat("ü", 200)), of("b", Recovered))
			if err := NewEmail("ops", e, s.trust).Send(t.Context(), m); err != nil {
				t.Fatal(err)
			}
			if len(s.delivered()) != 1 {
				t.Fatalf("%d mails", len(s.delivered()))
			}
			want := []string{"MAIL FROM:<conductor@example.com>", "RCPT TO:<a@example.com>", "RCPT TO:<b@example.com>"}
			if e.TLS != spec.MailPlain {
				for i := range want {
					want[i] = "(TLS) " + want[i]
				}
			}
			if d := cmp.Diff(want, s.said("MAIL", "RCPT")); d != "" {
				t.Error(d)
			}
			auth := s.said("AUTH")
			if c.auth == "" != (len(auth) == 0) || c.auth != "" && !strings.HasPrefix(auth[0], c.auth) {
				t.Errorf("authenticated by %q, want %s", auth, c.auth)
			}
			checkMail(t, s.delivered()[0], m)
		})
	}
}

func checkMail(t *testing.T, text string, m Message) {
	t.Helper()
	got, err := mail.ReadMessage(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	subject, err := new(mime.WordDecoder).DecodeHeader(got.Header.Get("Subject"))
	if err != nil || subject != "h1: schön is sick, b has recovered" {
		t.Errorf("%q, %v", subject, err)
	}
	if id := got.Header.Get("Message-ID"); !strings.HasPrefix(id, "<"+m.ID+"@") {
		t.Error(id)
	}
	if at, err := got.Header.Date(); err != nil || !at.Equal(m.At) {
		t.Error(at, err)
	}
	if to := got.Header.Get("To"); !strings.Contains(to, "a@example.com") || !strings.Contains(to, `"On call" <b@example.com>`) {
		t.Error(to)
	}
	if auto := got.Header.Get("Auto-Submitted"); auto != "auto-generated" {
		t.Error(auto)
	}
	body, err := io.ReadAll(quotedprintable.NewReader(got.Body))
	if err != nil || strings.ReplaceAll(strings.TrimSpace(string(body)), "\r\n", "\n") != strings.TrimSpace(m.Body()) {
		t.Errorf("%q, %v", body, err)
	}
}

// What goes wrong is told; the password never, nor is it sent where it could be read.
func TestEmail_FailsWithoutASecret(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	const wrong = `xylo"phone\`
	for name, c := range map[string]struct {
		server func(*mailServer)
		target func(*spec.Email)
		alien  bool // nobody trusts the server
		want   string
		said   string // a verb that must not have been said
	}{
		"wrong password":          {want: "535", said: "MAIL"},
		"wrong password by LOGIN": {server: func(s *mailServer) { s.mechanisms = "LOGIN" }, want: "535", said: "MAIL"},
		"no STARTTLS":             {server: func(s *mailServer) { s.startTLS = false }, want: "STARTTLS", said: "AUTH"},
		"not trusted":             {alien: true, want: "certificate", said: "AUTH"},
		"no authentication":       {server: func(s *mailServer) { s.mechanisms = "" }, want: "AUTH", said: "MAIL"},
		"unknown authentication":  {server: func(s *mailServer) { s.mechanisms = "NTLM" }, want: "neither PLAIN nor LOGIN", said: "MAIL"},
		"repeats what it hears": {
			server: func(s *mailServer) {
				s.replies["AUTH"] = "535 " + wrong + " " + base64.StdEncoding.EncodeToString([]byte("\x00"+mailUser+"\x00"+wrong))
			},
			want: "authentication as me failed: 535", said: "MAIL",
		},
		"repeats it later": {
			server: func(s *mailServer) {
				s.mechanisms, s.replies["AUTH"], s.replies["MAIL"] = "PLAIN", "235 welcome", "550 no "+wrong
			},
			want: "no …", said: "RCPT",
		},
		"not a mail server's TLS": {target: func(e *spec.Email) { e.TLS = spec.MailTLSOnly }, want: "tls:", said: "EHLO"},
		"no password": {
			target: func(e *spec.Email) { e.PasswordFile += ".gone" },
			want:   "read the password of notify ops", said: "EHLO",
		},
		"nobody there": {target: func(e *spec.Email) { e.Server = "127.0.0.1:1" }, want: "connection refused", said: "EHLO"},
		"says nothing": {target: func(e *spec.Email) { e.Server = silent.Addr().String() }, want: "deadline exceeded", said: "EHLO"},
		"hangs":        {server: func(s *mailServer) { s.hang = "EHLO" }, want: "deadline exceeded", said: "AUTH"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newMailServer(t, c.server)
			e := mailTo(t, s, wrong)
			if c.target != nil {
				c.target(&e)
			}
			trust := s.trust
			if c.alien {
				trust = nil
			}
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			begun := time.Now()
			err := NewEmail("ops", e, trust).Send(ctx, message(of("a", Sick)))
			if err == nil || !strings.Contains(err.Error(), c.want) || fault.Hint(err) == "" {
				t.Fatalf("err = %v (%s), want %s", err, fault.Hint(err), c.want)
			}
			if !errors.Is(err, fault.ErrUnreachable) && !errors.Is(err, fault.ErrHost) {
				t.Errorf("%#v", err)
			}
			encode := base64.StdEncoding.EncodeToString
			for _, secret := range []string{wrong, "xylo", encode([]byte(wrong)), encode([]byte("\x00" + mailUser + "\x00" + wrong))} {
				if strings.Contains(err.Error()+fault.Hint(err), secret) {
					t.Error(err)
				}
			}
			if took := time.Since(begun); took > 5*time.Second {
				t.Errorf("it took %s", took)
			}
			if said := s.said(c.said); len(said) > 0 {
				t.Errorf("said %q", said)
			}
			if len(s.delivered()) > 0 {
				t.Error("a mail was delivered")
			}
			waitFor(t, "its connections are closed", func() bool {
				s.mu.Lock()
				defer s.mu.Unlock()
				return s.open == 0
			})
		})
	}
}

func TestEmail_RefusedRecipientIsAnError(t *testing.T) {
	s := newMailServer(t, func(s *mailServer) { s.replies["RCPT"] = "550 5.1.1 no such user" })
	err := NewEmail("ops", mailTo(t, s, mailPassword), s.trust).Send(t.Context(), message(of("a", Sick)))
	if err == nil || !strings.Contains(err.Error(), "no such user") || len(s.delivered()) > 0 {
		t.Errorf("err = %v, %d mails", err, len(s.delivered()))
	}
}

func waitFor(t *testing.T, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	late := time.After(10 * time.Second)
	for !is() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatal("still not so: ", what)
		}
	}
}
