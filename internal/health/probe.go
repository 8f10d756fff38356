package health

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"conductor/internal/engine"
	"conductor/internal/exchange"
	"conductor/internal/spec"
)

// Probes asks instances for real. It is safe for concurrent use and keeps
// nothing between two probes.
type Probes struct{ engine engine.Engine }

var _ Prober = (*Probes)(nil)

// New returns Probes that run commands through e.
func New(e engine.Engine) *Probes { return &Probes{engine: e} }

// Probe implements Prober.
func (p *Probes) Probe(ctx context.Context, i Instance, h spec.Health) Result {
	if t := h.Timeout.D(); t > 0 && h.Kind != spec.HealthUptime {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, t, errNoAnswer{t})
		defer cancel()
	}
	at := time.Now()
	var r Result
	if h.Kind == spec.HealthHTTP || h.Kind == spec.HealthTCP {
		if to := target(i, h); !to.IsValid() || to.Port() == 0 {
			return Result{At: at, Text: "its container has no address to ask at"}
		}
	}
	switch h.Kind {
	case spec.HealthHTTP:
		r = askHTTP(ctx, i, h)
	case spec.HealthTCP:
		r = askTCP(ctx, i, h)
	case spec.HealthCommand:
		r = p.askCommand(ctx, i, h)
	case spec.HealthUptime:
		r = uptime(at, i, h)
	default:
		r.Text = fmt.Sprintf("health check of kind %q is not known", h.Kind)
	}
	r.At = at
	return r
}

type errNoAnswer struct{ within time.Duration }

func (e errNoAnswer) Error() string { return "no answer within " + seconds(e.within) }

// target is where the probe goes: the instance's address at the health check's
// port, or its own.
func target(i Instance, h spec.Health) netip.AddrPort {
	if h.Port != 0 {
		return netip.AddrPortFrom(i.Addr.Addr(), h.Port)
	}
	return i.Addr
}

func askHTTP(ctx context.Context, i Instance, h spec.Health) (r Result) {
	to := target(i, h)
	path := h.Path
	if path == "" {
		path = "/"
	}
	asked := fmt.Sprintf("GET :%d%s: ", to.Port(), path)
	req, err := request(ctx, i, h, to, path)
	if err != nil {
		r.Text = asked + clean(err.Error())
		return r
	}
	// A connection that was kept from the probe before says nothing of the instance
	// now, and would count as a client of one that is drained.
	resp, end, err := exchange.Do(ctx, to, req, maxAnswer)
	if err != nil {
		r.Refused = errors.Is(err, syscall.ECONNREFUSED)
		r.Text = asked + why(ctx, err)
		return r
	}
	defer end()
	low, high := h.StatusMin, h.StatusMax
	if low == 0 && high == 0 {
		low, high = 200, 399
	}
	r.Status = resp.StatusCode
	r.OK = r.Status >= low && r.Status <= high
	r.Text = asked + clean(strings.TrimSpace(resp.Status))
	if r.Status >= 300 && r.Status <= 399 {
		r.Location = clean(resp.Header.Get("Location"))
		r.Text = asked + strconv.Itoa(r.Status)
		if r.Location != "" {
			r.Text += " to " + r.Location
		}
	}
	if !r.OK {
		// Of an answer that is well the body is not waited for.
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
		r.Body = firstLine(b)
	}
	return r
}

// maxAnswer is how many bytes of an answer are read.
const maxAnswer = 64 << 10

// request is as a client's would come through the proxy, with what the
// definition says over that.
func request(ctx context.Context, i Instance, h spec.Health, to netip.AddrPort, path string) (*http.Request, error) {
	u, err := url.Parse("http://" + to.String() + path)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	host, proto := to.String(), "http"
	if i.Host != "" {
		host = i.Host
	}
	port := "80"
	if i.Proto == "https" {
		proto, port = i.Proto, "443"
	}
	if _, p, err := net.SplitHostPort(i.Host); err == nil {
		port = p
	}
	req.Host = host
	for k, v := range map[string]string{
		"User-Agent": "conductor-health", "Accept": "*/*",
		"X-Real-IP": "127.0.0.1", "X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": proto,
		"X-Forwarded-Host": host, "X-Forwarded-Port": port,
	} {
		req.Header.Set(k, v)
	}
	for k, v := range h.Headers {
		if http.CanonicalHeaderKey(k) == "Host" {
			req.Host = v
			if _, ok := h.Headers["X-Forwarded-Host"]; !ok {
				req.Header.Set("X-Forwarded-Host", v)
			}
			continue
		}
		req.Header.Set(k, v)
	}
	return req, nil
}

func askTCP(ctx context.Context, i Instance, h spec.Health) (r Result) {
	to := target(i, h)
	asked := fmt.Sprintf("tcp :%d: ", to.Port())
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", to.String())
	if err != nil {
		r.Refused = errors.Is(err, syscall.ECONNREFUSED)
		r.Text = asked + why(ctx, err)
		return r
	}
	_ = c.Close()
	r.OK, r.Text = true, asked+"connected"
	return r
}

func (p *Probes) askCommand(ctx context.Context, i Instance, h spec.Health) (r Result) {
	name := "command"
	if len(h.Command) > 0 {
		name = clean(h.Command[0])
	}
	out := &lines{max: 1}
	code, err := p.engine.Exec(ctx, i.Container, engine.Exec{
		Command: h.Command, Streams: engine.Streams{Stdout: out.stream(), Stderr: out.stream()},
	})
	switch {
	case err != nil:
		r.Exit = -1
		r.Text = name + ": " + why(ctx, err)
		return r
	case code == 0:
		r.OK, r.Text = true, name+": exit 0"
	default:
		r.Exit, r.Text = code, name+": exit "+strconv.Itoa(code)
	}
	if l := out.all(); len(l) > 0 {
		r.Text += ": " + l[0]
	}
	return r
}

func uptime(now time.Time, i Instance, h spec.Health) (r Result) {
	if i.StartedAt.IsZero() {
		r.Text = "has not been started"
		return r
	}
	ran := now.Sub(i.StartedAt)
	r.OK = ran >= h.Uptime.D()
	r.Text = "has run " + seconds(max(ran, 0))
	if !r.OK {
		r.Text += " of " + seconds(h.Uptime.D())
	}
	return r
}

// why says in words what kept the answer away.
func why(ctx context.Context, err error) string {
	var timeout net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case ctx.Err() != nil:
		return clean(context.Cause(ctx).Error())
	case errors.As(err, &timeout) && timeout.Timeout():
		return "no answer in time"
	case errors.Is(err, syscall.ECONNRESET):
		return "connection reset"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "connection closed without an answer"
	case errors.Is(err, syscall.EHOSTUNREACH):
		return "no route to the container"
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		err = op.Err // without the addresses, which say nothing to a person
	}
	return clean(err.Error())
}

// firstLine is the first line of a body that has anything on it, at most 200 bytes.
func firstLine(b []byte) string {
	for l := range bytes.Lines(b) {
		if s := strings.TrimSpace(clean(string(l))); s != "" {
			return cut(s, 200)
		}
	}
	return ""
}
