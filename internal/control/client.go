package control

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// answerWithin is how long a supervisor may take: who does not answer by then is
// stopped or very busy, and whoever asked can look without it.
const answerWithin = 3 * time.Second

// maxAnswer bounds an answer, in bytes: 1,000 services with ten instances each
// are some 5 MB.
const maxAnswer = 64 << 20

// Client asks the supervisor of a namespace.
type Client struct {
	Path string // its socket
	// As is what the asker would go by: one that goes by something else, another
	// version or configuration, does not answer for it.
	As string
}

// Status has the supervisor say how the services are, none named: all, into v;
// brief: without what their instances use. It returns false where it does not: there is none, it goes by something else,
// it failed, or took longer than 3 s. v is of no use then.
func (c Client) Status(ctx context.Context, v any, brief bool, ids ...string) bool {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	query := url.Values{"as": {c.As}, "id": ids}
	if brief {
		query.Set("brief", "")
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://conductor/v1/status?"+query.Encode(), nil)
	if err != nil {
		return false
	}
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", c.Path)
	}}
	answer, err := transport.RoundTrip(r)
	if err != nil {
		return false
	}
	defer func() { _ = answer.Body.Close() }() // it was read, or is of no use
	if answer.StatusCode != http.StatusOK {
		return false
	}
	return json.NewDecoder(io.LimitReader(answer.Body, maxAnswer)).Decode(v) == nil
}
