package mysqlstore

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	_ "embed" // rdsroots.pem
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore/internal/driverconn"
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
	RDS      bool   // trust only Amazon's roots for RDS; without RDS and CAFile the system's are trusted
	MaxConns int    // 0 means 10
	// LockWait limits how long a statement waits for a row lock, in whole seconds; 0 leaves it to the server. It must be
	// below 30 s, after which the connection times out.
	LockWait time.Duration
	// Renew returns the login that has replaced a refused one, or the same if none has. Without Renew, a refused login
	// fails the run at once.
	Renew func(ctx context.Context, refused Login) (Login, error)
	// Tiers rank the tiers in the application's tables, for the guard and the check of ENUM columns.
	Tiers billing.Tiers
	// Announce fills the outbox even if the database records no event bus of the functions.
	Announce bool
	// Origin goes into announcements. A stage recorded in the database takes precedence over its stage.
	Origin billing.Origin
}

// Login is a user and password.
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

// New uses a pool that the caller opened with the settings of [Open], with the default tiers.
func New(db *sql.DB) *Store { return &Store{db: db} }

// Open connects and checks, within 4 s, that the server answers. Whatever the server's defaults are, every
// session is strict, in UTC, at READ COMMITTED, with autocommit, and is closed by the server after 5 idle
// minutes.
func Open(ctx context.Context, c Config) (*Store, error) {
	cfg, err := c.driver()
	if err != nil {
		return nil, err
	}
	connector, err := newConnector(cfg, c.Renew)
	if err != nil {
		return nil, fmt.Errorf("database settings: %w", err)
	}
	db := sql.OpenDB(driverconn.Wrap(newSessionConnector(connector, c.LockWait), newWriterConn))
	conns := c.MaxConns
	if conns == 0 {
		conns = defaultConns
	}
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	db.SetConnMaxLifetime(connLifetime)
	if err := db.PingContext(ctx); err != nil {
		_ = db.Close() // the ping's error is the cause
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
	cfg.Logger = silentLogger{}
	cfg.Params = sessionVariables()
	roots, err := c.tls()
	if err != nil {
		return nil, err
	}
	cfg.TLS = roots
	return cfg, nil
}

func (c Config) tls() (*tls.Config, error) {
	if !c.TLS {
		return nil, nil //nolint:nilnil // nil means no TLS to the driver
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

// rdsRoots are the certificate authorities of Amazon RDS and RDS Proxy, which no system trusts by default.
// `task rds-roots` renews the file.
// https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/UsingWithRDS.SSL.html
//
//go:embed rdsroots.pem
var rdsRoots []byte

// roots returns the only roots to trust and their source; "" for the system's roots.
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

// silentLogger drops the driver's log lines, which repeat the errors that it returns.
type silentLogger struct{}

func (silentLogger) Print(...any) {}
