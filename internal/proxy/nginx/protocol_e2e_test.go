//go:build e2e

package nginx

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"conductor/internal/proxy"
	"conductor/internal/spec"
)

func TestProxy_WebSocketLivesOnThroughASwitch(t *testing.T) {
	_, p := start(t)
	old := backend(t, "old", func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		for {
			kind, text, err := c.Read(r.Context())
			if err != nil || c.Write(r.Context(), kind, text) != nil {
				return
			}
		}
	})
	mustApply(t, p, shop(old))
	c, _, err := websocket.Dial(t.Context(), strings.Replace(base, "http", "ws", 1)+"/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	echo := func() {
		t.Helper()
		if err := c.Write(t.Context(), websocket.MessageText, []byte("hello")); err != nil {
			t.Fatal(err)
		}
		if _, text, err := c.Read(t.Context()); err != nil || string(text) != "hello" {
			t.Fatalf("echo: %q, %v", text, err)
		}
	}
	echo()
	mustApply(t, p, shop(named(t, "next")))
	echo()
	if n := inFlight(t, p, old); n != 1 {
		t.Errorf("%d in flight, want the WebSocket", n)
	}
	// A change of routes reloads nginx: its old worker keeps the stream and the count.
	more := shop(named(t, "next")).With(proxy.Route{Service: "blog", HTTP: spec.HTTP{Hosts: []string{"blog.example.com"}, Path: "/", Listen: spec.Listen{Port: httpPort}}})
	if change := mustApply(t, p, more); !change.Reloaded {
		t.Error("a new route did not reload nginx")
	}
	echo()
	if n := inFlight(t, p, old); n != 1 {
		t.Errorf("%d in flight after a reload, want the WebSocket", n)
	}
	c.Close(websocket.StatusNormalClosure, "")
	eventually(t, "none in flight", func() bool { return inFlight(t, p, old) == 0 })
}

func TestProxy_EventsFlowAtOnce(t *testing.T) {
	_, p := start(t)
	next := make(chan struct{})
	mustApply(t, p, shop(backend(t, "a", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 3 {
			fmt.Fprintf(w, "data: %d\n\n", i)
			w.(http.Flusher).Flush()
			<-next // the next event waits until this one has been read
		}
	})))
	resp, err := http.Get(base + "/events")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	in := bufio.NewReader(resp.Body)
	for i := range 3 {
		if line, err := in.ReadString('\n'); err != nil || line != fmt.Sprintf("data: %d\n", i) {
			t.Fatalf("event %d: %q, %v", i, line, err)
		}
		in.ReadString('\n')
		next <- struct{}{}
	}
}

// certificate writes one for the name and returns a client configuration.
func certificate(t *testing.T, dir, name string) (*spec.TLS, *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	files := &spec.TLS{Certificate: filepath.Join(dir, name+" cert.pem"), Key: filepath.Join(dir, name+".key")}
	for file, block := range map[string]*pem.Block{files.Certificate: {Type: "CERTIFICATE", Bytes: der}, files.Key: {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return files, &tls.Config{RootCAs: pool, ServerName: name}
}

func TestProxy_HTTP2OverTLS(t *testing.T) {
	_, p := start(t)
	files, clientTLS := certificate(t, t.TempDir(), "shop.example.com")
	a := backend(t, "a", func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, r.Host, " ", r.Header.Get("X-Forwarded-Proto"), " ", r.Header.Get("X-Forwarded-Port"), " ", n)
	})
	table := shop(a)
	table.Routes[0].HTTP.Hosts, table.Routes[0].HTTP.TLS = []string{"shop.example.com"}, files
	table.Routes[0].HTTP.Listen = spec.Listen{Addr: netip.MustParseAddr("127.0.0.1"), Port: httpPort}
	mustApply(t, p, table)
	tr := &http.Transport{TLSClientConfig: clientTLS, ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", httpPort))
		}}
	defer tr.CloseIdleConnections()
	for _, size := range []int{0, 100_000} {
		// A reader of its own type has no known length: no Content-Length is sent.
		body := struct{ io.Reader }{strings.NewReader(strings.Repeat("x", size))}
		resp, err := (&http.Client{Transport: tr}).Post("https://shop.example.com/", "text/plain", body)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if want := fmt.Sprintf("shop.example.com https %d %d", httpPort, size); resp.ProtoMajor != 2 || string(text) != want {
			t.Errorf("%s %q, want HTTP/2 and %q", resp.Proto, text, want)
		}
	}
	// Another name is not shown this service's certificate.
	conn, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", httpPort), &tls.Config{ServerName: "other.example.com", InsecureSkipVerify: true})
	if err == nil {
		conn.Close()
		t.Error("a host name that nobody claims was shown a certificate")
	}
	eventually(t, "none in flight", func() bool { return inFlight(t, p, a) == 0 })
}

