package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// replace puts something else in a file's place.
func replace(t *testing.T, path string, make func(path string) error) {
	t.Helper()
	must(t, os.RemoveAll(path))
	must(t, make(path))
}

// substitutes are what somebody may put where a control file was.
var substitutes = map[string]func(path string) error{
	"FIFO":      func(path string) error { return unix.Mkfifo(path, 0o666) },
	"Dangling":  func(path string) error { return os.Symlink("nowhere", path) },
	"Symlink":   func(path string) error { return os.Symlink("/etc/passwd", path) },
	"Zeros":     func(path string) error { return os.Symlink("/dev/zero", path) },
	"Empty":     func(path string) error { return os.WriteFile(path, nil, 0o600) },
	"Noise":     func(path string) error { return os.WriteFile(path, noise(110, page), 0o600) },
	"Directory": func(path string) error { return os.Mkdir(path, 0o700) },
	"Socket":    func(path string) error { return unix.Mknod(path, unix.S_IFSOCK|0o666, 0) },
	"Huge": func(path string) error {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			return err
		}
		return os.Truncate(path, 1<<40)
	},
}

// flip is an attack that flips one bit.
func flip(name string, at int, bit byte) attack {
	return attack{name: "Flip" + name, bad: "a", run: func(t *testing.T, b backing) {
		b.edit("a", func(c []byte) []byte {
			if at < 0 {
				at += len(c)
			}
			c[at] ^= bit
			return c
		})
	}}
}

// cut is an attack that shortens the ciphertext.
func cut(file string, size int64) attack {
	return attack{name: fmt.Sprint("Cut", file, size), bad: file, run: func(t *testing.T, b backing) { must(t, os.Truncate(b.path(file), size)) }}
}

