//go:build goexperiment.runtimesecret

package material

import "runtime/secret"

// erasing calls f, and then wipes the registers, stack and, when they are collected, heap objects that it used. f must not panic.
func erasing(f func()) { secret.Do(f) }
