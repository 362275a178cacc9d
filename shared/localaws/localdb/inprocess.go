package localdb

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	sqle "github.com/dolthub/go-mysql-server"
	"github.com/dolthub/go-mysql-server/memory"
	"github.com/dolthub/go-mysql-server/server"
	"github.com/dolthub/go-mysql-server/sql"
	"github.com/sirupsen/logrus"
)

const inProcessKind = "go-mysql-server in this process, one connection"

// connectionWait is how long a second connection waits for the first to close.
const connectionWait = 10 * time.Second

// engineMu guards the package-level variables that are set when an engine is created.
var engineMu sync.Mutex

// StartInProcess starts go-mysql-server in this process, with its data in memory. It is correct only with one
// connection, so it accepts one at a time: use sql.DB.SetMaxOpenConns(1). It fails only if there is no free port.
func StartInProcess(ctx context.Context) (*Server, error) {
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", net.JoinHostPort(loopback, "0"))
	if err != nil {
		return nil, fmt.Errorf("start go-mysql-server: %w", err)
	}
	port, err := portOf(listener)
	if err != nil {
		_ = listener.Close()
		return nil, fmt.Errorf("start go-mysql-server: %w", err)
	}
	password := randomPassword()
	srv, err := newEngineServer(listener, password)
	if err != nil {
		_ = listener.Close()
		return nil, fmt.Errorf("start go-mysql-server: %w", err)
	}

	accepted := make(chan struct{})
	go func() {
		defer close(accepted)
		srv.Listener.Accept()
	}()
	return &Server{
		kind:     inProcessKind,
		port:     port,
		password: password,
		stop: func() error {
			srv.Listener.Close()
			<-accepted
			if err := srv.Engine.Close(); !errors.Is(err, context.Canceled) {
				return err
			}
			return nil // Close cancels the engine's background work and returns that as an error
		},
	}, nil
}

func newEngineServer(listener net.Listener, password string) (*server.Server, error) {
	engineMu.Lock()
	defer engineMu.Unlock()

	// The engine logs every refused statement and closed connection. Nothing else here uses logrus.
	logrus.SetLevel(logrus.PanicLevel)

	provider := memory.NewDBProvider()
	provider.WithOption(memory.NativeIndexProvider(true))
	engine := sqle.NewDefault(provider)

	users := engine.Analyzer.Catalog.MySQLDb
	editor := users.Editor()
	users.AddSuperUser(editor, userName, loopback, password)
	editor.Close()

	cfg := server.Config{
		Protocol:                  "tcp",
		Address:                   listener.Addr().String(),
		Listener:                  listener,
		MaxConnections:            1,
		MaxWaitConnections:        100,
		MaxWaitConnectionsTimeout: connectionWait,
	}
	return server.NewServer(cfg, engine, sql.NewContext, memory.NewSessionBuilder(provider), nil)
}
