package keyservice

import (
	"context"

	"kmsfs/keyservice/wire"
)

// operations is the table of what can be asked for over the wire.
func operations(a API) map[string]wire.Handler {
	return map[string]wire.Handler{
		"CreateKey":                           handle(a.CreateKey),
		"DescribeKey":                         handle(a.DescribeKey),
		"ListKeys":                            handle(a.ListKeys),
		"UpdateKeyDescription":                handle(a.UpdateKeyDescription),
		"EnableKey":                           handle(a.EnableKey),
		"DisableKey":                          handle(a.DisableKey),
		"ScheduleKeyDeletion":                 handle(a.ScheduleKeyDeletion),
		"CancelKeyDeletion":                   handle(a.CancelKeyDeletion),
		"TagResource":                         handle(a.TagResource),
		"UntagResource":                       handle(a.UntagResource),
		"ListResourceTags":                    handle(a.ListResourceTags),
		"GetKeyLastUsage":                     handle(a.GetKeyLastUsage),
		"CreateAccessKey":                     handle(a.CreateAccessKey),
		"ListAccessKeys":                      handle(a.ListAccessKeys),
		"DeleteAccessKey":                     handle(a.DeleteAccessKey),
		"CreateAlias":                         handle(a.CreateAlias),
		"UpdateAlias":                         handle(a.UpdateAlias),
		"DeleteAlias":                         handle(a.DeleteAlias),
		"ListAliases":                         handle(a.ListAliases),
		"PutKeyPolicy":                        handle(a.PutKeyPolicy),
		"GetKeyPolicy":                        handle(a.GetKeyPolicy),
		"ListKeyPolicies":                     handle(a.ListKeyPolicies),
		"PutServicePolicy":                    handle(a.PutServicePolicy),
		"GetServicePolicy":                    handle(a.GetServicePolicy),
		"ExplainAccess":                       handle(a.ExplainAccess),
		"CreateGrant":                         handle(a.CreateGrant),
		"ListGrants":                          handle(a.ListGrants),
		"ListRetirableGrants":                 handle(a.ListRetirableGrants),
		"RetireGrant":                         handle(a.RetireGrant),
		"RevokeGrant":                         handle(a.RevokeGrant),
		"EnableKeyRotation":                   handle(a.EnableKeyRotation),
		"DisableKeyRotation":                  handle(a.DisableKeyRotation),
		"GetKeyRotationStatus":                handle(a.GetKeyRotationStatus),
		"RotateKeyOnDemand":                   handle(a.RotateKeyOnDemand),
		"ListKeyRotations":                    handle(a.ListKeyRotations),
		"GetParametersForImport":              handle(a.GetParametersForImport),
		"ImportKeyMaterial":                   handle(a.ImportKeyMaterial),
		"DeleteImportedKeyMaterial":           handle(a.DeleteImportedKeyMaterial),
		"Encrypt":                             handle(a.Encrypt),
		"Decrypt":                             handle(a.Decrypt),
		"ReEncrypt":                           handle(a.ReEncrypt),
		"GenerateDataKey":                     handle(a.GenerateDataKey),
		"GenerateDataKeyWithoutPlaintext":     handle(a.GenerateDataKeyWithoutPlaintext),
		"GenerateDataKeyPair":                 handle(a.GenerateDataKeyPair),
		"GenerateDataKeyPairWithoutPlaintext": handle(a.GenerateDataKeyPairWithoutPlaintext),
		"GenerateRandom":                      handle(a.GenerateRandom),
		"GenerateMac":                         handle(a.GenerateMac),
		"VerifyMac":                           handle(a.VerifyMac),
		"Sign":                                handle(a.Sign),
		"Verify":                              handle(a.Verify),
		"GetPublicKey":                        handle(a.GetPublicKey),
		"DeriveSharedSecret":                  handle(a.DeriveSharedSecret),
		"PutAuditSettings":                    handle(a.PutAuditSettings),
		"GetAuditSettings":                    handle(a.GetAuditSettings),
		"ReadAudit":                           handle(a.ReadAudit),
		"CheckUses":                           handle(a.CheckUses),
		"RecordEvent": handle(func(ctx context.Context, c Caller, e *Event) (*struct{}, error) {
			return &struct{}{}, a.RecordEvent(ctx, c, *e)
		}),
	}
}

// handle has an operation called for the peer, or for whom it may speak.
func handle[I, O any](operation func(context.Context, Caller, *I) (*O, error)) wire.Handler {
	decoder := wire.NewDecoder[I]()
	return func(ctx context.Context, peer wire.Peer, body []byte) (any, error) {
		in, err := decoder.Decode(body)
		if err != nil {
			return nil, refuse(wire.CodeSerialization, "%v", err)
		}
		c := Caller{Caller: peer.Caller, Executable: peer.Executable, AccessKeyID: peer.AccessKeyID, Address: peer.Address, RequestID: peer.RequestID}
		if b := peer.Behalf; b != nil {
			c.Caller, c.Executable, c.Operation, c.Own, c.ViaFileSystem = b.Caller, "", b.Operation, b.Own, true
			c.Path, c.Behind, c.SharedEventID, c.SpokenBy = b.Path, b.Behind, b.SharedEventID, peer.PID
		}
		return operation(ctx, c, in)
	}
}
