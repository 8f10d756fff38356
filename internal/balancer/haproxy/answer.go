package haproxy

import (
	"encoding/csv"
	"fmt"
	"strconv"
	"strings"

	"conductor/internal/balancer"
	"conductor/internal/fault"
)

// answer is what HAProxy says of a backend.
type answer struct {
	servers  map[string]balancer.Server // by the server's name
	stopping bool                       // by a process that a reload has replaced
}

// Reasons not to send a server requests (srv_admin_state), as bits. The first
// three of maint: set by somebody, by whom it tracks, by the configuration;
// the last: its name cannot be resolved, which is no decision of anybody.
const (
	forcedMaint    = 0x01
	inheritedMaint = 0x02
	forcedDrain    = 0x08
	inheritedDrain = 0x10
	resolveMaint   = 0x20
)

// What a server's check came to (srv_op_state).
const (
	opStarting = 1 // up, and given more requests little by little
	opRunning  = 2
)

// parse reads the answers to show servers state, show stat and show info, in
// this order. Columns are found by their names, which are HAProxy's promise.
func parse(text, backend string) (answer, error) {
	states, ok := table(text, "# be_id", ' ')
	if !ok {
		return answer{}, refusal(strings.TrimSpace(text), backend)
	}
	stats, ok := table(text, "# pxname", ',')
	if !ok {
		return answer{}, strange("no statistics", text)
	}
	_, info, ok := strings.Cut(text, "\nName: ")
	if !ok || !strings.Contains(info, "\n\n") {
		return answer{}, strange("its end is missing", text)
	}
	a := answer{servers: map[string]balancer.Server{}, stopping: strings.Contains(info, "\nStopping: 1\n")}
	if n := field(info, "Nbproc"); n != "" && n != "1" {
		return answer{}, fault.New(fault.ErrHost, "let HAProxy run with nbthread in place of nbproc", "ask HAProxy: it runs %s processes, and a socket reaches one of them", n)
	}
	for _, row := range states {
		s, err := server(row)
		if err != nil {
			return answer{}, err
		}
		a.servers[row["srv_name"]] = s
	}
	for _, row := range stats {
		s, ok := a.servers[row["svname"]]
		if !ok {
			continue
		}
		if err := count(&s, row); err != nil {
			return answer{}, err
		}
		a.servers[row["svname"]] = s
	}
	return a, nil
}

// server reads a row of show servers state.
func server(row map[string]string) (balancer.Server, error) {
	op, err1 := strconv.Atoi(row["srv_op_state"])
	admin, err2 := strconv.ParseUint(row["srv_admin_state"], 10, 32)
	weight, err3 := strconv.Atoi(row["srv_uweight"])
	if row["srv_name"] == "" || err1 != nil || err2 != nil || err3 != nil {
		return balancer.Server{}, strange("a server's state", fmt.Sprint(row))
	}
	s := balancer.Server{
		Away: admin&(forcedMaint|inheritedMaint) != 0,
		// In maint it does not check.
		Up:       op == opRunning || op == opStarting || admin&(forcedMaint|inheritedMaint) != 0,
		Sessions: -1, Requests: -1,
	}
	s.In = !s.Away && admin&(forcedDrain|inheritedDrain) == 0 && weight > 0
	if admin&resolveMaint != 0 {
		s.Up = false
	}
	return s, nil
}

// count adds what a row of show stat says.
func count(s *balancer.Server, row map[string]string) error {
	current, err1 := strconv.Atoi(row["scur"])
	queued, err2 := strconv.Atoi(row["qcur"])
	total, err3 := strconv.ParseInt(row["stot"], 10, 64)
	if err1 != nil || err2 != nil || err3 != nil {
		return strange("a server's statistics", fmt.Sprint(row))
	}
	s.Sessions, s.Requests = current+queued, total
	s.Says = row["status"]
	if row["weight"] == "0" {
		s.Says += ", weight 0"
	}
	if !s.Up && row["check_status"] != "" {
		s.Says += ", " + row["check_status"]
		if d := row["last_chk"]; d != "" {
			s.Says += ": " + d
		} else if d := row["check_desc"]; d != "" {
			s.Says += ": " + d
		}
	}
	return nil
}

// table finds the table whose header begins so, and returns its rows by the
// names of the columns. It ends at an empty line.
func table(text, header string, comma rune) ([]map[string]string, bool) {
	at := strings.Index(text, header)
	if at < 0 || at > 0 && text[at-1] != '\n' {
		return nil, false
	}
	body, _, ended := strings.Cut(strings.TrimPrefix(text[at:], "# "), "\n\n")
	if !ended {
		return nil, false
	}
	r := csv.NewReader(strings.NewReader(body))
	r.Comma, r.FieldsPerRecord, r.LazyQuotes = comma, -1, true
	records, err := r.ReadAll()
	if err != nil || len(records) == 0 {
		return nil, false
	}
	var rows []map[string]string
	for _, record := range records[1:] {
		row := map[string]string{}
		for i, name := range records[0] {
			if i < len(record) {
				row[name] = record[i]
			}
		}
		rows = append(rows, row)
	}
	return rows, true
}

// field finds "Name: value" in show info.
func field(info, name string) string {
	_, rest, _ := strings.Cut(info, "\n"+name+": ")
	value, _, _ := strings.Cut(rest, "\n")
	return value
}

// refusal is the error that an answer of HAProxy is, which is a sentence.
func refusal(text, backend string) error {
	line, _, _ := strings.Cut(text, "\n")
	line = short(line)
	switch {
	case strings.Contains(text, "Permission denied"):
		return fault.New(fault.ErrHost, "let the socket be: stats socket PATH mode 600 level admin", "tell HAProxy: %w: %s", balancer.ErrRefused, line)
	case strings.Contains(text, "find backend"), strings.Contains(text, "No such backend"), strings.Contains(text, "No such proxy"):
		return fault.New(fault.ErrDefinition, "write balancer.backend as HAProxy's configuration calls it", "ask HAProxy: %w: the backend %s (%s)", balancer.ErrUnknown, backend, line)
	case strings.Contains(text, "No such server"):
		return fault.New(fault.ErrDefinition, "", "tell HAProxy: %w: a server of the backend %s (%s)", balancer.ErrUnknown, backend, line)
	case text == "":
		return fault.New(fault.ErrUnreachable, "look whether HAProxy runs", "ask HAProxy: %w: it answered nothing", balancer.ErrUnreachable)
	}
	return fault.New(fault.ErrProxyRefused, "look at HAProxy's log; 2.0 or later is needed", "tell HAProxy: %w: %s", balancer.ErrRefused, line)
}

// strange is an answer that is cut off, or of something else than HAProxy.
func strange(what, text string) error {
	return fault.New(fault.ErrUnreachable, "look whether HAProxy runs, 2.0 or later, and has this socket", "ask HAProxy: %w: %s in the answer %q", balancer.ErrUnreachable, what, short(text))
}

func short(s string) string {
	if len(s) > 200 {
		return s[:200] + "…"
	}
	return s
}
