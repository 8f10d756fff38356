package nginx

import (
	"context"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"conductor/internal/atomicfile"
	"conductor/internal/exchange"
	"conductor/internal/fault"
	"conductor/internal/proxy"
)

// admin is how to talk to the running nginx.
type admin struct {
	addr  netip.AddrPort
	token string // hexadecimal
}

// askTimeout bounds one question; the running nginx answers within a
// millisecond unless the machine is overloaded.
const askTimeout = 2 * time.Second

// maxAnswer is how many bytes of an answer are read.
const maxAnswer = 64 << 20

// errTwoMasters: during a binary upgrade two nginx masters share the sockets,
// each with its own peers.
var errTwoMasters = errors.New("two nginx masters answer, as during an upgrade of its binary")

// digest is what nginx knows of the token. The file is readable by whom the
// administrator likes; the token is not to be had from it.
func (a admin) digest() string {
	sum := sha1.Sum([]byte(a.token)) // of 256 random bits; what the Lua module has at hand
	return base64.StdEncoding.EncodeToString(sum[:])
}

type adminFile struct {
	Port  uint16 `json:"port"`
	Token string `json:"token"`
}

// admin returns the address and token that are remembered. With create they
// are made where there are none; without, the error is fs.ErrNotExist.
func (p *Proxy) admin(create bool) (admin, error) {
	file := filepath.Join(p.c.StateDir, "proxy", "admin.json")
	var f adminFile
	b, err := os.ReadFile(file)
	if err == nil && json.Unmarshal(b, &f) != nil {
		f = adminFile{} // torn: another token is as good
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return admin{}, fault.New(fault.ErrHost, "", "read admin token: %w", err)
	}
	port := p.c.Admin.Port()
	changed := false
	if f.Token == "" {
		if !create {
			return admin{}, fmt.Errorf("read admin token: %w", fs.ErrNotExist)
		}
		raw := make([]byte, 32)
		rand.Read(raw)
		f.Token, changed = hex.EncodeToString(raw), true
	}
	if port == 0 && f.Port == 0 {
		if !create {
			return admin{}, fmt.Errorf("read admin port: %w", fs.ErrNotExist)
		}
		if f.Port, err = freePort(p.c.Admin.Addr()); err != nil {
			return admin{}, fault.New(fault.ErrHost, "set proxy.admin to a free address", "choose admin port: %w", err)
		}
		changed = true
	}
	if changed {
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			return admin{}, fault.New(fault.ErrHost, "", "keep admin token: %w", err)
		}
		b, err := json.Marshal(f)
		if err != nil {
			return admin{}, fmt.Errorf("keep admin token: %w", err)
		}
		if err := atomicfile.Write(file, b, 0o600); err != nil {
			return admin{}, fault.New(fault.ErrHost, "", "keep admin token: %w", err)
		}
	}
	if port == 0 {
		port = f.Port
	}
	return admin{addr: netip.AddrPortFrom(p.c.Admin.Addr(), port), token: f.Token}, nil
}

// freePort draws a port below the range from which the kernel takes ports for
// outgoing connections: one of those could be in use when nginx starts.
func freePort(addr netip.Addr) (uint16, error) {
	const low, high = 10_000, 30_000
	var last error
	for range 50 {
		n, err := rand.Int(rand.Reader, big.NewInt(high-low))
		if err != nil {
			return 0, err
		}
		port := uint16(low + n.Int64())
		l, err := net.Listen("tcp", netip.AddrPortFrom(addr, port).String())
		if err == nil {
			return port, l.Close()
		}
		last = err
	}
	return 0, last
}

// status is an answer of the running nginx.
type status struct {
	boot, structure   string
	generation, cycle uint64
	master            int // PID
	services          map[string]string
	flight            map[netip.AddrPort]int
	requests          map[string]proxy.Count // by instance name
	unserved          map[string]uint64      // by service
	workers           map[int]uint64         // that take connections, by PID, with their cycle
}

