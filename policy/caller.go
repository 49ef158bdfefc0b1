// Package policy says who a caller is, and what key policies and directory policies let it do.
package policy

// Caller is the process behind a request, as the kernel names it: never what the process says of itself.
type Caller struct {
	// UID and GID are the effective user and group ID of the process.
	UID, GID uint32
	// Groups holds its supplementary group IDs, where they are known.
	Groups []uint32
	// PID is its process ID in the service's PID namespace; 0 if it has none there.
	PID int32
}
