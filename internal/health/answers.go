package health

import (
	"fmt"
	"net/url"
	"strings"

	"conductor/internal/spec"
)

// What a probe of a running container found, and what to change.

// key is the key of the definition that says where the probe goes.
func (x *examination) key() string {
	switch {
	case x.h.Kind == spec.HealthTCP:
		return "health.tcp"
	case x.h.Port != 0:
		return "health.port"
	}
	return "http.port"
}

// refused is about a probe that found nothing listening.
func (x *examination) refused() finding {
	f := finding{seen: x.last.Text}
	if !x.looked {
		return f
	}
	to := target(x.i, x.h)
	here, open, local := x.sockets.at(to.Port()), x.sockets.open(), x.sockets.loopback()
	switch {
	case x.reachable:
		f.seen += fmt.Sprintf(", until now: it listens on %s after %s", here, seconds(x.age()))
		f.fix = "raise health.start_timeout" + x.startTimeout()
	case len(here.open()) > 0 && here.open()[0].Addr().Is6():
		f.seen += fmt.Sprintf("; the container listens on %s for IPv6 only", here)
		f.fix = "bind 0.0.0.0"
	case len(here.open()) > 0:
		f.seen += fmt.Sprintf(", though the container listens on %s", here)
		f.hint = "see whether its backlog is full, or a firewall inside of it refuses"
	case len(here) > 0:
		f.seen += fmt.Sprintf("; the container listens on %s only", here)
		f.fix = "bind 0.0.0.0 (or ::)"
	case len(open.ports()) == 1:
		f.seen += fmt.Sprintf("; the container listens on %s", open)
		f.fix = fmt.Sprintf("set %s: %d", x.key(), open.ports()[0])
	case len(open) > 0:
		f.seen += fmt.Sprintf("; the container listens on %s", open)
		f.fix = "set " + x.key() + " to the right one of them"
	case len(local.ports()) == 1:
		f.seen += fmt.Sprintf("; the container listens on %s only", local)
		f.fix = fmt.Sprintf("bind 0.0.0.0 (or ::), and set %s: %d", x.key(), local.ports()[0])
	case len(local) > 0:
		f.seen += fmt.Sprintf("; the container listens on %s only", local)
		f.fix = fmt.Sprintf("bind 0.0.0.0:%d", to.Port())
	default:
		f.seen += fmt.Sprintf("; the container listens on nothing after %s", seconds(x.age()))
		f.hint = "see its log; if it only starts slowly, raise health.start_timeout" + x.startTimeout()
	}
	return f
}

func (x *examination) startTimeout() string {
	if d := x.h.StartTimeout.D(); d > 0 {
		return " (" + seconds(d) + ")"
	}
	return ""
}

// silent is about a probe without an answer that was not refused either.
func (x *examination) silent() finding {
	f := finding{seen: x.last.Text}
	if !x.looked {
		return f
	}
	switch here := x.sockets.at(target(x.i, x.h).Port()); {
	case len(here) > 0:
		f.seen += fmt.Sprintf("; the container listens on %s and does not answer", here)
		f.hint = "see its log; if it answers slowly, raise health.timeout (" + seconds(x.h.Timeout.D()) + ")"
	case len(x.sockets) > 0:
		f.seen += fmt.Sprintf("; the container listens on %s", x.sockets)
	default:
		f.seen += "; the container listens on nothing"
	}
	return f
}

// badAnswer is about an answer with another status than a healthy one's.
func (x *examination) badAnswer() finding {
	f := finding{seen: x.last.Text}
	if x.last.Body != "" && x.last.Location == "" {
		f.seen += ": " + x.last.Body
	}
	switch s := x.last.Status; {
	case s >= 300 && s <= 399:
		f.fix = x.redirected()
	case s == 400 || s == 421:
		f.fix = "set health.headers: {Host: …} to a name that the application accepts"
	case s == 401 || s == 403:
		f.fix = "set health.path to one that needs no login"
	case s == 404 || s == 405:
		f.fix = "set health.path to one that the application has"
	default:
		f.hint = "see the last lines of its log"
		if len(x.log) == 0 {
			f.hint = "it logged nothing: ask it for the same by hand, in a container of the same image"
		}
	}
	return f
}

// redirected tells what would have kept the application from redirecting.
func (x *examination) redirected() string {
	u, err := url.Parse(x.last.Location)
	asked := ""
	for k, v := range x.h.Headers {
		if strings.EqualFold(k, "X-Forwarded-Proto") {
			asked = v
		}
	}
	host := x.i.Host
	for k, v := range x.h.Headers {
		if strings.EqualFold(k, "Host") {
			host = v
		}
	}
	if asked == "" {
		asked = x.i.Proto
	}
	switch {
	case err != nil:
		return "set health.path to one that answers by itself"
	case u.Scheme == "https" && asked != "https":
		return "set health.headers: {X-Forwarded-Proto: https}"
	case u.Host != "" && !strings.EqualFold(u.Host, host):
		return "set health.headers: {Host: " + u.Host + "}"
	}
	path := u.EscapedPath()
	if path == "" || path == x.h.Path {
		return "set health.path to one that answers by itself"
	}
	return "set health.path: " + path + ", or one that answers by itself"
}
