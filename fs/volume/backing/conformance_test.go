package backing_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"kmsfs/fs/volume/backing"
	"kmsfs/fs/volume/backing/memory"
)

// subject is one of the two implementations, with what is open in it.
type subject struct {
	root  backing.Dir
	dirs  map[string]backing.Dir // by path
	files map[int]backing.File
}

func newSubject(root backing.Dir) *subject {
	return &subject{root: root, dirs: map[string]backing.Dir{"": root}, files: map[int]backing.File{}}
}

// close ends the use of all that is open but the root.
func (s *subject) close() {
	for path, d := range s.dirs {
		if path != "" {
			d.Close()
		}
	}
	for _, f := range s.files {
		f.Close()
	}
}

// dir opens a directory one level down, or the root, once.
func (s *subject) dir(name string) (backing.Dir, error) {
	if name == "" {
		return s.root, nil
	}
	return s.root.OpenDir(name)
}

// outcome is what a call gave, as it must be the same in both.
type outcome struct {
	errno unix.Errno
	value string
}

func result(err error, value ...any) outcome {
	var o outcome
	switch {
	case err == nil, err == io.EOF:
		o.value = fmt.Sprint(append(value, err)...)
	case !errors.As(err, &o.errno):
		o.value = "no errno: " + err.Error()
	}
	return o
}

// attributes are what Stat tells that doesn't depend on the implementation.
func attributes(st unix.Stat_t, err error) outcome {
	size := st.Size
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		size = 0
	}
	return result(err, st.Mode, st.Nlink, st.Uid, st.Gid, size, st.Rdev)
}

// step is a call with its arguments drawn, to be made on each subject.
type step func(s *subject) outcome

var (
	names  = rapid.SampledFrom([]string{"a", "b", "c", "d"})
	places = rapid.SampledFrom([]string{"", "", "a", "b"})
	slots  = rapid.IntRange(0, 2)
	kinds  = rapid.SampledFrom([]uint32{unix.S_IFIFO, unix.S_IFSOCK, unix.S_IFREG})
	offs   = rapid.Int64Range(0, 5*4096)
	keys   = rapid.SampledFrom([]string{"user.one", "user.two", "trusted.three"})
)

// in makes a step of a call in a directory.
func in(place string, call func(d backing.Dir) outcome) step {
	return func(s *subject) outcome {
		d, err := s.dir(place)
		if err != nil {
			return result(err)
		}
		if place != "" {
			defer d.Close()
		}
		return call(d)
	}
}

// on makes a step of a call on an open file.
func on(slot int, call func(f backing.File) outcome) step {
	return func(s *subject) outcome {
		if f := s.files[slot]; f != nil {
			return call(f)
		}
		return outcome{}
	}
}

