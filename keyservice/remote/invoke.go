package remote

import (
	"context"
	"fmt"

	"kmsfs/keyservice/kms"
)

var _ kms.Service = (*Service)(nil)

// Invoke performs one of the operations that mounts call on behalf of callers. It knows no others.
func (s *Service) Invoke(ctx context.Context, c kms.Caller, op *kms.Description, in, out any) error {
	switch in := in.(type) {
	case *kms.GenerateDataKeyInput:
		made, err := s.GenerateDataKey(ctx, c, in)
		return fill(out, made, err)
	case *kms.DecryptInput:
		made, err := s.Decrypt(ctx, c, in)
		return fill(out, made, err)
	case *kms.ReEncryptInput:
		made, err := s.ReEncrypt(ctx, c, in)
		return fill(out, made, err)
	case *kms.CheckUsesInput:
		made, err := s.CheckUses(ctx, c, in)
		return fill(out, made, err)
	case *kms.OpenMarkerInput:
		made, err := s.openMarker(in)
		return fill(out, made, err)
	case *kms.VolumeKey:
		made, err := s.getMarkers(in)
		return fill(out, made, err)
	case *kms.CloseMarkersInput:
		made, err := s.closeMarkers(in)
		return fill(out, made, err)
	case *kms.Event:
		return s.RecordEvent(ctx, c, *in)
	}
	return kms.Errorf(kms.CodeUnsupportedOperation, "%s is not supported with a remote key service.", op.Name)
}

// fill copies an operation's output to where the caller wants it.
func fill[O any](out any, made *O, err error) error {
	if err != nil {
		return err
	}
	to, ok := out.(*O)
	if !ok {
		return fmt.Errorf("output %T: want %T", out, to)
	}
	*to = *made
	return nil
}
