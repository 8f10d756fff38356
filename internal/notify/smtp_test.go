package notify

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"fmt"
	"math/big"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// mailServer is a mail server on loopback, with TLS and authentication.
type mailServer struct {
	address     string
	certificate tls.Certificate
	trust       *x509.CertPool

	// What it offers and what it says.
	startTLS, tls bool
	mechanisms    string            // such as PLAIN LOGIN
	replies       map[string]string // by command, in place of the usual ones
	hang          string            // a command that it never answers

	mu       sync.Mutex
	commands []string // of all connections, in order; (TLS) before those that were private
	mails    []string
	open     int
	running  sync.WaitGroup
}

const mailUser, mailPassword = "me", "correct horse"

func newMailServer(t *testing.T, change func(*mailServer)) *mailServer {
	t.Helper()
	s := &mailServer{startTLS: true, mechanisms: "PLAIN LOGIN", replies: map[string]string{}}
	s.certificate, s.trust = selfSigned(t)
	if change != nil {
		change(s)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.address = l.Addr().String()
	conns := make(chan net.Conn, 100)
	s.running.Go(func() {
		defer close(conns)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns <- c
			s.running.Go(func() { s.talk(c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		for c := range conns {
			_ = c.Close()
		}
		s.running.Wait()
	})
	return s
}

// selfSigned makes a certificate for 127.0.0.1.
func selfSigned(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mail"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// talk serves one connection.
func (s *mailServer) talk(c net.Conn) {
	defer func() { _ = c.Close() }()
	s.count(1)
	defer s.count(-1)
	config := &tls.Config{Certificates: []tls.Certificate{s.certificate}}
	private := s.tls
	if private {
		c = tls.Server(c, config)
	}
	r := bufio.NewReader(c)
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(c, format+"\r\n", args...) }
	line := func() (string, bool) {
		l, err := r.ReadString('\n')
		return strings.TrimRight(l, "\r\n"), err == nil
	}
	say("220 mail.example ESMTP")
	authenticated := s.mechanisms == ""
	for {
		l, ok := line()
		if !ok {
			return
		}
		verb, rest, _ := strings.Cut(l, " ")
		verb = strings.ToUpper(verb)
		s.note(private, l)
		if verb == s.hang {
			_, _ = r.ReadByte() // until the other side goes
			return
		}
		if reply, ok := s.replies[verb]; ok {
			say("%s", reply)
			continue
		}
		switch verb {
		case "EHLO":
			if s.startTLS && !private {
				say("250-mail.example\r\n250 STARTTLS")
			} else if s.mechanisms != "" {
				say("250-mail.example\r\n250 AUTH %s", s.mechanisms)
			} else {
				say("250 mail.example")
			}
		case "STARTTLS":
			say("220 go on")
			c, private = tls.Server(c, config), true
			r = bufio.NewReader(c)
		case "AUTH":
			var got []string
			mechanism, initial, _ := strings.Cut(rest, " ")
			if mechanism == "PLAIN" {
				b, _ := base64.StdEncoding.DecodeString(initial)
				got = strings.Split(string(b), "\x00")[1:]
			} else {
				for _, ask := range []string{"Username:", "Password:"} {
					say("334 %s", base64.StdEncoding.EncodeToString([]byte(ask)))
					l, _ := line()
					b, _ := base64.StdEncoding.DecodeString(l)
					got = append(got, string(b))
				}
			}
			if strings.Join(got, " ") != mailUser+" "+mailPassword {
				say("535 5.7.8 wrong: %q %s", got, initial)
				continue
			}
			authenticated = true
			say("235 welcome")
		case "MAIL", "RCPT":
			if !authenticated {
				say("530 5.7.0 authenticate first")
				continue
			}
			say("250 fine")
		case "DATA":
			say("354 go on")
			var mail strings.Builder
			for {
				l, ok := line()
				if !ok {
					return
				}
				if l == "." {
					break
				}
				mail.WriteString(strings.TrimPrefix(l, ".") + "\n")
			}
			s.mu.Lock()
			s.mails = append(s.mails, mail.String())
			s.mu.Unlock()
			say("250 taken")
		case "QUIT":
			say("221 bye")
			return
		default: // NOOP, RSET
			say("250 fine")
		}
	}
}

func (s *mailServer) note(private bool, line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if private {
		line = "(TLS) " + line
	}
	s.commands = append(s.commands, line)
}

func (s *mailServer) count(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open += n
}

// said are the commands that begin with one of the verbs.
func (s *mailServer) said(verbs ...string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, c := range s.commands {
		for _, v := range verbs {
			if strings.HasPrefix(strings.TrimPrefix(c, "(TLS) "), v) {
				out = append(out, c)
			}
		}
	}
	return out
}

func (s *mailServer) delivered() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.mails)
}
