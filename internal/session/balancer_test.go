package session

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"conductor/internal/fault"
	"conductor/internal/remote"
)

func TestQuestions(t *testing.T) {
	type question struct {
		N int `json:"n"`
	}
	ask := questions(func(_ context.Context, q question) (string, error) {
		if q.N == 0 {
			return "", fault.New(fault.ErrProxyRefused, "", "nothing at all")
		}
		return strings.Repeat("x", q.N), nil
	})
	long := `{"n":3` + strings.Repeat(" ", remote.MaxRequest) + "}"
	for _, test := range []struct {
		body, in, want string
		err            error
	}{
		{`{"n":1}`, "", "\"x\"\n", nil},
		{`{"n":1}`, "{\"n\":2}\n{\"n\":3}\n", "\"x\"\n\"xx\"\n\"xxx\"\n", nil},
		{`{"n":1}`, "{\"n\":2}\n{\"n\":", "\"x\"\n\"xx\"\n", nil}, // cut off
		{`{"n":1}`, "{\"n\":0}\n{\"n\":2}\n", "\"x\"\n", fault.ErrProxyRefused},
		{`{"n":1}`, "{\"m\":2}\n", "\"x\"\n", fault.ErrHost},
		{`{"n":1}`, "\n", "\"x\"\n", fault.ErrHost},
		{`{"n":1}`, long + "\n", "\"x\"\n", fault.ErrUsage},
		{"", "", "", fault.ErrHost},
	} {
		var out bytes.Buffer
		err := ask(t.Context(), Call{Request: remote.Request{Do: remote.HAProxy, Body: []byte(test.body)}, Stdin: strings.NewReader(test.in), Stdout: &out})
		if out.String() != test.want || !errors.Is(err, test.err) {
			t.Errorf("%.40q: %q, %v; want %q, %v", test.in, out.String(), err, test.want, test.err)
		}
	}
}
