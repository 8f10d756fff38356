// Package exchange sends one HTTP request over a connection of its own.
//
// What is asked thousands of times an hour, each time anew, does without what an
// http.Transport does for connections that are kept: half of what a question
// costs. Any room that does I/O may import it; it imports none.
package exchange

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"time"
)

// Do sends the request and reads the head of its answer; it follows no redirect.
// Of the answer, head and body, most bytes are read. end closes the connection,
// and is nil beside an error.
func Do(ctx context.Context, to netip.AddrPort, req *http.Request, most int64) (resp *http.Response, end func(), err error) {
	d := net.Dialer{KeepAlive: -1}
	conn, err := d.DialContext(ctx, "tcp", to.String())
	if err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	end = func() {
		stop()
		_ = conn.Close()
	}
	req.Close = true
	if err = req.Write(conn); err == nil {
		limited := &io.LimitedReader{R: conn, N: most}
		in := bufio.NewReader(limited)
		for resp, err = http.ReadResponse(in, req); err == nil && interim(resp); {
			resp, err = http.ReadResponse(in, req)
		}
		if err != nil && limited.N <= 0 {
			err = fmt.Errorf("the head of its answer is longer than %d KiB", most>>10)
		}
	}
	if err != nil {
		end()
		return nil, nil, err
	}
	return resp, end, nil
}

// interim: another answer follows.
func interim(r *http.Response) bool {
	return r.StatusCode >= 100 && r.StatusCode <= 199 && r.StatusCode != http.StatusSwitchingProtocols
}
