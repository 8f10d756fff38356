package notify

import (
	"strings"

	"conductor/internal/spec"
)

// slackBound is the length in bytes above which Slack shortens a text.
const slackBound = 3800

// NewSlack returns a target for an incoming webhook of Slack, or of what takes
// the same.
func NewSlack(name string, u spec.HiddenURL) Target {
	return newPoster(name, u, func(m Message) any {
		return map[string]string{"text": slackText(m)}
	})
}

// slackEscape keeps text from being read as a link, a mention or a command.
var slackEscape = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")

// slackText is the subject, and as many lines of the body as there is room for.
func slackText(m Message) string {
	text := m.Subject()
	if len(m.Lines) == 1 && m.Lost == 0 { // the subject would say it twice
		return slackEscape.Replace(m.where() + ": " + m.Lines[0].String())
	}
	text = slackEscape.Replace(text)
	const more = "\n…"
	for line := range strings.Lines(m.Body()) {
		line = slackEscape.Replace(strings.TrimSuffix(line, "\n"))
		if len(text)+1+len(line)+len(more) > slackBound {
			return text + more
		}
		text += "\n" + line
	}
	return text
}
