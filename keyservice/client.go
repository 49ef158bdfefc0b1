package keyservice

import (
	"context"
	"net"
	"os"
	"path/filepath"

	"kmsfs/keyservice/home"
	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/wire"
)

// client is the key service of another process.
type client struct {
	wire *wire.Client
}

var _ kms.Service = (*client)(nil)

// DialHome returns the key service of the process that has the home open and serves it. That process knows its callers from the kernel:
// it takes every call for this process's own, unless this is a process of root and calls for another (ViaFileSystem). Closing it is not needed for it to be garbage.
func DialHome(dir string) (kms.Service, error) {
	dialled, err := dialHome(dir)
	if err != nil {
		return nil, err
	}
	return &client{dialled}, nil
}

// Health asks the process that serves a home how its key service is: why it fails, and what is wrong besides. It returns ErrNotServed if there is none.
func Health(ctx context.Context, dir string) (wire.Health, error) {
	dialled, err := dialHome(dir)
	if err != nil {
		return wire.Health{}, err
	}
	defer dialled.Close()
	return dialled.Health(ctx)
}

func dialHome(dir string) (*wire.Client, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	// Whether somebody is there is found out now, and not at the first call.
	conn, err := home.Dial(context.Background(), dir)
	if err != nil {
		return nil, err
	}
	if err := conn.Close(); err != nil {
		return nil, err
	}
	return wire.NewClient(func(ctx context.Context) (net.Conn, error) { return home.Dial(ctx, dir) }), nil
}

// Invoke performs an operation. It tells the service for whom a mount calls, which the service believes
// of root's processes only.
func (c *client) Invoke(ctx context.Context, caller kms.Caller, op *kms.Description, in, out any) error {
	if op.ForMounts && caller.ViaFileSystem && os.Geteuid() == 0 {
		ctx = wire.WithBehalf(ctx, wire.Behalf{
			Caller: caller.Caller, Operation: caller.Operation, Path: caller.Path, Behind: caller.Behind, SharedEventID: caller.SharedEventID, Own: caller.Own,
		})
	}
	if err := kms.CheckText(in); err != nil {
		return err
	}
	return c.wire.Call(ctx, op.Name, in, out)
}

// Close closes the connections to the process.
func (c *client) Close() error {
	c.wire.Close()
	return nil
}
