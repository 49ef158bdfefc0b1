package keyservice

import (
	"context"

	"kmsfs/keyservice/wire"
	"kmsfs/policy"
)

// operations is the table of what can be asked for over the wire.
func operations(a API) map[string]wire.Handler {
	return map[string]wire.Handler{
		"CreateKey":                       handle(a.CreateKey),
		"DescribeKey":                     handle(a.DescribeKey),
		"ListKeys":                        handle(a.ListKeys),
		"EnableKey":                       handle(a.EnableKey),
		"DisableKey":                      handle(a.DisableKey),
		"CreateAlias":                     handle(a.CreateAlias),
		"UpdateAlias":                     handle(a.UpdateAlias),
		"DeleteAlias":                     handle(a.DeleteAlias),
		"ListAliases":                     handle(a.ListAliases),
		"Encrypt":                         handle(a.Encrypt),
		"Decrypt":                         handle(a.Decrypt),
		"ReEncrypt":                       handle(a.ReEncrypt),
		"GenerateDataKey":                 handle(a.GenerateDataKey),
		"GenerateDataKeyWithoutPlaintext": handle(a.GenerateDataKeyWithoutPlaintext),
		"GenerateRandom":                  handle(a.GenerateRandom),
		"RecordEvent": handle(func(ctx context.Context, c Caller, e *Event) (*struct{}, error) {
			return &struct{}{}, a.RecordEvent(ctx, c, *e)
		}),
	}
}

// handle has an operation called for the peer that the kernel named, and for nobody else.
func handle[I, O any](operation func(context.Context, Caller, *I) (*O, error)) wire.Handler {
	return func(ctx context.Context, peer policy.Caller, body []byte) (any, error) {
		in := new(I)
		if err := wire.Decode(body, in); err != nil {
			return nil, refuse(wire.CodeSerialization, "%v", err)
		}
		return operation(ctx, Caller{Caller: peer}, in)
	}
}