// grpcTarget is a gRPC server.
func grpcTarget(t *testing.T, name string) proxy.Target {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, h := grpc.NewServer(), health.NewServer()
	h.SetServingStatus(name, healthpb.HealthCheckResponse_SERVING)
	healthpb.RegisterHealthServer(s, h)
	go s.Serve(l)
	t.Cleanup(s.Stop)
	return target(name, l.Addr().String())
}

func TestProxy_GRPC(t *testing.T) {
	_, p := start(t)
	a, b := grpcTarget(t, "a"), grpcTarget(t, "b")
	table := shop(a)
	table.Routes[0].HTTP.GRPC = true
	mustApply(t, p, table)
	conn, err := grpc.NewClient(fmt.Sprintf("127.0.0.1:%d", httpPort), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := healthpb.NewHealthClient(conn)
	if _, err := c.Check(t.Context(), &healthpb.HealthCheckRequest{Service: "a"}); err != nil {
		t.Fatal(err)
	}
	stream, err := c.Watch(t.Context(), &healthpb.HealthCheckRequest{Service: "a"})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := stream.Recv(); err != nil || m.Status != healthpb.HealthCheckResponse_SERVING {
		t.Fatalf("watch: %v, %v", m, err)
	}
	table.Routes[0].Targets = []proxy.Target{b}
	if change := mustApply(t, p, table); change.Reloaded {
		t.Error("a switch reloaded nginx")
	}
	if n := inFlight(t, p, a); n != 1 {
		t.Errorf("%d in flight at the old target, want the stream", n)
	}
	for range 20 {
		if _, err := c.Check(t.Context(), &healthpb.HealthCheckRequest{Service: "b"}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestProxy_BodiesStream(t *testing.T) {
	n, p := start(t)
	first := make(chan struct{})
	const size = 200 << 20
	a := backend(t, "a", func(w http.ResponseWriter, r *http.Request) {
		io.ReadFull(r.Body, make([]byte, 1))
		close(first)
		n, _ := io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/octet-stream")
		io.CopyN(w, zero{}, n+1)
	})
	mustApply(t, p, shop(a))
	pr, pw := io.Pipe()
	go func() {
		pw.Write(make([]byte, 1<<20))
		<-first // the target has the beginning before the end is sent
		io.CopyN(pw, zero{}, size-1<<20)
		pw.Close()
	}()
	resp, err := http.Post(base+"/", "application/octet-stream", pr)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got, err := io.Copy(io.Discard, resp.Body); err != nil || got != size {
		t.Errorf("%d bytes came back, %v; want %d", got, err, size)
	}
	if log := n.ErrorLog(); strings.Contains(log, "buffered to a temporary file") {
		t.Errorf("nginx wrote a body to disk:\n%s", log)
	}
}

type zero struct{}

func (zero) Read(p []byte) (int, error) { return len(p), nil }

func TestProxy_ForwardedHeaders(t *testing.T) {
	headers := backend(t, "a", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "host=%s", r.Host)
		for _, h := range []string{"X-Real-Ip", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Port", "X-Forwarded-Proto", "X-Forwarded-Ssl", "Forwarded", "Proxy", "X-Request-Id", "Connection", "Upgrade"} {
			if v := r.Header.Get(h); v != "" {
				fmt.Fprintf(w, "\n%s=%s", h, v)
			}
		}
	})
	sent := []string{"Host", "shop.example.com:8080", "X-Forwarded-For", "198.51.100.7", "X-Forwarded-Proto", "https", "X-Forwarded-Host", "www.example.com",
		"X-Forwarded-Ssl", "on", "Forwarded", "for=198.51.100.7", "Proxy", "evil:1", "X-Request-Id", "abc-1", "X-Real-IP", "192.0.2.1", "Upgrade", "h2c", "Connection", "Upgrade"}
	for _, c := range []struct {
		name    string
		trusted []netip.Prefix
		want    string
	}{
		{"a client", nil, `host=shop.example.com:8080
X-Real-Ip=127.0.0.1
X-Forwarded-For=127.0.0.1
X-Forwarded-Host=shop.example.com:8080
X-Forwarded-Port=21000
X-Forwarded-Proto=http
X-Request-Id=abc-1`},
		{"a trusted balancer", []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, `host=shop.example.com:8080
X-Real-Ip=198.51.100.7
X-Forwarded-For=198.51.100.7, 127.0.0.1
X-Forwarded-Host=www.example.com
X-Forwarded-Port=443
X-Forwarded-Proto=https
X-Forwarded-Ssl=on
Forwarded=for=198.51.100.7
X-Request-Id=abc-1`},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, _ := start(t)
			conf := config(n, filepath.Dir(n.ConfigDir()))
			conf.Trusted = c.trusted
			p := New(conf)
			mustApply(t, p, shop(headers))
			for _, method := range []string{http.MethodGet, http.MethodPost} {
				if _, got := do(t, method, base+"/", nil, sent...); got != c.want {
					t.Errorf("%s:\n%s\nwant\n%s", method, got, c.want)
				}
			}
		})
	}
}

