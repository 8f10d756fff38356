// Package schedule reads crontabs as Debian's cron reads them, says when cron
// runs a job, clock changes included, and makes of a service's crontab one that
// runs its jobs in containers.
//
// It is pure: no I/O, no clock. Any room above it may import it; it imports no
// room.
//
// The yardstick is cron 3.0pl1-162 of Debian 12. What cron refuses is refused
// here; what cron takes is taken with the same meaning, but for these, which
// are refused because they cannot have been meant or would not survive:
//
//   - a field that no time matches, such as the hours 22-6, and numbers that
//     overflow;
//   - a job without a command, and a variable without a name;
//   - a variable so long that cron would cut it off;
//   - control characters other than the tab, and what is not UTF-8;
//   - a SHELL that is not the plain absolute path of a program;
//   - a wrong "# conductor:" directive, a comment to cron.
//
// A last line without its newline is taken, since crontabs that are written
// from here end in one.
package schedule
