package session

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"conductor/internal/fault"
	"conductor/internal/spec"
)

const (
	// verifyFor is how long the service may take to answer, verifyPause what is
	// between two requests for it.
	verifyFor   = 10 * time.Second
	verifyPause = 200 * time.Millisecond
)

// verify asks the service as a client would: at the proxy's address, by each of
// its host names. An answer of the application's own is one, whatever it says.
func (s *Station) verify(ctx context.Context, c Call) error {
	def, _, err := s.Definition(c.Service)
	if err != nil {
		return err
	}
	h := def.Policy.HTTP
	if h == nil {
		return nil // nobody asks it anything
	}
	ctx, cancel := context.WithTimeoutCause(ctx, verifyFor, fault.ErrTimeout)
	defer cancel()
	hosts := h.Hosts
	if len(hosts) == 0 {
		hosts = []string{""}
	}
	for _, host := range hosts {
		if err := ask(ctx, *h, def.Policy.Health, host); err != nil {
			return fault.New(fault.ErrUnhealthy, "conductor service status and logs on this host say more", "ask %s through the proxy: %w", c.Service, err)
		}
	}
	return nil
}

func ask(ctx context.Context, h spec.HTTP, health spec.Health, host string) error {
	address := h.Listen.Addr
	if !address.IsValid() {
		address = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	at := net.JoinHostPort(address.String(), strconv.Itoa(int(h.Listen.Port)))
	if host == "" || strings.HasPrefix(host, "*.") {
		host = address.String()
	}
	u := url.URL{Scheme: "http", Host: at, Path: h.Path}
	if health.Kind == spec.HealthHTTP && strings.HasPrefix(health.Path, h.Path) {
		u.Path = health.Path
	}
	transport := &http.Transport{DisableKeepAlives: true}
	if h.TLS != nil {
		u.Scheme = "https"
		// That the certificate is good is for clients to see, by a name that
		// leads to the balancer and not to this host.
		transport.TLSClientConfig = &tls.Config{ServerName: host, InsecureSkipVerify: true}
	}
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	for {
		status, err := once(ctx, client, u.String(), host)
		switch {
		case err == nil && status < 500:
			return nil
		case err == nil:
			err = fmt.Errorf("GET %s for %s: %d %s", u.String(), host, status, http.StatusText(status))
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(verifyPause):
		}
	}
}

func once(ctx context.Context, client *http.Client, at, host string) (status int, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return 0, err
	}
	r.Host = host
	answer, err := client.Do(r)
	if err != nil {
		return 0, err
	}
	return answer.StatusCode, answer.Body.Close()
}
