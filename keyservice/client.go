package keyservice

import (
	"context"
	"net"
	"path/filepath"
	"unicode/utf8"

	"kmsfs/keyservice/wire"
)

// client is the key service of another process.
type client struct {
	wire *wire.Client
}

var _ API = (*client)(nil)

// DialHome returns the key service of the process that has the home open and serves it. That process knows its callers from the kernel:
// it takes every call for this process's own, whatever the Caller says. Closing it is not needed for it to be garbage.
func DialHome(dir string) (API, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	// Whether somebody is there is found out now, and not at the first call.
	conn, err := dialSocket(context.Background(), dir)
	if err != nil {
		return nil, err
	}
	if err := conn.Close(); err != nil {
		return nil, err
	}
	return &client{wire.NewClient(func(ctx context.Context) (net.Conn, error) { return dialSocket(ctx, dir) })}, nil
}

// call performs an operation.
func call[I, O any](ctx context.Context, c *client, operation string, in *I, out *O) (*O, error) {
	if in == nil {
		in = new(I)
	}
	if with, ok := any(in).(withContexts); ok {
		for _, context := range with.contexts() {
			if err := checkWireContext(context); err != nil {
				return nil, err
			}
		}
	}
	if err := c.wire.Call(ctx, operation, in, out); err != nil {
		return nil, err
	}
	return out, nil
}

// checkWireContext refuses what the wire can't carry and would turn into another context.
func checkWireContext(context map[string]string) error {
	for key, value := range context {
		if !utf8.ValidString(key) || !utf8.ValidString(value) {
			return refuse(CodeValidation, "the encryption context is not valid UTF-8: %q=%q", key, value)
		}
	}
	return nil
}

func (c *client) CreateKey(ctx context.Context, _ Caller, in *CreateKeyInput) (*CreateKeyOutput, error) {
	return call(ctx, c, "CreateKey", in, &CreateKeyOutput{})
}

func (c *client) DescribeKey(ctx context.Context, _ Caller, in *DescribeKeyInput) (*DescribeKeyOutput, error) {
	return call(ctx, c, "DescribeKey", in, &DescribeKeyOutput{})
}

func (c *client) ListKeys(ctx context.Context, _ Caller, in *ListKeysInput) (*ListKeysOutput, error) {
	return call(ctx, c, "ListKeys", in, &ListKeysOutput{})
}

func (c *client) EnableKey(ctx context.Context, _ Caller, in *EnableKeyInput) (*EnableKeyOutput, error) {
	return call(ctx, c, "EnableKey", in, &EnableKeyOutput{})
}

func (c *client) DisableKey(ctx context.Context, _ Caller, in *DisableKeyInput) (*DisableKeyOutput, error) {
	return call(ctx, c, "DisableKey", in, &DisableKeyOutput{})
}

func (c *client) CreateAlias(ctx context.Context, _ Caller, in *CreateAliasInput) (*CreateAliasOutput, error) {
	return call(ctx, c, "CreateAlias", in, &CreateAliasOutput{})
}

func (c *client) UpdateAlias(ctx context.Context, _ Caller, in *UpdateAliasInput) (*UpdateAliasOutput, error) {
	return call(ctx, c, "UpdateAlias", in, &UpdateAliasOutput{})
}

func (c *client) DeleteAlias(ctx context.Context, _ Caller, in *DeleteAliasInput) (*DeleteAliasOutput, error) {
	return call(ctx, c, "DeleteAlias", in, &DeleteAliasOutput{})
}

func (c *client) ListAliases(ctx context.Context, _ Caller, in *ListAliasesInput) (*ListAliasesOutput, error) {
	return call(ctx, c, "ListAliases", in, &ListAliasesOutput{})
}

func (c *client) Encrypt(ctx context.Context, _ Caller, in *EncryptInput) (*EncryptOutput, error) {
	return call(ctx, c, "Encrypt", in, &EncryptOutput{})
}

func (c *client) Decrypt(ctx context.Context, _ Caller, in *DecryptInput) (*DecryptOutput, error) {
	return call(ctx, c, "Decrypt", in, &DecryptOutput{})
}

func (c *client) ReEncrypt(ctx context.Context, _ Caller, in *ReEncryptInput) (*ReEncryptOutput, error) {
	return call(ctx, c, "ReEncrypt", in, &ReEncryptOutput{})
}

func (c *client) GenerateDataKey(ctx context.Context, _ Caller, in *GenerateDataKeyInput) (*GenerateDataKeyOutput, error) {
	return call(ctx, c, "GenerateDataKey", in, &GenerateDataKeyOutput{})
}

func (c *client) GenerateDataKeyWithoutPlaintext(ctx context.Context, _ Caller, in *GenerateDataKeyWithoutPlaintextInput) (*GenerateDataKeyWithoutPlaintextOutput, error) {
	return call(ctx, c, "GenerateDataKeyWithoutPlaintext", in, &GenerateDataKeyWithoutPlaintextOutput{})
}

func (c *client) GenerateRandom(ctx context.Context, _ Caller, in *GenerateRandomInput) (*GenerateRandomOutput, error) {
	return call(ctx, c, "GenerateRandom", in, &GenerateRandomOutput{})
}

func (c *client) RecordEvent(ctx context.Context, _ Caller, e Event) error {
	_, err := call(ctx, c, "RecordEvent", &e, &struct{}{})
	return err
}

// Close closes the connections to the process.
func (c *client) Close() error {
	c.wire.Close()
	return nil
}
