package schedule

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
)

// Target is what the lines of a generated crontab call.
type Target struct {
	Conductor string        // absolute path of the executable
	Config    string        // absolute path of the file; "": none is named
	Service   string        // --id
	Revision  string        // --revision
	OnLock    OnLock        // of jobs whose directive says nothing; "": Allow
	Jitter    time.Duration // of jobs whose directive says nothing
	User      string        // the user column, for /etc/cron.d; "": a user's crontab, which has none
}

// Generate returns the crontab that runs the jobs of c in containers: fields,
// comments and blank lines as they are, each command behind "conductor run".
//
// The crontab comes from an image and the result runs on the host, so no line
// of it does anything on the host but calling conductor. Of the variables,
// those that only cron reads stay; SHELL becomes the shell that commands are
// wrapped for; all others become --env of the jobs after them.
//
// An error about lines is Problems; any other means that the target is wrong.
func Generate(c Crontab, t Target) (string, error) {
	if err := t.check(); err != nil {
		return "", err
	}
	var (
		b        strings.Builder
		problems Problems
		env      environment
	)
	for _, line := range c.Lines {
		switch v := line.Variable; {
		case line.Job != nil:
			text := t.command(*line.Job, env)
			if len(text) > maxCommand {
				problems = append(problems, Problem{Line: line.Number,
					Message: fmt.Sprintf("what runs %s in a container has %d bytes or more, cron takes %d",
						brief(line.Job.Command), len(text), maxCommand),
					Hint: "put the command into a script in the image, and its variables into the service's environment"})
				continue
			}
			b.WriteString(line.Job.Fields)
			if t.User != "" {
				b.WriteString(" " + t.User)
			}
			b.WriteString(" " + text + "\n")
		case v == nil:
			b.WriteString(line.Text + "\n")
		case v.Name == "SHELL": // the jobs know theirs
		case cronOwn[v.Name]:
			b.WriteString(v.String() + "\n")
		default:
			env.set(*v)
		}
	}
	if err := problems.err(); err != nil {
		return "", err
	}
	return b.String(), nil
}

// command is what stands after the time fields in the job's line, as cron
// wants it.
func (t Target) command(j Job, env environment) string {
	words := []string{t.Conductor, "run"}
	if t.Config != "" {
		words = append(words, "--config", t.Config)
	}
	words = append(words, "--id", t.Service, "--revision", t.Revision)
	onLock, jitter := t.Options(j)
	if onLock != Allow {
		words = append(words, "--lock", LockName(t.Service, j), "--on-lock", string(onLock))
	}
	if jitter > 0 {
		words = append(words, "--jitter", brevity(jitter))
	}
	words = append(words, env.words()...)
	for i, w := range words {
		words[i] = Quote(w)
	}
	command := j.Command
	if !Plain(command) {
		command = Wrap(command, j.Shell)
	}
	text := encode(strings.Join(words, " ") + " " + command)
	if _, input, ok := split(j.Written); ok {
		text += "%" + input
	}
	return text
}

// Options are what holds for the job: what its directive says, else the target.
func (t Target) Options(j Job) (OnLock, time.Duration) {
	onLock, jitter := t.OnLock, t.Jitter
	if j.OnLock != "" {
		onLock = j.OnLock
	}
	if onLock == "" {
		onLock = Allow
	}
	if j.Jitter != nil {
		jitter = *j.Jitter
	}
	return onLock, jitter
}

// LockName is the lock that runs of the job take, unless they may overlap.
func LockName(service string, j Job) string { return service + "." + j.Digest() }

// Is tells whether a run was one of the job: by its lock, which names the line,
// else by its command.
func (j Job) Is(service, lock string, command []string) bool {
	return lock == LockName(service, j) || slices.Equal(command, j.Argv())
}

// Digest is 8 digits that identify the job's line: equal as long as the line
// stays the same.
func (j Job) Digest() string {
	sum := sha256.Sum256([]byte(j.Fields + "\n" + j.Written))
	return hex.EncodeToString(sum[:4])
}

// environment is the variables that are set for a job, in the order in which
// their names came.
type environment []Variable

func (e *environment) set(v Variable) {
	i := slices.IndexFunc(*e, func(o Variable) bool { return o.Name == v.Name })
	if i < 0 {
		*e = append(*e, v)
		return
	}
	(*e)[i] = v
}

// words are the flags that set the variables. They end where no line could take
// more, so that a crontab of thousands of variables and jobs costs no more.
func (e environment) words() []string {
	var words []string
	for size, i := 0, 0; i < len(e) && size <= maxCommand; i++ {
		w := e[i].Name + "=" + e[i].Value
		words = append(words, "--env", w)
		size += len(w)
	}
	return words
}

// userName is what useradd takes, which has nothing that cron would divide.
var userName = regexp.MustCompile(`^[a-z_][a-z0-9_-]*\$?$`)

func (t Target) check() error {
	for _, f := range [...]struct{ name, value string }{
		{"path of the executable", t.Conductor}, {"path of the configuration", t.Config},
		{"service", t.Service}, {"revision", t.Revision},
	} {
		if strings.ContainsFunc(f.value, unicode.IsControl) {
			return fmt.Errorf("generate crontab: the %s %q has a control character, and no crontab can hold it", f.name, f.value)
		}
	}
	switch {
	case !path.IsAbs(t.Conductor):
		return fmt.Errorf("generate crontab: the path of the executable, %q, is not absolute, and cron's PATH is short", t.Conductor)
	case t.Config != "" && !path.IsAbs(t.Config):
		return fmt.Errorf("generate crontab: the path of the configuration, %q, is not absolute, and cron runs jobs elsewhere", t.Config)
	case t.Service == "" || t.Revision == "":
		return errors.New("generate crontab: service and revision must be named")
	case t.OnLock != "" && !slices.Contains(OnLocks, t.OnLock):
		return fmt.Errorf("generate crontab: on-lock cannot be %q: it is allow, wait, skip or replace", t.OnLock)
	case t.Jitter < 0 || t.Jitter > MaxJitter:
		return fmt.Errorf("generate crontab: jitter cannot be %s: it is from 0s to %s", t.Jitter, brevity(MaxJitter))
	case t.User != "" && !userName.MatchString(t.User):
		return fmt.Errorf("generate crontab: %q is no user of a crontab", t.User)
	}
	return nil
}
