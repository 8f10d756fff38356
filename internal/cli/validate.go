package cli

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"conductor/internal/display"
	"conductor/internal/fault"
	"conductor/internal/spec"
)

func (a *app) validate() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "validate [FILE…]",
		Short: "Check definitions and show every mistake at once",
		Long: `Checks conductor.yml and all definitions, also against each other, and the
fleet.yml of this folder or of --fleet, and shows every mistake with its place.
Nothing is opened or changed: it runs anywhere.

With FILEs it checks those alone: definitions, folders of them, and
conductor.yml and fleet.yml by their names. A file outside services_dir may have
any name, so that configuration management can check a draft before it puts it
in its place.`,
		Example: "conductor validate services/shop.yml",
		RunE: func(_ *cobra.Command, files []string) error {
			r, err := a.check(files)
			if err != nil {
				return err
			}
			return a.showReport(r)
		},
	}
	a.fleetFlag(cmd.Flags())
	return cmd
}

// report is what validate found; it is its JSON too.
type report struct {
	OK       bool          `json:"ok"`
	Services int           `json:"services"`
	Hosts    int           `json:"hosts,omitempty"` // of the fleet
	Problems spec.Problems `json:"-"`
	Mistakes []mistake     `json:"problems"`
	config   bool          // conductor.yml was among the files
}

type mistake struct {
	File    string `json:"file"`
	Line    int    `json:"line"`
	Column  int    `json:"column"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

func (a *app) check(files []string) (report, error) {
	var r report
	if err := a.checkServices(files, &r); err != nil {
		return r, err
	}
	if err := a.checkFleet(len(files) == 0, &r); err != nil {
		return r, err
	}
	r.OK = len(r.Problems) == 0
	return r, nil
}

func (a *app) checkServices(files []string, r *report) error {
	set := spec.Set{Services: map[string]spec.Service{}, Invalid: map[string]error{}}
	if len(files) == 0 {
		c, all, err := a.definitions()
		if err := r.add(err); err != nil || len(r.Problems) > 0 {
			return err // where the services are is not known
		}
		if err := r.add(all.CheckNotify(c)); err != nil {
			return err
		}
		set = all
	}
	for _, file := range files {
		if err := a.checkFile(file, &set, r); err != nil {
			return err
		}
	}
	r.Services += len(set.Services) + len(set.Invalid)
	return r.add(set.Err())
}

// checkFleet checks the fleet that --fleet names; and that of this folder, if
// it has one and look says so.
func (a *app) checkFleet(look bool, r *report) error {
	abs, named, err := a.fleetPath()
	if err != nil {
		return err
	}
	if !named {
		_, err := os.Lstat(abs)
		if !look || errors.Is(err, fs.ErrNotExist) || a.inServices(abs) {
			return nil
		}
	}
	f, err := a.readFleet()
	r.Hosts += len(f.Hosts)
	return r.add(err)
}

// add takes the mistakes out of an error; any other error is returned.
func (r *report) add(err error) error {
	if ps, ok := errors.AsType[spec.Problems](err); ok {
		r.Problems = append(r.Problems, ps...)
		return nil
	}
	return err
}

func (a *app) checkFile(file string, set *spec.Set, r *report) error {
	if file == a.fleetFile {
		return nil // checkFleet has it
	}
	info, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return usageError("check the path", "there is no file %s", file)
	}
	if err == nil && info.IsDir() {
		all, err := spec.LoadServices(os.DirFS(file), file)
		if err != nil {
			return err
		}
		r.Services += len(all.Services) + len(all.Invalid)
		return r.add(all.Err())
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return fault.New(fault.ErrHost, "check the file's permissions", "validate: %w", err)
	}
	if filepath.Base(file) == filepath.Base(defaultConfig) || file == a.configFile {
		r.config = true
		abs, err := filepath.Abs(file)
		if err == nil {
			_, err = spec.ParseConfig(abs, data)
		}
		return r.add(err)
	}
	if filepath.Base(file) == defaultFleet && !a.inServices(file) {
		abs, err := filepath.Abs(file)
		if err == nil {
			var f spec.Fleet
			f, err = spec.ParseFleet(abs, data)
			r.Hosts += len(f.Hosts)
		}
		return r.add(err)
	}
	id := strings.TrimSuffix(filepath.Base(file), filepath.Ext(file))
	if !spec.ValidID(id) && !a.inServices(file) {
		id = "draft"
	}
	s, err := spec.ParseService(file, id, data)
	if _, taken := set.Services[id]; taken {
		id = file // two drafts of one service, or of one name
	}
	if err != nil {
		set.Invalid[file] = err
		return nil
	}
	set.Services[id] = s
	return nil
}

// inServices says whether the file is one of services_dir, where its name
// matters.
func (a *app) inServices(file string) bool {
	c, err := a.config()
	if err != nil {
		return false
	}
	abs, err := filepath.Abs(file)
	return err == nil && filepath.Dir(abs) == filepath.Clean(c.ServicesDir)
}

func (a *app) showReport(r report) error {
	if !a.json() {
		if !r.OK {
			return r.Problems
		}
		a.say(r.verdict())
		return nil
	}
	r.Mistakes = make([]mistake, 0, len(r.Problems))
	for _, p := range r.Problems {
		r.Mistakes = append(r.Mistakes, mistake(p))
	}
	if err := a.document(r); err != nil {
		return err
	}
	if r.OK {
		return nil
	}
	display.WriteFailures(a.stderr, false, failures(r.Problems))
	return exitCode(Code(r.Problems))
}

func (r report) verdict() string {
	fleet := "a fleet of " + plural(r.Hosts, "host")
	switch {
	case r.Services == 0 && r.Hosts > 0:
		return fleet + " is valid"
	case r.Services == 0 && r.config:
		return "the configuration is valid"
	case r.Services == 0:
		return "there are no services yet, and so no mistakes"
	case r.Hosts > 0:
		return plural(r.Services, "service") + " and " + fleet + " are valid"
	case r.Services == 1:
		return "1 service is valid"
	}
	return plural(r.Services, "service") + " are valid"
}
