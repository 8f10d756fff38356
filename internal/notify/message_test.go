package notify

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func message(changes ...Change) Message {
	m := Message{ID: "ID1", At: noon}
	for _, c := range changes {
		c.At = noon
		m.Lines = append(m.Lines, Line{Change: c.clean(), Times: 1})
	}
	return m
}

func TestMessage_Subject(t *testing.T) {
	for want, m := range map[string]Message{
		"h1: shop is sick":                              message(of("shop", Sick, "x")),
		"h1: a is crashing, 2 services are sick":        message(of("b", Sick), of("a", Crashing), of("c", Sick)),
		"h1: an upgrade of shop failed":                 message(of("shop", FailedUpgrade)),
		"h1: a run of shop nightly failed":              message(Change{Host: "h1", Service: "shop", Job: "nightly", Kind: FailedRun}),
		"h1: the engine is back, 2 have recovered":      message(of("a", Recovered), of("b", Recovered), Change{Host: "h1", Kind: EngineBack}),
		"h1, h2: 2 services are sick":                   message(of("a", Sick), Change{Host: "h2", Service: "a", Kind: Sick}),
		"3 hosts: 3 engines are gone":                   message(Change{Host: "h1", Kind: EngineGone}, Change{Host: "h2", Kind: EngineGone}, Change{Host: "h3", Kind: EngineGone}),
		"h1: 2 upgrades failed, 2 runs failed":          message(of("a", FailedUpgrade), of("a", FailedUpgrade), of("b", FailedRun), of("b", FailedRun)),
		"h1: evil name is sick":                         message(of("evil\r\nname", Sick)),
		"h1: the engine is gone, shop has recovered":    message(Change{Host: "h1", Kind: EngineGone}, of("shop", Recovered)),
		"h1: 2 services are crashing, 3 have recovered": message(of("a", Crashing), of("b", Crashing), of("c", Recovered), of("d", Recovered), of("e", Recovered)),
	} {
		if got := m.Subject(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestMessage_BodyIsLinesForPeople(t *testing.T) {
	m := message(of("shop", Sick, "GET :3000/health:\n503"), Change{Host: "h2", Kind: EngineBack})
	m.Lines[1].Since, m.Lines[1].Was = noon.Add(-90*time.Second), EngineGone
	m.Lost = 12
	want := `12:00:00 h1 shop (v1) is sick: GET :3000/health: 503
12:00:00 h2 the engine is back, was gone for 1m30s
12 changes before these could not be told
`
	if d := cmp.Diff(want, m.Body()); d != "" {
		t.Error(d)
	}
}

func TestChange_IsCleanAndBounded(t *testing.T) {
	c := Change{Service: strings.Repeat("s", 500), Text: "\x1b[31mred\x00\tand\xff " + strings.Repeat("ä", 500)}.clean()
	if utf8.RuneCountInString(c.Service) != wordBound || utf8.RuneCountInString(c.Text) != textBound || !strings.HasPrefix(c.Text, "[31mred and ä") {
		t.Errorf("%q", c)
	}
}

func TestSlackText_IsEscapedAndBounded(t *testing.T) {
	for want, m := range map[string]Message{
		"h1: shop (v1) is sick: &lt;!channel&gt; a &amp;&amp; b":                            message(of("shop", Sick, "<!channel> a && b")),
		"h1: 2 services are sick\n12:00:00 a (v1) is sick: x&gt;1\n12:00:00 b (v1) is sick": message(of("a", Sick, "x>1"), of("b", Sick)),
	} {
		if got := slackText(m); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	var many []Change
	for i := range 100 {
		many = append(many, of(fmt.Sprint("s", i), Sick, strings.Repeat("&", 100)))
	}
	got := slackText(message(many...))
	if len(got) > slackBound || len(got) < slackBound-700 || !strings.HasSuffix(got, "&amp;\n…") || strings.Contains(strings.ReplaceAll(got, "&amp;", ""), "&") {
		t.Errorf("%d bytes: …%s", len(got), got[len(got)-50:])
	}
	one := slackText(message(of("s", Sick, strings.Repeat("&", 400))))
	if len(one) > slackBound {
		t.Errorf("%d bytes", len(one))
	}
}
