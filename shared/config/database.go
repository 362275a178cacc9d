package config

import (
	"crypto/x509"
	"errors"
	"net"
	"os"
	"regexp"
	"strings"
)

// Database says how to reach MySQL.
type Database struct {
	Host     string `json:"host"`
	Port     int    `json:"port"`
	User     string `json:"user"`
	Password Secret `json:"password"`
	Name     string `json:"name"`
	TLS      TLS    `json:"tls"`
}

// OnThisMachine reports whether Host is a loopback address or localhost. Names are not resolved.
func (d Database) OnThisMachine() bool { return isLoopback(d.Host) }

var hostName = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*\.?$`)

// readHost sets the host, and the default of TLS, which depends on it.
func (d *Database) readHost(host string) error {
	if net.ParseIP(host) == nil && (len(host) > 253 || !hostName.MatchString(host)) {
		return errors.New("is not a host name or an address")
	}
	d.Host, d.TLS.Enabled = host, !isLoopback(host)
	return nil
}

func isLoopback(host string) bool {
	if address := net.ParseIP(host); address != nil {
		return address.IsLoopback()
	}
	name := strings.ToLower(strings.TrimSuffix(host, "."))
	return name == "localhost" || strings.HasSuffix(name, ".localhost")
}

// TLS says how the connection to the database is protected.
type TLS struct {
	Enabled bool `json:"enabled"`
	// CAFile, if not "", is a PEM file with the only authorities to trust. Load checked that it has certificates.
	CAFile string `json:"caFile"`
	// RDS: trust Amazon's authorities for RDS only. Without RDS and CAFile, the system's authorities are trusted.
	RDS bool `json:"rds"`
}

// UnmarshalText reads true, false, rds or the path of a readable file with certificates.
func (t *TLS) UnmarshalText(text []byte) error {
	switch word := strings.ToLower(string(text)); word {
	case "true", "false", "rds":
		*t = TLS{Enabled: word != "false", RDS: word == "rds"}
		return nil
	}
	path := string(text)
	if !pathLike.MatchString(path) {
		return errNotValid
	}
	var content []byte
	info, err := os.Stat(path)
	if err == nil && info.Mode().IsRegular() && info.Size() <= 1<<20 { // reading a device or a pipe would never end
		content, err = os.ReadFile(path) //nolint:gosec // G304: the operator names the file
	}
	if err != nil || content == nil {
		return errors.New("names a file that cannot be read")
	}
	if !x509.NewCertPool().AppendCertsFromPEM(content) {
		return errors.New("names a file without a certificate")
	}
	*t = TLS{Enabled: true, CAFile: path}
	return nil
}

var pathLike = regexp.MustCompile(`(?i)[/\\]|\.(pem|crt|cer)$`)
