package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"kmsfs/fs/control"
	"kmsfs/keyservice"
	"kmsfs/keyservice/audit"
)

// healthTimeout is how long a key service may take to say how it is.
const healthTimeout = 10 * time.Second

// errUnhealthy is the exit status of a service that refuses calls.
var errUnhealthy = errors.New("the key service refuses calls: its audit log can't be written")

// status is what there is to be seen from outside.
type status struct {
	Home   string
	Served bool
	// Failing says why the key service refuses calls; empty if it doesn't.
	Failing string `json:",omitempty"`
	// Warnings are what is wrong besides.
	Warnings []string `json:",omitempty"`
	Mounts   []statusMount
}

type statusMount struct {
	Mountpoint, Volume string
	// Locked says that kmsfs lock has taken the files away.
	Locked bool `json:",omitempty"`
}

func statusCommand() command {
	return command{
		name: "status", arguments: "[OPTIONS]", summary: "show what is mounted, and whether the key service works",
		details: `
Shows the mounted volumes, whether a process serves the key service home, and whether that can write its audit log: if not, it refuses
all calls, and the exit status is 1. It warns of records and digests that couldn't be sent or exported.

Examples:
  kmsfs status
  kmsfs status --json`,
		prepare: func(flags *pflag.FlagSet) func([]string) error {
			var home string
			declareHome(flags, &home)
			asJSON := flags.Bool("json", false, "print JSON")
			return func(args []string) error {
				if len(args) != 0 {
					return usagef("status", "want no arguments, got %d", len(args))
				}
				s, err := findStatus(home)
				if err != nil {
					return err
				}
				if err := s.print(*asJSON); err != nil {
					return err
				}
				if s.Failing != "" {
					return fmt.Errorf("%w: %s", errUnhealthy, s.Failing)
				}
				return nil
			}
		},
	}
}

func findStatus(home string) (s status, err error) {
	if s.Home, err = homeDir(home); err != nil {
		return s, err
	}
	mounted, err := control.KmsfsMounts()
	if err != nil {
		return s, err
	}
	s.Mounts = []statusMount{}
	for _, m := range mounted {
		s.Mounts = append(s.Mounts, statusMount{m.Path, m.Source, control.IsLocked(m.Path)})
	}
	ctx, cancel := context.WithTimeout(context.Background(), healthTimeout)
	defer cancel()
	health, err := keyservice.Health(ctx, s.Home)
	s.Failing, s.Warnings = health.Reason, health.Warnings
	s.Served = err == nil
	if errors.Is(err, keyservice.ErrNotServed) {
		err = nil
	}
	return s, err
}

func (s *status) print(asJSON bool) error {
	if asJSON {
		return printJSON(s)
	}
	service := s.Home + ", no process serves it"
	switch {
	case s.Failing != "":
		service = s.Home + ", served, FAILING: " + s.Failing
	case s.Served:
		service = s.Home + ", served, healthy"
	}
	lines := []string{"Key service", service}
	for _, warning := range s.Warnings {
		lines = append(lines, "Warning", audit.Shown(warning))
	}
	if err := facts(lines...); err != nil || len(s.Mounts) == 0 {
		return err
	}
	rows := [][]string{{"MOUNTPOINT", "VOLUME", ""}}
	for _, m := range s.Mounts {
		state := ""
		if m.Locked {
			state = "locked"
		}
		rows = append(rows, []string{m.Mountpoint, m.Volume, state})
	}
	return table(rows)
}
