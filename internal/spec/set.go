package spec

import (
	"errors"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"conductor/internal/fault"
)

// Set is all definitions of a host.
type Set struct {
	Services map[string]Service // those that are valid, by id
	// Invalid has the Problems of files that are not, by id; by file name where
	// that gives no id.
	Invalid map[string]error
	Dir     string // services_dir, for messages
	// at is where the keys of each service were written, for conflicts. A Set
	// made by hand has none, and conflicts point at line 1.
	at map[string]map[string]position
}

// idGrammar is the id of a service, and its file's name without .yml.
var idGrammar = regexp.MustCompile(`^[a-z0-9]+([_-][a-z0-9]+)*$`)

const idRule = "lower-case letters and digits, in parts joined by one - or _, at most 63 characters"

// ValidID reports whether id can be a service's.
func ValidID(id string) bool { return len(id) <= 63 && idGrammar.MatchString(id) }

// LoadServices reads the definitions in fsys, which is services_dir; dir is its
// name for messages. Mistakes in files are in Set.Invalid and no error; an
// error (fault.ErrHost) means that the directory itself cannot be read. A
// directory that is not there is an empty set.
func LoadServices(fsys fs.FS, dir string) (Set, error) {
	s := Set{Services: map[string]Service{}, Invalid: map[string]error{}, Dir: dir, at: map[string]map[string]position{}}
	entries, err := fs.ReadDir(fsys, ".")
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, fault.New(fault.ErrHost, "check services_dir and its permissions", "read definitions in %s: %w", dir, err)
	}
	for _, e := range entries {
		name := e.Name()
		ext := path.Ext(name)
		if strings.HasPrefix(name, ".") || ext != ".yml" && ext != ".yaml" {
			continue // editors' and people's own files
		}
		info, err := fs.Stat(fsys, name) // follows links
		if err == nil && info.IsDir() {
			continue
		}
		file, id := filepath.Join(dir, name), strings.TrimSuffix(name, ext)
		refuse := func(key, hint, format string, args ...any) {
			d := newDecoder(file)
			d.fail(position{}, hint, format, args...)
			s.Invalid[key] = d.problems.err()
		}
		switch {
		case ext == ".yaml":
			refuse(name, "rename it to "+id+".yml", "only files that end in .yml are read")
		case !ValidID(id):
			refuse(name, "rename it: "+idRule, "the file's name is not a valid service id: %s", quote(id))
		case err != nil:
			refuse(id, "", "cannot be read: %s", err)
		case !info.Mode().IsRegular():
			refuse(id, "", "is not a regular file") // opening a pipe would wait for ever
		case info.Size() > maxFile:
			refuse(id, "", "the file is larger than %d bytes", maxFile)
		default:
			data, err := fs.ReadFile(fsys, name)
			if err != nil {
				refuse(id, "", "cannot be read: %s", err)
				continue
			}
			d := newDecoder(file)
			service := d.service(id, data)
			if err := d.problems.err(); err != nil {
				s.Invalid[id] = err
				continue
			}
			s.Services[id], s.at[id] = service, d.at
		}
	}
	return s, nil
}

// ParseService reads one definition. All its mistakes are returned together,
// as Problems.
func ParseService(file, id string, data []byte) (Service, error) {
	d := newDecoder(file)
	s := d.service(id, data)
	return s, d.problems.err()
}

// IDs returns the ids of the valid services, in order.
func (s Set) IDs() []string { return slices.Sorted(maps.Keys(s.Services)) }

// Get returns a valid service, or fault.ErrDefinition: its problems, or that
// there is none of that id.
func (s Set) Get(id string) (Service, error) {
	if v, ok := s.Services[id]; ok {
		return v, nil
	}
	for _, key := range []string{id, id + ".yaml", id + ".yml"} {
		if err, ok := s.Invalid[key]; ok {
			return Service{}, err
		}
	}
	known := s.IDs()
	for key := range s.Invalid {
		if ValidID(key) {
			known = append(known, key)
		}
	}
	slices.Sort(known)
	hint := "define it in " + filepath.Join(s.Dir, id+".yml")
	switch {
	case !ValidID(id):
		hint = "an id has " + idRule
	case len(known) == 0:
		hint = "there are no definitions in " + s.Dir + ": " + hint
	}
	if n := nearest(id, known); n != "" {
		hint = "did you mean " + n + "? Definitions are in " + s.Dir
	}
	return Service{}, fault.New(fault.ErrDefinition, hint, "unknown service %s", quote(id))
}

// Err returns all problems of all files, with the conflicts between them and
// dependencies that cannot be met, or nil.
func (s Set) Err() error {
	var all Problems
	for _, err := range s.Invalid {
		var ps Problems
		if !errors.As(err, &ps) {
			ps = Problems{{File: s.Dir, Line: 1, Column: 1, Message: err.Error()}}
		}
		all = append(all, ps...)
	}
	for id := range s.Services {
		all = append(all, s.conflicts(id)...)
	}
	all = append(all, s.dependencies()...)
	return all.err()
}

// problem is a mistake of a whole service, at its key.
func (s Set) problem(id, key, hint, message string) Problem {
	d := newDecoder(s.Services[id].File)
	if at, ok := s.at[id]; ok {
		d.at = at
	}
	d.failAt(key, hint, "%s", message)
	return d.problems[0]
}

// dependencies finds depends_on that names no service, or goes in a circle.
func (s Set) dependencies() Problems {
	var ps Problems
	for _, id := range s.IDs() {
		for _, on := range s.Services[id].Policy.DependsOn {
			_, valid := s.Services[on]
			_, known := s.Invalid[on]
			switch {
			case !valid && !known:
				ps = append(ps, s.problem(id, "depends_on", didYouMean(on, s.IDs()), "there is no service "+on))
			case valid && s.reaches(on, id, map[string]bool{}):
				ps = append(ps, s.problem(id, "depends_on", "", on+" depends on "+id+" in turn"))
			}
		}
	}
	return ps
}

// reaches reports whether from depends on to, directly or not.
func (s Set) reaches(from, to string, seen map[string]bool) bool {
	if seen[from] {
		return false
	}
	seen[from] = true
	return slices.ContainsFunc(s.Services[from].Policy.DependsOn, func(on string) bool {
		return on == to || s.reaches(on, to, seen)
	})
}
