package volume

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"kmsfs/cmd/kmsfs/internal/cli"
	"kmsfs/cmd/kmsfs/internal/output"
	"kmsfs/cmd/kmsfs/internal/session"
	"kmsfs/fs/control"
	"kmsfs/keyservice"
	keyhome "kmsfs/keyservice/home"
)

// healthTimeout is how long a key service may take to say how it is.
const healthTimeout = 10 * time.Second

// errUnhealthy is the error of a service that denies all calls.
var errUnhealthy = errors.New("the key service denies all calls: its audit log can't be written")

// status is what can be seen from outside.
type status struct {
	Home   string
	Served bool
	// Failing says why the key service denies all calls; empty if it does not.
	Failing string `json:",omitempty"`
	// Warnings says what else is wrong.
	Warnings []string `json:",omitempty"`
	Mounts   []statusMount
}

type statusMount struct {
	Mountpoint, Volume string
	// Locked says that kmsfs lock has locked the mount.
	Locked bool `json:",omitempty"`
}

// Status is the command "kmsfs status".
func Status() *cobra.Command {
	var home string
	var asJSON bool
	c := &cobra.Command{
		Use: "status [OPTIONS]", GroupID: cli.Volumes, Short: "Show what is mounted and whether the key service works",
		Long: `
Shows the mounted volumes, whether a process serves the key service home, and
whether that process can write its audit log. If it can't, it denies all calls,
and the exit status is 1. Warns of audit records and digests that could not be
sent or exported.`,
		Example: `
  kmsfs status
  kmsfs status --json`,
		Args: cli.None,
		RunE: func(*cobra.Command, []string) error { return showStatus(home, asJSON) },
	}
	session.DeclareHome(c.Flags(), &home)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func showStatus(home string, asJSON bool) error {
	s, err := findStatus(home)
	if err != nil {
		return err
	}
	if err := s.print(asJSON); err != nil {
		return err
	}
	if s.Failing != "" {
		return fmt.Errorf("%w: %s", errUnhealthy, s.Failing)
	}
	return nil
}

func findStatus(home string) (s status, err error) {
	if s.Home, err = session.HomeDir(home); err != nil {
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
	if errors.Is(err, keyhome.ErrNotServed) {
		err = nil
	}
	return s, err
}

func (s *status) print(asJSON bool) error {
	if asJSON {
		return output.JSON(s)
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
		lines = append(lines, "Warning", warning)
	}
	if err := output.Facts(lines...); err != nil || len(s.Mounts) == 0 {
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
	return output.Table(rows)
}
