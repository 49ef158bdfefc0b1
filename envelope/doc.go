// Package envelope reads and writes the sealed-file format: headers, blocks, names, symlink targets, extended
// attributes, directory records and a volume's configuration. FORMAT.md specifies it byte by byte, and the names here
// are the names there. The package knows neither FUSE nor a key service: its users bring data keys and storage.
//
//   - volume.go: a volume, its configuration and the keys under its metadata key
//   - name.go, symlink.go, attribute.go, directory.go, mark.go: what is sealed under those
//   - header.go, overflow.go: a file's header
//   - layout.go: the arithmetic between plaintext and ciphertext offsets
//   - rewrap.go: the steps by which a header and its overflow are replaced
//   - block.go, file.go, write.go, shrink.go, hole.go: a file's content
//   - chunk.go, slot.go, pack.go, undo.go: the content of a file that is compressed
//   - recover.go, recover_chunk.go: what is accepted after an unclean end
package envelope
