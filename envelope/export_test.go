package envelope

import "github.com/tink-crypto/tink-go/v2/daead/subtle"

// UnderKey returns what tells a volume's key of that label from any other: the key itself or, if it is one of SIV, the sealed empty string.
func (v *Volume) UnderKey(label string) ([]byte, error) {
	switch label {
	case "configuration":
		return v.configurationKey, nil
	case "mark":
		return v.markKey, nil
	case "location":
		return v.locationKey, nil
	}
	siv := map[string]*subtle.AESSIV{
		"name": v.name, "details": v.details, "directory": v.directory, "symlink": v.symlink, "attribute": v.attribute,
	}[label]
	return siv.EncryptDeterministically(nil, nil)
}

// FileUnderKey is UnderKey for a file's keys.
func FileUnderKey(label string, dataKey []byte, id FileID) ([]byte, error) {
	keys, err := newFileKeys(dataKey, id)
	if label == "file header" || err != nil {
		return keys.header, err
	}
	return keys.content.Seal(nil, make([]byte, nonceSize), nil, nil), nil
}
