package volume

import (
	"reflect"
	"testing"

	"kmsfs/cmd/kmsfs/internal/session"
)

func TestMountOptions(t *testing.T) {
	for _, test := range []struct {
		list string
		want mountOptions
	}{
		{"", mountOptions{}},
		{"rw,defaults,noauto,nofail,_netdev,user=alice,x-systemd.automount,comment=mine", mountOptions{}},
		{"ro,allow_other", mountOptions{ReadOnly: true, AllowOther: true}},
		{"shared", mountOptions{Shared: true}},
		{"ro,rw", mountOptions{}},
		{"nosuid,nodev,noexec,noatime", mountOptions{Kernel: []string{"nosuid", "nodev", "noexec", "noatime"}}},
		{"home=/a=b,key_file=/k", mountOptions{Home: "/a=b", Secret: session.SecretOptions{KeyFile: "/k"}}},
		{"passphrase_file=p", mountOptions{Secret: session.SecretOptions{PassphraseFile: "p"}}},
	} {
		var got mountOptions
		if err := got.apply(test.list, false); err != nil {
			t.Errorf("%q: %v", test.list, err)
		}
		if !reflect.DeepEqual(got, test.want) {
			t.Errorf("%q: got %+v, want %+v", test.list, got, test.want)
		}
	}
	for _, list := range []string{"nonsense", "ro=1", "home", "home=", "key_file", "xnonsense", "ro, rw"} {
		var o mountOptions
		err := o.apply(list, false)
		if err == nil {
			t.Errorf("%q: no error", list)
		}
		if err := o.apply(list, true); err != nil {
			t.Errorf("%q, sloppy: %v", list, err)
		}
	}
}