// steps draw a step each.
var steps = map[string]func(t *rapid.T) step{
	"mkdir": func(t *rapid.T) step {
		name := names.Draw(t, "name")
		return in(places.Draw(t, "in"), func(d backing.Dir) outcome { return result(d.Mkdir(name, 0o751)) })
	},
	"mknod": func(t *rapid.T) step {
		name, kind := names.Draw(t, "name"), kinds.Draw(t, "kind")
		return in(places.Draw(t, "in"), func(d backing.Dir) outcome { return result(d.Mknod(name, kind|0o640, 0)) })
	},
	"symlink": func(t *rapid.T) step {
		name := names.Draw(t, "name")
		return in(places.Draw(t, "in"), func(d backing.Dir) outcome { return result(d.Symlink("target of "+name, name)) })
	},
	"readlink": func(t *rapid.T) step {
		name := names.Draw(t, "name")
		return in(places.Draw(t, "in"), func(d backing.Dir) outcome {
			target, err := d.Readlink(name)
			return result(err, target)
		})
	},
	"open": func(t *rapid.T) step {
		place, name, slot := places.Draw(t, "in"), names.Draw(t, "name"), slots.Draw(t, "slot")
		flags := rapid.SampledFrom([]int{
			unix.O_RDWR, unix.O_RDONLY, unix.O_RDWR | unix.O_CREAT, unix.O_RDWR | unix.O_CREAT | unix.O_EXCL,
			unix.O_RDWR | unix.O_TRUNC, unix.O_WRONLY,
		}).Draw(t, "flags")
		return func(s *subject) outcome {
			return in(place, func(d backing.Dir) outcome {
				if st, err := d.StatAt(name); err == nil && st.Mode&unix.S_IFMT == unix.S_IFIFO {
					return outcome{} // reading and writing a FIFO is the kernel's affair
				}
				f, err := d.OpenFile(name, flags, 0o640)
				if err == nil {
					if old := s.files[slot]; old != nil {
						old.Close()
					}
					s.files[slot] = f
				}
				return result(err)
			})(s)
		}
	},
	"temporary": func(t *rapid.T) step {
		slot := slots.Draw(t, "slot")
		return func(s *subject) outcome {
			f, err := s.root.OpenFile(".", unix.O_TMPFILE|unix.O_RDWR, 0o600)
			if err == nil {
				if old := s.files[slot]; old != nil {
					old.Close()
				}
				s.files[slot] = f
			}
			return result(err)
		}
	},
	"link file": func(t *rapid.T) step {
		slot, name := slots.Draw(t, "slot"), names.Draw(t, "name")
		return func(s *subject) outcome {
			f := s.files[slot]
			if f == nil {
				return outcome{}
			}
			if st, err := f.Stat(); err != nil || st.Nlink == 0 || st.Mode&unix.S_IFMT == unix.S_IFDIR {
				return outcome{} // only a file that was made without a name may be linked then
			}
			return result(s.root.LinkFile(f, name))
		}
	},
	"write": func(t *rapid.T) step {
		off, length := offs.Draw(t, "off"), rapid.IntRange(0, 9000).Draw(t, "length")
		return on(slots.Draw(t, "slot"), func(f backing.File) outcome {
			n, err := f.WriteAt(slices.Repeat([]byte{byte(off)}, length), off)
			return result(err, n)
		})
	},
	"read": func(t *rapid.T) step {
		off, length := offs.Draw(t, "off"), rapid.IntRange(0, 9000).Draw(t, "length")
		return on(slots.Draw(t, "slot"), func(f backing.File) outcome {
			p := make([]byte, length)
			n, err := f.ReadAt(p, off)
			return result(err, n, p[:n])
		})
	},
	"truncate": func(t *rapid.T) step {
		size := offs.Draw(t, "size")
		return on(slots.Draw(t, "slot"), func(f backing.File) outcome {
			if st, err := f.Stat(); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
				return outcome{}
			}
			err := f.Truncate(size)
			if errors.Is(err, unix.EINVAL) {
				err = unix.EBADF // ftruncate(2) gives either where the file is not open for writing
			}
			return result(err)
		})
	},
	"allocate": func(t *rapid.T) step {
		off, length := offs.Draw(t, "off"), rapid.Int64Range(1, 9000).Draw(t, "length")
		mode := rapid.SampledFrom([]uint32{0, unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_KEEP_SIZE | unix.FALLOC_FL_PUNCH_HOLE}).Draw(t, "mode")
		return on(slots.Draw(t, "slot"), func(f backing.File) outcome {
			if st, err := f.Stat(); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
				return outcome{}
			}
			return result(f.Allocate(mode, off, length))
		})
	},
	"sync": func(t *rapid.T) step {
		data := rapid.Bool().Draw(t, "data")
		return on(slots.Draw(t, "slot"), func(f backing.File) outcome {
			if data {
				return result(f.Datasync())
			}
			return result(f.Sync())
		})
	},
	"stat file": func(t *rapid.T) step {
		return on(slots.Draw(t, "slot"), func(f backing.File) outcome { return attributes(f.Stat()) })
	},
	"stat": func(t *rapid.T) step {
		name := names.Draw(t, "name")
		return in(places.Draw(t, "in"), func(d backing.Dir) outcome { return attributes(d.StatAt(name)) })
	},
	"list": func(t *rapid.T) step {
		return in(places.Draw(t, "in"), func(d backing.Dir) outcome {
			again, err := d.OpenDir(".")
			if err != nil {
				return result(err)
			}
			defer again.Close()
			entries, err := backing.Entries(again)
			var all []string
			for _, e := range entries {
				all = append(all, fmt.Sprint(e.Name, e.Kind))
			}
			slices.Sort(all)
			return result(err, all)
		})
	},
	"link": func(t *rapid.T) step {
		name, as, place := names.Draw(t, "name"), names.Draw(t, "as"), places.Draw(t, "to")
		return two(places.Draw(t, "in"), place, func(from, to backing.Dir) outcome { return result(from.Link(name, to, as)) })
	},
	"rename": func(t *rapid.T) step {
		name, as, place := names.Draw(t, "name"), names.Draw(t, "as"), places.Draw(t, "to")
		flags := rapid.SampledFrom([]uint{0, 0, unix.RENAME_NOREPLACE, unix.RENAME_EXCHANGE}).Draw(t, "flags")
		return two(places.Draw(t, "in"), place, func(from, to backing.Dir) outcome { return result(from.Rename(name, to, as, flags)) })
	},
	"unlink": func(t *rapid.T) step {
		name := names.Draw(t, "name")
		return in(places.Draw(t, "in"), func(d backing.Dir) outcome { return result(d.Unlink(name)) })
	},
	"rmdir": func(t *rapid.T) step {
		name := names.Draw(t, "name")
		return in(places.Draw(t, "in"), func(d backing.Dir) outcome { return result(d.Rmdir(name)) })
	},
	"chown": func(t *rapid.T) step {
		name, uid := names.Draw(t, "name"), rapid.IntRange(-1, 3).Draw(t, "uid")
		return in(places.Draw(t, "in"), func(d backing.Dir) outcome { return result(d.ChownAt(name, uid, -1)) })
	},
	"chown open file": func(t *rapid.T) step {
		uid, gid := rapid.IntRange(-1, 3).Draw(t, "uid"), rapid.IntRange(-1, 3).Draw(t, "gid")
		return on(slots.Draw(t, "slot"), func(f backing.File) outcome { return result(f.Chown(uid, gid)) })
	},
	"times": func(t *rapid.T) step {
		name, seconds := names.Draw(t, "name"), rapid.Int64Range(1, 1<<31).Draw(t, "seconds")
		access := unix.Timespec{Nsec: unix.UTIME_OMIT}
		if rapid.Bool().Draw(t, "access") {
			access = unix.Timespec{Sec: seconds / 2}
		}
		return in(places.Draw(t, "in"), func(d backing.Dir) outcome {
			set := d.SetTimesAt(name, access, unix.Timespec{Sec: seconds, Nsec: 5})
			st, err := d.StatAt(name)
			if access.Nsec == unix.UTIME_OMIT {
				st.Atim = access // it is the time of a call then
			}
			return result(err, set, st.Atim, st.Mtim)
		})
	},
	"list attributes": func(t *rapid.T) step {
		name := names.Draw(t, "name")
		return in(places.Draw(t, "in"), func(d backing.Dir) outcome {
			n, err := d.Lookup(name)
			if err != nil {
				return result(err)
			}
			defer n.Close()
			if st, err := n.Stat(); err != nil || st.Mode&unix.S_IFMT == unix.S_IFLNK {
				return result(err)
			}
			list := make([]byte, 1000)
			size, err := n.Listxattr(list)
			all := strings.Split(string(list[:max(size, 0)]), "\x00")
			slices.Sort(all)
			_, short := n.Listxattr(make([]byte, 1))
			return result(err, size, all, short)
		})
	},
	"directory itself": func(t *rapid.T) step {
		return in(places.Draw(t, "in"), func(d backing.Dir) outcome {
			self, err := d.Lookup(".")
			if err != nil {
				return result(err)
			}
			defer self.Close()
			return result(nil, attributes(self.Stat()), attributes(d.StatAt(".")), attributes(d.Stat()))
		})
	},
	"lock": func(t *rapid.T) step {
		how := rapid.SampledFrom([]int{unix.LOCK_SH, unix.LOCK_EX, unix.LOCK_UN}).Draw(t, "how")
		return on(slots.Draw(t, "slot"), func(f backing.File) outcome { return result(f.Flock(how | unix.LOCK_NB)) })
	},
	"lock byte": func(t *rapid.T) step {
		kind := rapid.SampledFrom([]int16{unix.F_RDLCK, unix.F_WRLCK, unix.F_UNLCK}).Draw(t, "kind")
		at := rapid.Int64Range(0, 1).Draw(t, "at")
		return on(slots.Draw(t, "slot"), func(f backing.File) outcome {
			locked, err := f.ByteLocked(at)
			if err != nil || locked && kind != unix.F_UNLCK { // it would wait
				return result(err, locked)
			}
			return result(f.LockByte(at, kind), locked)
		})
	},
	"metadata": func(t *rapid.T) step {
		name, key := names.Draw(t, "name"), keys.Draw(t, "key")
		value := rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "value")
		flags := rapid.SampledFrom([]int{0, unix.XATTR_CREATE, unix.XATTR_REPLACE}).Draw(t, "flags")
		remove := rapid.Bool().Draw(t, "remove")
		return in(places.Draw(t, "in"), func(d backing.Dir) outcome {
			n, err := d.Lookup(name)
			if err != nil {
				return result(err)
			}
			defer n.Close()
			if st, err := n.Stat(); err != nil || st.Mode&unix.S_IFMT == unix.S_IFLNK {
				return result(err)
			}
			var set error
			if remove {
				set = n.Removexattr(key)
			} else {
				set = n.Setxattr(key, value, flags)
			}
			buffer := make([]byte, 200)
			size, get := n.Getxattr(key, buffer)
			chmod := n.Chmod(0o604)
			return result(nil, result(set), result(get, size, buffer[:max(size, 0)]), result(chmod))
		})
	},
}

