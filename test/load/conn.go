package load

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"syscall"
	"time"
)

// conn sends one request after another, each exactly once.
type conn struct {
	cfg     Config
	request []byte
	net     net.Conn
	raw     syscall.RawConn
	r       *bufio.Reader
	body    []byte // of the last answer
}

// answer is a good answer.
type answer struct {
	revision string
	reopened int // connections found closed before the request was written
}

// maxBody bounds what of an answer is kept in memory; more is a failure.
const maxBody = 64 << 20

func newConn(cfg Config) *conn {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: load\r\n", cfg.Method, cfg.Path, cfg.Host)
	for k, v := range cfg.Header {
		fmt.Fprintf(&b, "%s: %s\r\n", k, v)
	}
	if cfg.Body != nil {
		fmt.Fprintf(&b, "Content-Type: application/octet-stream\r\nContent-Length: %d\r\n", len(cfg.Body))
	}
	if cfg.NewConnections {
		b.WriteString("Connection: close\r\n")
	}
	b.WriteString("\r\n")
	b.Write(cfg.Body)
	return &conn{cfg: cfg, request: b.Bytes(), r: bufio.NewReaderSize(nil, 16<<10)}
}

func (c *conn) close() {
	if c.net != nil {
		c.net.Close()
		c.net = nil
	}
}

// do sends the request once and reads its answer. The error says at which
// point it went wrong.
func (c *conn) do() (answer, error) {
	var a answer
	deadline := time.Now().Add(c.cfg.Timeout)
	if c.net != nil {
		c.net.SetDeadline(deadline) // the last one may be over
		switch state, err := c.peek(); {
		case err != nil:
			c.close()
			return a, err
		case state == closed:
			c.close()
			a.reopened++
		}
	}
	if c.net == nil {
		if err := c.dial(deadline); err != nil {
			return a, fmt.Errorf("dial: %w", err)
		}
	}
	c.net.SetDeadline(deadline)
	// The answer may come, and the connection end, before the whole request
	// is written (413): what counts is the answer, so a failed write is told
	// only when there is none.
	_, werr := c.net.Write(c.request)
	status, keep, err := c.read(&a)
	if err != nil {
		c.close()
		if werr != nil {
			return a, fmt.Errorf("write: %w", werr)
		}
		return a, err
	}
	if !keep || werr != nil || c.cfg.NewConnections {
		c.close()
	}
	if !c.cfg.Good(status) {
		return a, fmt.Errorf("status %d", status)
	}
	if c.cfg.Echo && !bytes.Equal(c.body, c.cfg.Body) {
		return a, fmt.Errorf("echo differs: sent %d bytes, got %d", len(c.cfg.Body), len(c.body))
	}
	return a, nil
}

func (c *conn) dial(deadline time.Time) error {
	d := net.Dialer{Deadline: deadline}
	n, err := d.Dial("tcp", c.cfg.Addr)
	if err != nil {
		return err
	}
	raw, err := n.(*net.TCPConn).SyscallConn()
	if err != nil {
		n.Close()
		return err
	}
	c.net, c.raw = n, raw
	c.r.Reset(n)
	return nil
}

type connState int

const (
	open connState = iota
	closed
)

// peek looks, without waiting, whether the other side has closed the idle
// connection. Bytes that nobody asked for are an error.
func (c *conn) peek() (connState, error) {
	state := open
	var unasked bool
	if c.r.Buffered() > 0 {
		return open, errors.New("bytes after the end of the answer")
	}
	err := c.raw.Read(func(fd uintptr) bool {
		var b [1]byte
		for {
			n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
			switch {
			case err == syscall.EINTR:
				continue
			case err == syscall.EAGAIN:
			case err != nil || n == 0:
				state = closed
			default:
				unasked = true
			}
			return true
		}
	})
	if err != nil {
		return closed, nil
	}
	if unasked {
		return open, errors.New("bytes that nobody asked for on an idle connection")
	}
	return state, nil
}

var (
	headerLength     = []byte("content-length")
	headerEncoding   = []byte("transfer-encoding")
	headerConnection = []byte("connection")
)