func attacks() []attack {
	zero := func(at int) func(c []byte) []byte {
		return func(c []byte) []byte {
			clear(c[at*page : min((at+1)*page, len(c))])
			return c
		}
	}
	all := []attack{
		{name: "None", run: func(*testing.T, backing) {}},
		{name: "SwapFiles", bad: "a b", mismatch: true, run: func(_ *testing.T, b backing) { b.exchange("a", "b") }},
		{name: "SwapWithOtherDirectory", bad: "a d1/x", mismatch: true, run: func(_ *testing.T, b backing) { b.exchange("a", "d1/x") }},
		{name: "SwapSameNames", bad: "d1/x d2/x", mismatch: true, run: func(_ *testing.T, b backing) { b.exchange("d1/x", "d2/x") }},
		{name: "MoveOver", bad: "a d1/x", mismatch: true, run: func(t *testing.T, b backing) {
			must(t, os.Rename(b.path("a"), b.path("d1/x")))
		}},
		{name: "MoveToOtherDirectory", bad: "a", absent: "d1/a", run: func(t *testing.T, b backing) {
			must(t, os.Rename(b.path("a"), filepath.Join(b.path("d1"), filepath.Base(b.path("a")))))
		}},
		{name: "CopyOver", bad: "b", mismatch: true, run: func(_ *testing.T, b backing) { b.put("b", b.read("a")) }},
		{name: "CopyOverEmpty", bad: "empty", mismatch: true, run: func(_ *testing.T, b backing) { b.put("empty", b.read("a")) }},
		{name: "EmptyOver", bad: "a", mismatch: true, run: func(_ *testing.T, b backing) { b.put("a", b.read("empty")) }},
		{name: "LinkOver", bad: "b", either: "a", mismatch: true, run: func(t *testing.T, b backing) {
			must(t, os.Remove(b.path("b")))
			must(t, os.Link(b.path("a"), b.path("b")))
		}},
		{name: "PlantHeader", bad: "empty", run: func(_ *testing.T, b backing) { b.put("empty", b.read("a")[:header]) }},
		{name: "PlantHeaderOnAnother", bad: "b", run: func(_ *testing.T, b backing) {
			b.edit("b", func(c []byte) []byte { return append(b.read("a")[:header:header], c[header:]...) })
		}},
		{name: "Chown", bad: "a", mismatch: true, root: true, run: func(t *testing.T, b backing) { must(t, os.Lchown(b.path("a"), nobody, nobody)) }},
		{name: "SwapDirectories", bad: "d1/x d2/x d1/sub/y d2/sub/y", mismatch: true, closed: true, run: func(_ *testing.T, b backing) { b.exchange("d1", "d2") }},
		{name: "SwapInnerDirectories", bad: "d1/sub/y d2/sub/y", mismatch: true, closed: true, run: func(_ *testing.T, b backing) { b.exchange("d1/sub", "d2/sub") }},
		{name: "MoveDirectory", bad: "d1/x d1/sub/y", absent: "d2/d1/x", closed: true, run: func(t *testing.T, b backing) {
			must(t, os.Rename(b.path("d1"), filepath.Join(b.path("d2"), filepath.Base(b.path("d1")))))
		}},
		{name: "MoveDirectoryOver", bad: "d1/x d1/sub/y d2/sub/y", mismatch: true, closed: true, run: func(t *testing.T, b backing) {
			to := b.path("d2/sub")
			must(t, os.RemoveAll(to))
			must(t, os.Rename(b.path("d1"), to))
		}, absent: "d2/sub/x d2/sub/sub/y"},
		{name: "CopyRecord", bad: "d1/x d1/sub/y", mismatch: true, closed: true, run: func(t *testing.T, b backing) {
			content, err := os.ReadFile(b.record("d2"))
			must(t, err)
			overwrite(t, b.record("d1"), content)
		}},
		{
			name: "OldRecord", bad: "d1/x d1/sub/y", absent: "d3/x d3/sub/y", mismatch: true, closed: true,
			prepare: func(t *testing.T, b backing) {
				content, err := os.ReadFile(b.record("d1"))
				must(t, err)
				b.keep["record"] = content
			},
			change: func(t *testing.T, dir string) {
				must(t, os.Rename(filepath.Join(dir, "d1"), filepath.Join(dir, "d3")))
				run(t, dir, "sync", "-f", ".")
			},
			run: func(t *testing.T, b backing) { overwrite(t, b.record("d3"), b.keep["record"]) },
		},
		{
			name: "OldFileAtNewName", bad: "a", absent: "a2", mismatch: true,
			prepare: func(_ *testing.T, b backing) { b.keep["a"] = b.read("a") },
			change: func(t *testing.T, dir string) {
				must(t, os.Rename(filepath.Join(dir, "a"), filepath.Join(dir, "a2")))
			},
			run: func(_ *testing.T, b backing) { b.put("a2", b.keep["a"]) },
		},
		{
			name: "OldBlockUnderNewKey", bad: "a",
			prepare: func(_ *testing.T, b backing) { b.keep["a"] = b.read("a") },
			change:  func(t *testing.T, dir string) { write(t, filepath.Join(dir, "a"), noise(111, 20000)) },
			run: func(_ *testing.T, b backing) {
				b.edit("a", func(c []byte) []byte {
					copy(c[page:], b.keep["a"][page:2*page])
					return c
				})
			},
		},
		{name: "AppendNoise", bad: "a", run: func(_ *testing.T, b backing) {
			b.edit("a", func(c []byte) []byte { return append(c, noise(112, 100)...) })
		}},
		{name: "AppendZeros", bad: "a", run: func(_ *testing.T, b backing) {
			b.edit("a", func(c []byte) []byte { return append(c, make([]byte, 7*page-len(c))...) })
		}},
		{name: "AppendPage", bad: "a", run: func(_ *testing.T, b backing) {
			b.edit("a", func(c []byte) []byte { return append(append(c, make([]byte, 6*page-len(c))...), c[page:2*page]...) })
		}},
		{name: "AppendToEmpty", bad: "empty", run: func(_ *testing.T, b backing) {
			b.edit("empty", func(c []byte) []byte { return append(c, b.read("small")[header:]...) })
		}},
		{name: "ZeroPage", bad: "a", run: func(_ *testing.T, b backing) { b.edit("a", zero(2)) }},
		{name: "ZeroFirst", bad: "a", run: func(_ *testing.T, b backing) { b.edit("a", zero(0)) }},
		{name: "ZeroLast", bad: "a", run: func(_ *testing.T, b backing) { b.edit("a", zero(5)) }},
		{name: "PunchPage", bad: "a", run: func(t *testing.T, b backing) {
			fd := open(t, b.path("a"), unix.O_RDWR)
			must(t, unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, page, page))
		}},
		{name: "SwapPages", bad: "a", run: func(_ *testing.T, b backing) {
			b.edit("a", func(c []byte) []byte {
				return slices.Concat(c[:page], c[2*page:3*page], c[page:2*page], c[3*page:])
			})
		}},
		{name: "RepeatPage", bad: "a", run: func(_ *testing.T, b backing) {
			b.edit("a", func(c []byte) []byte {
				copy(c[2*page:], c[page:2*page])
				return c
			})
		}},
		{name: "ReplayPage", bad: "a", run: func(_ *testing.T, b backing) {
			b.edit("a", func(c []byte) []byte {
				copy(c[page:], b.read("b")[page:2*page])
				return c
			})
		}},
		{name: "ReplayLastPage", bad: "a", run: func(_ *testing.T, b backing) {
			b.edit("a", func(c []byte) []byte { return append(c[:5*page:5*page], b.read("b")[5*page:]...) })
		}},
		{name: "DeleteRecord", bad: "d1/x d1/sub/y", closed: true, run: func(t *testing.T, b backing) { must(t, os.Remove(b.record("d1"))) }},
		{name: "FlipRecord", bad: "d1/x d1/sub/y", closed: true, run: func(t *testing.T, b backing) {
			content, err := os.ReadFile(b.record("d1"))
			must(t, err)
			content[40] ^= 1
			overwrite(t, b.record("d1"), content)
		}},
		{name: "SwapRecords", bad: "d1/x d1/sub/y d2/x d2/sub/y", mismatch: true, closed: true, run: func(t *testing.T, b backing) {
			must(t, unix.Renameat2(unix.AT_FDCWD, b.record("d1"), unix.AT_FDCWD, b.record("d2"), unix.RENAME_EXCHANGE))
		}},
		{name: "SwapDirectoriesWithRecords", bad: "d1/x d1/sub/y d2/x d2/sub/y", closed: true, run: func(t *testing.T, b backing) {
			must(t, unix.Renameat2(unix.AT_FDCWD, b.record("d1"), unix.AT_FDCWD, b.record("d2"), unix.RENAME_EXCHANGE))
			b.exchange("d1", "d2")
		}},
		{name: "ChownDirectory", bad: "d1/x d1/sub/y", mismatch: true, closed: true, root: true, run: func(t *testing.T, b backing) {
			must(t, os.Lchown(b.path("d1"), nobody, nobody))
		}},
		{
			name: "RecordOfFormerOwner", bad: "d1/x d1/sub/y", mismatch: true, closed: true, root: true,
			prepare: func(t *testing.T, b backing) {
				content, err := os.ReadFile(b.record("d1"))
				must(t, err)
				b.keep["record"] = content
			},
			change: func(t *testing.T, dir string) { must(t, os.Chown(filepath.Join(dir, "d1"), nobody, nobody)) },
			run:    func(t *testing.T, b backing) { overwrite(t, b.record("d1"), b.keep["record"]) },
		},
		{name: "CopyDirectory", absent: "d2/d1/x d2/d1/sub/y", run: func(t *testing.T, b backing) {
			run(t, "/", "cp", "-a", b.path("d1"), b.path("d2"))
		}},
		{name: "SwapLongName", either: longName, run: func(t *testing.T, b backing) {
			path := b.path(longName) + ".name"
			if _, err := os.Lstat(path); err == nil { // else names are plaintext: there is none
				overwrite(t, path, []byte(filepath.Base(b.path("a"))))
			}
		}},
		{name: "LinkRecord", bad: "d1/x d1/sub/y", closed: true, run: func(t *testing.T, b backing) {
			must(t, os.Remove(b.record("d1")))
			must(t, os.Symlink(b.record("d2"), b.record("d1")))
		}},
		{name: "HugeFile", bad: "a", run: func(t *testing.T, b backing) { must(t, os.Truncate(b.path("a"), 1<<40)) }},
		{name: "SwapAttributes", run: func(t *testing.T, b backing) {
			for _, name := range []string{"a", "b"} {
				other := map[string]string{"a": "b", "b": "a"}[name]
				for attribute, value := range b.attributes(other) {
					b.keep[name+" "+attribute] = []byte(value)
				}
			}
			for _, name := range []string{"a", "b"} {
				for attribute := range b.attributes(name) {
					must(t, unix.Removexattr(b.path(name), attribute))
				}
			}
			for key, value := range b.keep {
				name, attribute, _ := strings.Cut(key, " ")
				must(t, unix.Setxattr(b.path(name), attribute, value, 0))
			}
		}},
		{name: "MixAttributes", run: func(t *testing.T, b backing) {
			// The value of one attribute under the name of the other.
			values := b.attributes("a")
			if len(values) < 2 {
				t.Fatalf("%d attributes in the volume, want two", len(values))
			}
			keys := slices.Sorted(func(yield func(string) bool) {
				for k := range values {
					if !yield(k) {
						return
					}
				}
			})
			must(t, unix.Setxattr(b.path("a"), keys[0], []byte(values[keys[1]]), 0))
			must(t, unix.Setxattr(b.path("a"), keys[1], []byte(values[keys[0]]), 0))
		}},
		flip("Magic", 0, 1), flip("Version", 9, 3), flip("Flags", 11, 1), flip("DetailsFlag", 11, 2), flip("ContentFlag", 11, 4), flip("Cipher", 12, 2), flip("Compression", 13, 1),
		flip("FileID", 14, 0x80), flip("Sealed", 33, 1), flip("Reserved", 39, 1), flip("WrappedLength", 41, 1), flip("DetailsLength", 43, 1),
		flip("Wrapped", 60, 4), flip("WrappedVersion", 48, 1), flip("Padding", 980, 1), flip("MAC", 1000, 1),
		flip("Nonce", header, 1), flip("Block", header+500, 1), flip("Tag", page-1, 1), flip("Block3", 3*page+2000, 0x10), flip("LastBlock", -20, 1), flip("LastTag", -1, 0x80),
		cut("a", 0), cut("a", 1), cut("a", header-1), cut("a", header), cut("a", header+1), cut("a", header+28), cut("a", header+29), cut("a", page), cut("a", 2*page), cut("a", 4*page), cut("a", 5*page),
		cut("a", 5*page+28), cut("a", 5*page+29), cut("small", header), cut("small", 0), cut("empty", 0), cut("empty", 500),
	}
	for name, make := range substitutes {
		all = append(all, attack{name: "Record" + name, bad: "d1/x d1/sub/y", closed: true, run: func(t *testing.T, b backing) {
			replace(t, b.record("d1"), make)
		}})
		// Types that aren't encrypted are shown as what they are: they have no content.
		all = append(all, attack{name: "File" + name, bad: "a", run: func(t *testing.T, b backing) { replace(t, b.path("a"), make) }})
		// A name can be looked up without reading its file; it is either right, or not there.
		all = append(all, attack{name: "LongName" + name, either: longName, run: func(t *testing.T, b backing) {
			path := b.path(longName) + ".name"
			if _, err := os.Lstat(path); err != nil {
				return // names are plaintext: there is none
			}
			replace(t, path, make)
		}})
	}
	return slices.DeleteFunc(all, func(a attack) bool { return a.root && !isRoot })
}
