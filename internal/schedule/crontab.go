package schedule

import (
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// The limits of cron, in lines and bytes.
const (
	maxLines    = 10000
	maxCommand  = 998 // a longer command is refused
	maxVariable = 998 // a longer line with a variable is cut off
	maxNumber   = 999 // digits or letters
)

// Crontab is a crontab in the form of a user's (there is no user column), line
// by line as it was written.
type Crontab struct {
	Lines []Line
}

// Line is one line of a crontab. A blank line and a comment have neither a
// variable nor a job.
type Line struct {
	Number   int       // from 1
	Text     string    // as written, without its newline
	Variable *Variable // what the line sets, or nil
	Job      *Job      // what the line runs, or nil
}

// Variable is NAME=VALUE, its value as cron passes it on.
type Variable struct {
	Name, Value string
}

// Job is a command and when cron runs it.
type Job struct {
	Line     int      // from 1
	Fields   string   // as written: "*/30 * * * *", "@daily"
	Schedule Schedule // what the fields mean
	Command  string   // what the shell is given: without the % and \ that are cron's
	Input    string   // what the command is given on its standard input
	Written  string   // command and input as the line has them
	Shell    string   // what SHELL before it says, or DefaultShell

	// What a directive in a comment before the line says.
	OnLock OnLock         // "": nothing
	Jitter *time.Duration // nil: nothing; at most a day
}

// Jobs are the crontab's jobs in order.
func (c Crontab) Jobs() []Job {
	var jobs []Job
	for _, l := range c.Lines {
		if l.Job != nil {
			jobs = append(jobs, *l.Job)
		}
	}
	return jobs
}

// Argv is what runs in the job's container: a plain command's own words, or its
// shell with any other.
func (j Job) Argv() []string {
	if words, plain := divided(j.Command); plain {
		return words
	}
	return []string{j.Shell, "-c", j.Command}
}

// String is the crontab as it was written, each line with its newline.
func (c Crontab) String() string {
	var b strings.Builder
	for _, l := range c.Lines {
		b.WriteString(l.Text)
		b.WriteByte('\n')
	}
	return b.String()
}

// Parse reads a crontab. Its error is Problems, one for each bad line; there is
// no crontab then.
func Parse(text string) (Crontab, error) {
	texts := strings.Split(text, "\n")
	if texts[len(texts)-1] == "" {
		texts = texts[:len(texts)-1]
	}
	var (
		c        Crontab
		shell    = DefaultShell
		problems Problems
		next     directive // for the next job
	)
	refuse := func(line int, p *Problem) {
		p.Line = line
		problems = append(problems, *p)
	}
	for i, text := range texts {
		line := Line{Number: i + 1, Text: text}
		if line.Number > maxLines {
			refuse(line.Number, bad("make fewer jobs of them", "the crontab has %d lines, cron takes %d", len(texts), maxLines))
			break
		}
		if p := line.parse(&next); p != nil {
			refuse(line.Number, p)
		}
		if v := line.Variable; v != nil && v.Name == "SHELL" {
			shell = v.Value
		}
		if line.Job != nil {
			line.Job.Shell, line.Job.OnLock, line.Job.Jitter = shell, next.onLock, next.jitter
			next = directive{}
		}
		c.Lines = append(c.Lines, line)
	}
	if next.line > 0 {
		refuse(next.line, bad("put it before the job that it is for", "no job comes after this directive"))
	}
	if err := problems.err(); err != nil {
		return Crontab{}, err
	}
	return c, nil
}

// parse finds out what the line is; a directive adds to next.
func (l *Line) parse(next *directive) *Problem {
	if p := legible(l.Text); p != nil {
		return p
	}
	text := strings.TrimLeft(l.Text, " \t")
	if text == "" {
		return nil
	}
	if comment, ok := strings.CutPrefix(text, "#"); ok {
		return next.parse(l.Number, comment)
	}
	if v, ok := parseVariable(text); ok {
		l.Variable = &v
		return v.check(text)
	}
	job, p := parseJob(text)
	if job != nil {
		job.Line = l.Number
		l.Job = job
	}
	return p
}

// legible refuses what cannot be passed on to a container as it is, and what
// would act on the terminal of whoever looks at the crontab.
func legible(text string) *Problem {
	if !utf8.ValidString(text) {
		return bad("write the crontab in UTF-8", "%s is not UTF-8", brief(text))
	}
	for i, r := range text {
		switch {
		case r == '\r':
			return bad("end the lines with a newline alone", "there is a carriage return at byte %d", i+1)
		case unicode.IsControl(r) && r != '\t':
			return bad("take it out", "there is a control character (%U) at byte %d", r, i+1)
		}
	}
	return nil
}

func parseJob(text string) (*Job, *Problem) {
	schedule, written, rest, problem := parseSchedule(text)
	job := &Job{Fields: written, Schedule: schedule, Written: rest}
	job.Command, job.Input = decode(rest)
	if problem != nil {
		return job, problem
	}
	switch {
	case strings.HasPrefix(rest, "*"):
		return job, bad("there are five fields before it; did you write six?", "the command %s begins with *", brief(rest))
	case len(rest) > maxCommand:
		return job, bad("put it into a script", "the command has %d bytes, cron takes %d", len(rest), maxCommand)
	case strings.Trim(job.Command, " \t") == "":
		return job, bad("write one after the time", "there is no command")
	}
	return job, nil
}
