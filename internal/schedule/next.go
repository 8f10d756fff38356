package schedule

import "time"

const (
	// A clock that jumps by more than this, in minutes, was set anew: cron
	// neither catches up nor holds back.
	setAnew = 180
	// Up to this many minutes, cron only woke up late.
	wokeLate = 5
	// The longest wait in a calendar is 40 years: for a Sunday that is the 29th
	// of February, around a year like 2100.
	horizon = 50 // years
	minute  = 60 // seconds
)

// Next returns the first minute after the time, by the clock of the place, in
// which cron runs a job with this schedule, given that cron was running all the
// while. There is none for @reboot and for days that never are (false).
//
// When the clock is put forward by less than 3 hours, jobs of the minutes that
// are left out run in the first minute thereafter, unless their minute or hour
// begins with a *. When it is put back by at most 3 hours, the minutes that
// come again run those alone that begin with a *.
//
// (cron waits 10 s after each job that it catches up with; Next knows only one
// job, and names the minute in which it begins with them.)
func (s Schedule) Next(after time.Time, loc *time.Location) (time.Time, bool) {
	if s.reboot {
		return time.Time{}, false
	}
	after = after.In(loc)
	// Begin early enough to know what the last change of the clock has left.
	begin := after.Add(-24 * time.Hour)
	limit := after.AddDate(horizon, 0, 0)
	_, offset := begin.Zone()
	reached := shown(begin, offset) - 1 // the latest minute that cron has done with
	for begin.Before(limit) {
		_, offset := begin.Zone()
		_, end := begin.ZoneBounds()
		switch {
		case end.IsZero() || end.After(limit):
			end = limit
		case !end.After(begin): // of the 366th day of a year ZoneBounds tells a wrong end
			end = begin.Add(24 * time.Hour)
		}
		first, last := shown(begin, offset), shown(end.Add(-1), offset)

		from := first // the first minute whose own jobs run
		switch jump := first - reached; {
		case jump > setAnew || jump <= -setAnew:
			reached = first - 1
		case jump > 1 && (!s.wildcard || jump <= wokeLate):
			if _, missed := s.match(reached+1, first); missed && begin.After(after) {
				return begin, true
			}
			from = first + 1
		case jump <= 0 && !s.wildcard:
			from = reached + 1
		}
		if end.After(after) {
			if m, ok := s.match(max(from, shown(after, offset)+1), last); ok {
				return time.Unix(max(m*minute-int64(offset), begin.Unix()), 0).In(loc), true
			}
		}
		reached = max(reached, last)
		begin = end
	}
	return time.Time{}, false
}

// shown is the minute that a clock shows which is offset seconds ahead of UTC,
// as if it were UTC: minutes since 1970.
func shown(t time.Time, offset int) int64 {
	s := t.Unix() + int64(offset)
	return (s - ((s%minute)+minute)%minute) / minute
}

// match returns the first minute on a clock, from and to included, that the
// fields name.
func (s Schedule) match(from, to int64) (int64, bool) {
	for t := time.Unix(from*minute, 0).UTC(); t.Unix()/minute <= to; {
		y, m, d := t.Date()
		switch {
		case s.month>>m&1 == 0:
			t = time.Date(y, m+1, 1, 0, 0, 0, 0, time.UTC)
		case !s.day(t):
			t = time.Date(y, m, d+1, 0, 0, 0, 0, time.UTC)
		case s.hour>>t.Hour()&1 == 0:
			t = time.Date(y, m, d, t.Hour()+1, 0, 0, 0, time.UTC)
		case s.minute>>t.Minute()&1 == 0:
			t = t.Add(minute * time.Second)
		default:
			return t.Unix() / minute, true
		}
	}
	return 0, false
}

func (s Schedule) day(t time.Time) bool {
	dom, dow := s.dom>>t.Day()&1 == 1, s.dow>>t.Weekday()&1 == 1
	if s.bothDays {
		return dom && dow
	}
	return dom || dow
}
