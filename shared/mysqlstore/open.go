package mysqlstore

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	_ "embed" // the roots
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
)

// Config names a MySQL or MariaDB server and a database on it.
type Config struct {
	Host     string
	Port     int
	User     string
	Password string
	Name     string
	TLS      bool
	CAFile   string // PEM file with the only roots to trust
	RDS      bool   // trust Amazon's roots for RDS only; without this and CAFile, the system's
	MaxConns int    // connections at most; 0 means 10
	// LockWait is how long a statement waits at most for a row that somebody else holds, to the second;
	// 0 leaves it to the server. It must be below 30 s, when a connection counts as dead.
	LockWait time.Duration
	// Renew returns the login that has taken the place of a refused one, or the same if none has. Without it,
	// a login that is refused is about the run at once.
	Renew func(ctx context.Context, refused Login) (Login, error)
	// Tiers rank what the application's tables hold: for the guard, and for the check of the ENUMs.
	Tiers billing.Tiers
	// Announce puts what is to be announced into the outbox even where the database's functions do not
	// announce, or have not said so yet.
	Announce bool
	// Origin is what announcements say of where they come from. The database's stage goes before that here.
	Origin billing.Origin
}

// Login is what a connection is opened with.
type Login struct{ User, Password string }

const (
	ioTimeout    = 30 * time.Second
	defaultConns = 10
)

// Store is this system's access to MySQL.
type Store struct {
	db       *sql.DB
	tiers    billing.Tiers
	announce bool
	origin   billing.Origin
}

// New uses a pool that somebody else opened with the settings of [Open], for the default tiers.
func New(db *sql.DB) *Store { return &Store{db: db} }

// Open connects and checks that the server answers, within 4 s. The session is strict, in UTC, at READ
// COMMITTED, commits each statement, and ends when it was idle for 5 minutes, whatever the server's defaults
// are; so is that of every connection made later.
func Open(ctx context.Context, c Config) (*Store, error) {
	cfg, err := c.driver()
	if err != nil {
		return nil, err
	}
	connector, err := newConnector(cfg, c.Renew)
	if err != nil {
		return nil, fmt.Errorf("database settings: %w", err)
	}
	db := sql.OpenDB(writerConnector{sessionConnector{connector, c.LockWait}})
	conns := c.MaxConns
	if conns == 0 {
		conns = defaultConns
	}
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	db.SetConnMaxLifetime(connLifetime)
	if err := db.PingContext(ctx); err != nil {
		_ = db.Close() // the ping's error says more
		return nil, failure(err, fmt.Sprintf("connect to database %s at %s", c.Name, cfg.Addr))
	}
	return &Store{db: db, tiers: c.Tiers, announce: c.Announce, origin: c.Origin}, nil
}

// Close ends all connections.
func (s *Store) Close() error { return s.db.Close() }

func (c Config) driver() (*mysql.Config, error) {
	cfg := mysql.NewConfig()
	cfg.Net, cfg.Addr = "tcp", net.JoinHostPort(c.Host, strconv.Itoa(c.Port))
	cfg.User, cfg.Passwd, cfg.DBName = c.User, c.Password, c.Name
	cfg.ParseTime, cfg.Loc = true, time.UTC
	cfg.ClientFoundRows, cfg.InterpolateParams = true, true
	cfg.ReadTimeout, cfg.WriteTimeout = ioTimeout, ioTimeout
	cfg.Logger = quiet{}
	cfg.Params = variables()
	roots, err := c.tls()
	if err != nil {
		return nil, err
	}
	cfg.TLS = roots
	return cfg, nil
}

func (c Config) tls() (*tls.Config, error) {
	if !c.TLS {
		return nil, nil //nolint:nilnil // the driver's word for no TLS
	}
	settings := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.Host}
	pem, source, err := c.roots()
	if err != nil {
		return nil, fmt.Errorf("DB_TLS: %w", err)
	}
	if source == "" {
		return settings, nil
	}
	settings.RootCAs = x509.NewCertPool()
	if !settings.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("DB_TLS: %s holds no certificate in PEM form", source)
	}
	return settings, nil
}

// rdsRoots are the authorities that sign the certificates of Amazon RDS and RDS Proxy, as
// https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/UsingWithRDS.SSL.html names them. They
// are in no system's store. task rds-roots writes the file anew.
//
//go:embed rdsroots.pem
var rdsRoots []byte

// roots returns the only roots to trust and where they come from; "" for the system's.
func (c Config) roots() (pem []byte, source string, err error) {
	if c.RDS {
		return rdsRoots, "this program", nil
	}
	if c.CAFile == "" {
		return nil, "", nil
	}
	pem, err = os.ReadFile(c.CAFile)
	return pem, c.CAFile, err
}

// quiet drops the driver's own log lines: what they tell comes back as errors.
type quiet struct{}

func (quiet) Print(...any) {}
