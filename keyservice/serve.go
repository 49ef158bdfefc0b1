package keyservice

import (
	"errors"
	"fmt"
	"net"

	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/store"
	"kmsfs/keyservice/wire"
	"kmsfs/policy/caller"
)

// server answers calls of other processes.
type server struct {
	*wire.Server
	// ended has what came of each listener.
	ended     chan error
	listeners int
}

// Serve lets other processes use the home, through the socket in it and the listeners, until Close. On Unix sockets the kernel says who calls;
// by others, calls have to be signed with an access key. The listeners are closed in any case.
func (s *Service) Serve(listeners ...net.Listener) (err error) {
	defer func() {
		for _, l := range listeners {
			if err != nil {
				l.Close()
			}
		}
	}()
	s.serving.Lock()
	defer s.serving.Unlock()
	s.life.RLock()
	defer s.life.RUnlock()
	if s.closed || s.server != nil {
		return errors.New("the key service is closed, or served already")
	}
	socket, err := s.home.Listen()
	if err != nil {
		return fmt.Errorf("listen on the key service home's socket: %w", err)
	}
	listeners = append(listeners, socket)
	s.server = &server{
		Server: wire.NewServer(wire.Service{Operations: s.wireHandlers(), Credentials: s, Refused: s.recordRefusal, Failing: s.log.Failing, Warnings: s.forwarder.Warnings}),
		ended:  make(chan error, len(listeners)), listeners: len(listeners),
	}
	for _, l := range listeners {
		go func(server *server) {
			if l == socket {
				server.ended <- server.ServeHome(l)
			} else {
				server.ended <- server.Serve(l)
			}
		}(s.server)
	}
	s.announce(eventStarted)
	return nil
}

func (s *Service) stopServing() error {
	s.serving.Lock()
	defer s.serving.Unlock()
	if s.server == nil {
		return nil
	}
	err := s.server.Close()
	for range s.server.listeners {
		err = errors.Join(err, <-s.server.ended)
	}
	s.server = nil
	s.announce(eventStopped)
	return err
}

// Backup writes all of the home into a file, as it is at one moment: sealed under the root key, whose
// own sealed form stands in front. The file must not be there; it appears when it is complete and on
// disk.
func (s *Service) Backup(path string) error {
	s.life.RLock()
	defer s.life.RUnlock()
	if s.closed {
		return errors.New("the key service is closed")
	}
	if err := s.usage.Flush(s.store); err != nil {
		return err
	}
	return s.home.Backup(path, s.log, &s.changes)
}

var _ wire.Credentials = (*Service)(nil)

// AccessKey returns an access key's secret, and the user whom it stands for, in the groups that the system's user database has now.
func (s *Service) AccessKey(id string) (secret []byte, owner caller.Caller, err error) {
	s.life.RLock()
	defer s.life.RUnlock()
	if s.closed {
		return nil, owner, kms.Errorf(kms.CodeInternal, "the key service is closed")
	}
	if id == "" || len(id) > kms.MaxIdentifier {
		return nil, owner, nil
	}
	var k *store.AccessKey
	err = s.store.View(func(tx *store.Tx) (err error) {
		k, err = tx.AccessKey(id)
		return err
	})
	if k == nil || err != nil {
		return nil, owner, err
	}
	groups := s.users.Groups(k.UID)
	return k.Secret, caller.Caller{UID: k.UID, GID: groups[0], Groups: groups}, nil
}