func TestProxy_PathsHostsAndDefaults(t *testing.T) {
	_, p := start(t, httpPort)
	route := func(id, host, path string) proxy.Route {
		r := proxy.Route{Service: id, HTTP: spec.HTTP{Path: path, Listen: spec.Listen{Port: httpPort}}, Targets: []proxy.Target{named(t, id)}}
		if host != "" {
			r.HTTP.Hosts = []string{host}
		}
		return r
	}
	table := proxy.Table{}.With(route("shop", "shop.example.com", "/")).With(route("cart", "shop.example.com", "/cart")).
		With(route("any", "*.apps.example.com", "/deep/er")).With(route("blog_2", "blog.example.com", "/"))
	mustApply(t, p, table)
	check := func(host, path, want string) {
		t.Helper()
		if _, got := get(t, base+path, "Host", host); !strings.HasPrefix(got, want) {
			t.Errorf("%s%s: %q, want %s", host, path, got, want)
		}
	}
	check("shop.example.com", "/", "shop GET / ")
	check("shop.example.com", "/cart", "cart GET /cart ")
	check("shop.example.com", "/cart/1%2F2?x=%20y", "cart GET /cart/1%2F2?x=%20y ")
	check("shop.example.com", "/cartoon", "shop GET /cartoon ")
	check("blog.example.com", "/cart", "blog_2 ")
	check("x.apps.example.com", "/deep/er/", "any ")
	check("unknown.example.com", "/", "default")
	mustApply(t, p, table.With(route("rest", "", "/")))
	check("shop.example.com", "/", "shop ")
	check("unknown.example.com", "/", "rest ")
	if _, text := do(t, http.MethodPost, base+"/a%2Fb//c?d", strings.NewReader("four"), "Host", "shop.example.com"); text != "shop POST /a%2Fb//c?d 4" {
		t.Errorf("POST: %q", text)
	}
}
