// Package memory is a backing directory in memory, for tests: it behaves as a file system does,
// fails where it is told to, and shows what a disk may hold after a power cut.
//
// # What a crash leaves
//
// The model is that of a journaling file system, with as little promised as ext4 (data=ordered),
// XFS and btrfs promise in common:
//
//   - Changes of metadata (names, kinds, owners, modes, attributes, symlink targets, truncations,
//     holes) reach the disk in the order in which they were made: what a crash leaves is a prefix
//     of them.
//   - A page of 4096 bytes is written whole. The pages that were written since they were last
//     synced are on the disk in any subset, each as it was after any of its writes. So is the page
//     within which a file was cut: it stays where it was, and may be overwritten before the cut is
//     on the disk.
//   - A page is only there in a file that is there, and not behind a truncation or hole that came
//     after it. A page that is behind the end of the file on the disk makes the file so long; pages
//     between are zeros.
//   - fsync of a node makes its pages durable and its metadata, with all metadata before (ext4,
//     XFS: one journal), or with what it depends on only (Options.SingleSync: btrfs's log of one
//     inode).
//   - fdatasync makes pages, size and the name under which the file was made durable, and no other
//     metadata. ext4 commits its whole journal then, but only if size or blocks changed, so no
//     format may count on more.
//   - Options.SizeFirst lets the end of a file reach the disk before the pages do: they are zeros
//     then.
//
// Nothing else is promised, so a format that survives all crashes of this model survives those of
// the three file systems.
package memory
