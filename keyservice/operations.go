package keyservice

import (
	"context"
	"fmt"

	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/wire"
)

// operation is an operation with the handler that performs it, whatever the types of its shapes.
type operation struct {
	*kms.Description
	// handle performs the operation, and fills out.
	handle func(s *Service, r *request, in, out any) error
	// decode reads the input as the wire has it, and newOutput makes room for the output.
	decode    func(body []byte) (in any, err error)
	newOutput func() any
}

// bind joins an operation and its handler, which checks the input, authorizes the caller, and acts.
func bind[I, O any](d *kms.Operation[I, O], handler func(s *Service, r *request, in *I) (*O, error)) operation {
	decoder := wire.NewDecoder[I]()
	return operation{
		Description: &d.Description,
		handle: func(s *Service, r *request, in, out any) error {
			input, isInput := in.(*I)
			output, isOutput := out.(*O)
			if !isInput || !isOutput {
				return fmt.Errorf("%s from %T to %T: want %T and %T", d.Name, in, out, input, output)
			}
			made, err := handler(s, r, input)
			if err == nil {
				*output = *made
			}
			return err
		},
		decode:    func(body []byte) (any, error) { return decoder.Decode(body) },
		newOutput: func() any { return new(O) },
	}
}

// newOperations are all operations of the key service by name.
func newOperations() map[string]operation {
	all := map[string]operation{}
	for _, o := range []operation{
		bind(kms.CreateKey, (*Service).createKey),
		bind(kms.DescribeKey, (*Service).describeKey),
		bind(kms.ListKeys, (*Service).listKeys),
		bind(kms.UpdateKeyDescription, (*Service).updateKeyDescription),
		bind(kms.EnableKey, (*Service).enableKey),
		bind(kms.DisableKey, (*Service).disableKey),
		bind(kms.ScheduleKeyDeletion, (*Service).scheduleKeyDeletion),
		bind(kms.CancelKeyDeletion, (*Service).cancelKeyDeletion),
		bind(kms.TagResource, (*Service).tagResource),
		bind(kms.UntagResource, (*Service).untagResource),
		bind(kms.ListResourceTags, (*Service).listResourceTags),
		bind(kms.GetKeyLastUsage, (*Service).getKeyLastUsage),
		bind(kms.CreateAccessKey, (*Service).createAccessKey),
		bind(kms.ListAccessKeys, (*Service).listAccessKeys),
		bind(kms.DeleteAccessKey, (*Service).deleteAccessKey),
		bind(kms.CreateAlias, (*Service).createAlias),
		bind(kms.UpdateAlias, (*Service).updateAlias),
		bind(kms.DeleteAlias, (*Service).deleteAlias),
		bind(kms.ListAliases, (*Service).listAliases),
		bind(kms.PutKeyPolicy, (*Service).putKeyPolicy),
		bind(kms.GetKeyPolicy, (*Service).getKeyPolicy),
		bind(kms.ListKeyPolicies, (*Service).listKeyPolicies),
		bind(kms.PutServicePolicy, (*Service).putServicePolicy),
		bind(kms.GetServicePolicy, (*Service).getServicePolicy),
		bind(kms.ExplainAccess, (*Service).explainAccess),
		bind(kms.CreateGrant, (*Service).createGrant),
		bind(kms.ListGrants, (*Service).listGrants),
		bind(kms.ListRetirableGrants, (*Service).listRetirableGrants),
		bind(kms.RetireGrant, (*Service).retireGrant),
		bind(kms.RevokeGrant, (*Service).revokeGrant),
		bind(kms.EnableKeyRotation, (*Service).enableKeyRotation),
		bind(kms.DisableKeyRotation, (*Service).disableKeyRotation),
		bind(kms.GetKeyRotationStatus, (*Service).getKeyRotationStatus),
		bind(kms.RotateKeyOnDemand, (*Service).rotateKeyOnDemand),
		bind(kms.ListKeyRotations, (*Service).listKeyRotations),
		bind(kms.GetParametersForImport, (*Service).getParametersForImport),
		bind(kms.ImportKeyMaterial, (*Service).importKeyMaterial),
		bind(kms.DeleteImportedKeyMaterial, (*Service).deleteImportedKeyMaterial),
		bind(kms.Encrypt, (*Service).encrypt),
		bind(kms.Decrypt, (*Service).decrypt),
		bind(kms.ReEncrypt, (*Service).reEncrypt),
		bind(kms.GenerateDataKey, (*Service).generateDataKey),
		bind(kms.GenerateDataKeyWithoutPlaintext, (*Service).generateSealedDataKey),
		bind(kms.GenerateDataKeyPair, (*Service).generateDataKeyPair),
		bind(kms.GenerateDataKeyPairWithoutPlaintext, (*Service).generateSealedDataKeyPair),
		bind(kms.GenerateRandom, (*Service).generateRandom),
		bind(kms.GenerateMac, (*Service).generateMac),
		bind(kms.VerifyMac, (*Service).verifyMac),
		bind(kms.Sign, (*Service).sign),
		bind(kms.Verify, (*Service).verify),
		bind(kms.GetPublicKey, (*Service).getPublicKey),
		bind(kms.DeriveSharedSecret, (*Service).deriveSharedSecret),
		bind(kms.PutAuditSettings, (*Service).putAuditSettings),
		bind(kms.GetAuditSettings, (*Service).getAuditSettings),
		bind(kms.ReadAudit, (*Service).readAudit),
		bind(kms.CheckUses, (*Service).checkUses),
		bind(kms.RecordEvent, (*Service).recordEvent),
	} {
		all[o.Name] = o
	}
	return all
}

// wireHandlers perform the operations for the callers of a server.
func (s *Service) wireHandlers() map[string]wire.Handler {
	handlers := make(map[string]wire.Handler, len(s.operations))
	for name, o := range s.operations {
		handlers[name] = func(ctx context.Context, peer wire.Peer, body []byte) (any, error) {
			in, err := o.decode(body)
			if err != nil {
				return nil, kms.Errorf(kms.CodeSerialization, "%v", err)
			}
			out := o.newOutput()
			return out, s.Invoke(ctx, callerOf(&peer), o.Description, in, out)
		}
	}
	return handlers
}

// callerOf is the caller that a peer is, or speaks for.
func callerOf(peer *wire.Peer) kms.Caller {
	c := kms.Caller{Caller: peer.Caller, Executable: peer.Executable, AccessKeyID: peer.AccessKeyID, Address: peer.Address, RequestID: peer.RequestID}
	if b := peer.Behalf; b != nil {
		c.Caller, c.Executable, c.Operation, c.Own, c.ViaFileSystem = b.Caller, "", b.Operation, b.Own, true
		c.Path, c.Behind, c.SharedEventID, c.SpokenBy = b.Path, b.Behind, b.SharedEventID, peer.PID
	}
	return c
}
