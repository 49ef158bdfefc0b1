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
	handle func(r *request, in, out any) error
	// decode reads the input as the wire has it, and newOutput makes room for the output.
	decode    func(body []byte) (in any, err error)
	newOutput func() any
}

// bind joins an operation and its handler, which checks the input, authorizes the caller, and acts.
func bind[I, O any](d *kms.Operation[I, O], handler func(r *request, in *I) (*O, error)) operation {
	decoder := wire.NewDecoder[I]()
	return operation{
		Description: &d.Description,
		handle: func(r *request, in, out any) error {
			input, isInput := in.(*I)
			output, isOutput := out.(*O)
			if !isInput || !isOutput {
				return fmt.Errorf("%s from %T to %T: want %T and %T", d.Name, in, out, input, output)
			}
			made, err := handler(r, input)
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
func newOperations(c *core) map[string]operation {
	var (
		keys       = keyOperations{c}
		tags       = tagOperations{c}
		aliases    = aliasOperations{c}
		policies   = policyOperations{c}
		grants     = grantOperations{c}
		rotation   = rotationOperations{c}
		imports    = importOperations{c}
		encryption = encryptionOperations{c}
		dataKeys   = dataKeyOperations{encryption}
		signatures = signatureOperations{c}
		accessKeys = accessKeyOperations{c}
		uses       = useOperations{c}
		markers    = markerOperations{encryption}
		log        = auditOperations{c}
	)
	all := map[string]operation{}
	for _, o := range []operation{
		bind(kms.CreateKey, keys.createKey),
		bind(kms.DescribeKey, keys.describeKey),
		bind(kms.ListKeys, keys.listKeys),
		bind(kms.UpdateKeyDescription, keys.updateKeyDescription),
		bind(kms.EnableKey, keys.enableKey),
		bind(kms.DisableKey, keys.disableKey),
		bind(kms.ScheduleKeyDeletion, keys.scheduleKeyDeletion),
		bind(kms.CancelKeyDeletion, keys.cancelKeyDeletion),
		bind(kms.TagResource, tags.tagResource),
		bind(kms.UntagResource, tags.untagResource),
		bind(kms.ListResourceTags, tags.listResourceTags),
		bind(kms.GetKeyLastUsage, keys.getKeyLastUsage),
		bind(kms.CreateAccessKey, accessKeys.createAccessKey),
		bind(kms.ListAccessKeys, accessKeys.listAccessKeys),
		bind(kms.DeleteAccessKey, accessKeys.deleteAccessKey),
		bind(kms.CreateAlias, aliases.createAlias),
		bind(kms.UpdateAlias, aliases.updateAlias),
		bind(kms.DeleteAlias, aliases.deleteAlias),
		bind(kms.ListAliases, aliases.listAliases),
		bind(kms.PutKeyPolicy, policies.putKeyPolicy),
		bind(kms.GetKeyPolicy, policies.getKeyPolicy),
		bind(kms.ListKeyPolicies, policies.listKeyPolicies),
		bind(kms.PutServicePolicy, policies.putServicePolicy),
		bind(kms.GetServicePolicy, policies.getServicePolicy),
		bind(kms.ExplainAccess, policies.explainAccess),
		bind(kms.CreateGrant, grants.createGrant),
		bind(kms.ListGrants, grants.listGrants),
		bind(kms.ListRetirableGrants, grants.listRetirableGrants),
		bind(kms.RetireGrant, grants.retireGrant),
		bind(kms.RevokeGrant, grants.revokeGrant),
		bind(kms.EnableKeyRotation, rotation.enableKeyRotation),
		bind(kms.DisableKeyRotation, rotation.disableKeyRotation),
		bind(kms.GetKeyRotationStatus, rotation.getKeyRotationStatus),
		bind(kms.RotateKeyOnDemand, rotation.rotateKeyOnDemand),
		bind(kms.ListKeyRotations, rotation.listKeyRotations),
		bind(kms.GetParametersForImport, imports.getParametersForImport),
		bind(kms.ImportKeyMaterial, imports.importKeyMaterial),
		bind(kms.DeleteImportedKeyMaterial, imports.deleteImportedKeyMaterial),
		bind(kms.Encrypt, encryption.encrypt),
		bind(kms.Decrypt, encryption.decrypt),
		bind(kms.ReEncrypt, encryption.reEncrypt),
		bind(kms.GenerateDataKey, dataKeys.generateDataKey),
		bind(kms.GenerateDataKeyWithoutPlaintext, dataKeys.generateSealedDataKey),
		bind(kms.GenerateDataKeyPair, dataKeys.generateDataKeyPair),
		bind(kms.GenerateDataKeyPairWithoutPlaintext, dataKeys.generateSealedDataKeyPair),
		bind(kms.GenerateRandom, dataKeys.generateRandom),
		bind(kms.GenerateMac, signatures.generateMac),
		bind(kms.VerifyMac, signatures.verifyMac),
		bind(kms.Sign, signatures.sign),
		bind(kms.Verify, signatures.verify),
		bind(kms.GetPublicKey, signatures.getPublicKey),
		bind(kms.DeriveSharedSecret, signatures.deriveSharedSecret),
		bind(kms.PutAuditSettings, log.putAuditSettings),
		bind(kms.GetAuditSettings, log.getAuditSettings),
		bind(kms.ReadAudit, log.readAudit),
		bind(kms.CheckUses, uses.checkUses),
		bind(kms.OpenMarker, markers.openMarker),
		bind(kms.GetMarkers, markers.getMarkers),
		bind(kms.CloseMarkers, markers.closeMarkers),
		bind(kms.RecordEvent, log.recordEvent),
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
			if peer.Behalf != nil && !o.ForMounts {
				return nil, kms.Errorf(kms.CodeUnrecognizedClient, "%s is not called on behalf of others", name)
			}
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
	c := kms.Caller{
		Caller: peer.Caller, AtHome: peer.AtHome, Executable: peer.Executable, AccessKeyID: peer.AccessKeyID,
		Address: peer.Address, Insecure: peer.Insecure, UserAgent: peer.UserAgent, RequestID: peer.RequestID,
	}
	if b := peer.Behalf; b != nil {
		c.Caller, c.Executable, c.Operation, c.Own, c.ViaFileSystem = b.Caller, "", b.Operation, b.Own, true
		c.Path, c.Behind, c.SharedEventID, c.SpokenBy = b.Path, b.Behind, b.SharedEventID, peer.PID
	}
	return c
}