// read reads one answer; keep says whether the connection can be used again.
func (c *conn) read(a *answer) (status int, keep bool, err error) {
	for {
		status, keep, err = c.readOne(a)
		if err != nil || status < 100 || status > 199 {
			return status, keep, err
		}
	}
}

func (c *conn) readOne(a *answer) (status int, keep bool, err error) {
	line, err := c.line()
	if err != nil {
		if len(line) == 0 {
			return 0, false, fmt.Errorf("no answer: %w", err)
		}
		return 0, false, fmt.Errorf("status line: %w", err)
	}
	if len(line) < 12 || !bytes.HasPrefix(line, []byte("HTTP/1.")) || line[8] != ' ' {
		return 0, false, fmt.Errorf("status line %q is not HTTP/1", line)
	}
	keep = line[7] == '1'
	status, err = strconv.Atoi(string(line[9:12]))
	if err != nil {
		return 0, false, fmt.Errorf("status line %q: %w", line, err)
	}
	length, chunked, known := int64(-1), false, false
	for {
		line, err = c.line()
		if err != nil {
			return status, false, fmt.Errorf("header: %w", eof(err))
		}
		if len(line) == 0 {
			break
		}
		key, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case bytes.EqualFold(key, headerLength):
			length, err = strconv.ParseInt(string(value), 10, 64)
			if err != nil || length < 0 || length > maxBody {
				return status, false, fmt.Errorf("content-length %q", value)
			}
			known = true
		case bytes.EqualFold(key, headerEncoding):
			chunked = bytes.EqualFold(value, []byte("chunked"))
		case bytes.EqualFold(key, headerConnection):
			keep = !bytes.EqualFold(value, []byte("close"))
		case len(key) == len(c.cfg.RevisionHeader) && bytes.EqualFold(key, []byte(c.cfg.RevisionHeader)):
			a.revision = string(value)
		}
	}
	c.body = c.body[:0]
	switch {
	case c.cfg.Method == "HEAD" || status < 200 || status == 204 || status == 304:
	case chunked:
		err = c.chunks()
	case known:
		err = c.fill(length)
	default: // until the end of the connection
		keep = false
		var b []byte
		b, err = io.ReadAll(io.LimitReader(c.r, maxBody))
		c.body = append(c.body, b...)
	}
	if err != nil {
		return status, false, fmt.Errorf("body after %d bytes: %w", len(c.body), eof(err))
	}
	if c.cfg.RevisionBody != nil {
		if m := c.cfg.RevisionBody.FindSubmatch(c.body); len(m) > 1 {
			a.revision = string(m[1])
		}
	}
	return status, keep, nil
}

// line reads a line without its end. It is valid until the next read.
func (c *conn) line() ([]byte, error) {
	b, err := c.r.ReadSlice('\n')
	return bytes.TrimRight(b, "\r\n"), err
}

// fill reads n more bytes of the body.
func (c *conn) fill(n int64) error {
	at := len(c.body)
	if int64(cap(c.body)-at) < n {
		c.body = append(make([]byte, 0, int64(at)+n), c.body...)
	}
	c.body = c.body[:int64(at)+n]
	got, err := io.ReadFull(c.r, c.body[at:])
	c.body = c.body[:at+got]
	return err
}

func (c *conn) chunks() error {
	for {
		line, err := c.line()
		if err != nil {
			return err
		}
		size, _, _ := bytes.Cut(line, []byte(";"))
		n, err := strconv.ParseInt(string(bytes.TrimSpace(size)), 16, 64)
		if err != nil || n < 0 || int64(len(c.body))+n > maxBody {
			return fmt.Errorf("chunk size %q", size)
		}
		if n == 0 {
			break
		}
		if err := c.fill(n); err != nil {
			return err
		}
		if line, err := c.line(); err != nil {
			return err
		} else if len(line) != 0 {
			return fmt.Errorf("chunk is longer than its size: %q", line)
		}
	}
	for { // trailers
		line, err := c.line()
		if err != nil {
			return err
		}
		if len(line) == 0 {
			return nil
		}
	}
}

// eof makes an end in the middle look like one.
func eof(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
