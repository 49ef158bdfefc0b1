//go:build !lockorder

package lock

import "sync"

// Mutex is a sync.Mutex.
type Mutex[K Kind] struct{ sync.Mutex }

// RWMutex is a sync.RWMutex.
type RWMutex[K Kind] struct{ sync.RWMutex }

// AssertNone says that the calling goroutine is about to wait for what must not be waited for with
// a lock held: the key service, the kernel, or a program.
func AssertNone(string) {}

// Finish ends the measurement.
func Finish() {}
