package volume

import "kmsfs/fs/control"

// OverflowAttribute holds a header's overflow (envelope's FORMAT.md, section 5). It is one of those
// that package control reserves.
const OverflowAttribute = control.Prefix + "more"

// DefaultACL is the attribute of a directory's default ACL.
const DefaultACL = "system.posix_acl_default"

// MaxAttribute is the longest value of an attribute that the kernel passes on, in bytes:
// XATTR_SIZE_MAX.
const MaxAttribute = 64 << 10