// two makes a step of a call in two directories.
func two(a, b string, call func(from, to backing.Dir) outcome) step {
	return func(s *subject) outcome {
		return in(a, func(from backing.Dir) outcome {
			return in(b, func(to backing.Dir) outcome { return call(from, to) })(s)
		})(s)
	}
}

// TestConformance makes the same random calls on the real directory and on the one in memory, which
// must give the same results.
func TestConformance(t *testing.T) {
	order := make([]string, 0, len(steps))
	for name := range steps {
		order = append(order, name)
	}
	slices.Sort(order)
	top := t.TempDir()
	rapid.Check(t, func(r *rapid.T) {
		path, err := os.MkdirTemp(top, "")
		if err != nil {
			r.Fatal(err)
		}
		if err := os.Chmod(path, 0o755); err != nil {
			r.Fatal(err)
		}
		root, err := backing.Open(path)
		if err != nil {
			r.Fatal(err)
		}
		defer root.Close()
		subjects := []*subject{newSubject(root), newSubject(memory.New(memory.Options{}).Root())}
		defer subjects[0].close()
		defer subjects[1].close()
		for range rapid.IntRange(1, 60).Draw(r, "steps") {
			name := rapid.SampledFrom(order).Draw(r, "step")
			do := steps[name](r)
			want, got := do(subjects[0]), do(subjects[1])
			if want != got {
				r.Fatalf("%s: the real directory gives %v, the one in memory %v", name, want, got)
			}
		}
	})
}