// ask asks over a connection of its own.
func (a admin) ask(ctx context.Context) (status, error) { return a.do(ctx, http.MethodGet, "") }

// askTwice asks over two connections and takes only one and the same
// dictionary for an answer.
func (a admin) askTwice(ctx context.Context) (status, error) {
	first, err := a.ask(ctx)
	if err != nil {
		return status{}, err
	}
	second, err := a.ask(ctx)
	if err != nil {
		return status{}, err
	}
	if first.boot != second.boot {
		return status{}, errTwoMasters
	}
	return second, nil
}

// set hands the peers to the running nginx, if it is still the one of boot.
func (a admin) set(ctx context.Context, boot string, p peers) (status, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "boot %s\ngeneration %d\n", boot, p.generation)
	for _, service := range slices.Sorted(maps.Keys(p.values)) {
		fmt.Fprintf(&b, "service %s %s\n", service, p.values[service])
	}
	b.WriteString("end\n")
	return a.do(ctx, http.MethodPost, b.String())
}

func (a admin) do(ctx context.Context, method, body string) (status, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://"+a.addr.String()+"/", strings.NewReader(body))
	if err != nil {
		return status{}, fmt.Errorf("ask nginx: %w", err)
	}
	req.Header.Set("X-Conductor-Token", a.token)
	resp, end, err := exchange.Do(ctx, a.addr, req, maxAnswer)
	if err != nil {
		return status{}, a.unanswered(ctx, err)
	}
	defer end()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return status{}, a.unanswered(ctx, err)
	}
	if resp.StatusCode != http.StatusOK {
		line, _, _ := strings.Cut(string(text[:min(len(text), 200)]), "\n")
		return status{}, fmt.Errorf("ask nginx at %s: it answers %d: %s", a.addr, resp.StatusCode, line)
	}
	return parseStatus(string(text))
}

func (a admin) unanswered(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return fmt.Errorf("ask nginx at %s: %w", a.addr, err)
}

func parseStatus(text string) (status, error) {
	s := status{services: map[string]string{}, flight: map[netip.AddrPort]int{}, workers: map[int]uint64{},
		requests: map[string]proxy.Count{}, unserved: map[string]uint64{}}
	whole := false
	for line := range strings.Lines(text) {
		key, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		word, value, _ := strings.Cut(rest, " ")
		var err error
		switch key {
		case "boot":
			s.boot = word
		case "structure":
			s.structure = word
		case "generation":
			s.generation, err = strconv.ParseUint(word, 10, 64)
		case "cycle":
			s.cycle, err = strconv.ParseUint(word, 10, 64)
		case "master":
			s.master, err = strconv.Atoi(word)
		case "service":
			s.services[word] = value
		case "worker":
			var pid int
			if pid, err = strconv.Atoi(word); err == nil {
				s.workers[pid], err = strconv.ParseUint(value, 10, 64)
			}
		case "flight":
			var addr netip.AddrPort
			if addr, err = netip.ParseAddrPort(word); err == nil {
				s.flight[addr], err = strconv.Atoi(value)
			}
		case "requests":
			err = s.parseRequests(word, value)
		case "end":
			whole = true
		}
		if err != nil {
			return status{}, fmt.Errorf("parse answer of nginx: line %q: %w", line, err)
		}
	}
	if !whole || s.boot == "" {
		return status{}, errors.New("parse answer of nginx: it is not whole")
	}
	return s, nil
}

// parseRequests takes "REQUESTS,ERRORS" of an instance, or of none@SERVICE.
func (s *status) parseRequests(name, value string) error {
	all, failed, _ := strings.Cut(value, ",")
	n, err := strconv.ParseUint(all, 10, 64)
	if err != nil {
		return err
	}
	if service, ok := strings.CutPrefix(name, "none@"); ok {
		s.unserved[service] = n
		return nil
	}
	c := proxy.Count{Requests: n}
	c.Errors, err = strconv.ParseUint(failed, 10, 64)
	s.requests[name] = c
	return err
}
