// Package proxytest has what tests of the proxy need: an in-memory proxy, the
// conformance suite that it and every adapter run, and a private nginx.
//
// Tests alone import it.
package proxytest
