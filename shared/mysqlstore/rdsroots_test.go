package mysqlstore_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/mysqlstore"
)

func TestAmazonsRootsAreValidAuthorities(t *testing.T) {
	names := map[string]bool{}
	rest := mysqlstore.RDSRoots()
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Errorf("certificate %d: %v", len(names)+1, err)
			continue
		}
		name := certificate.Subject.String()
		if !certificate.IsCA || !certificate.BasicConstraintsValid {
			t.Errorf("%s is not a certificate authority", name)
		}
		if at := time.Now(); at.Before(certificate.NotBefore) || at.After(certificate.NotAfter) {
			t.Errorf("%s is valid from %v to %v: renew the file (task rds-roots)", name, certificate.NotBefore, certificate.NotAfter)
		}
		if !strings.Contains(name, "Amazon") && !strings.Contains(name, "Starfield Services") {
			t.Errorf("%s is not Amazon's", name)
		}
		names[name] = true
	}
	if blocks := bytes.Count(mysqlstore.RDSRoots(), []byte("-----BEGIN ")); blocks != len(names) {
		t.Errorf("the %d blocks have %d different certificates", blocks, len(names))
	}
	for _, region := range []string{"us-east-1", "eu-central-1", "ap-southeast-2"} {
		for _, kind := range []string{"RSA2048", "RSA4096", "ECC384"} {
			if name := "Amazon RDS " + region + " Root CA " + kind + " G1"; !strings.Contains(string(mysqlstore.RDSRoots()), name) {
				t.Errorf("%s is missing", name)
			}
		}
	}
	for _, name := range []string{"Amazon Root CA 1", "Amazon Root CA 4"} { // RDS Proxy uses these
		if !strings.Contains(string(mysqlstore.RDSRoots()), name) {
			t.Errorf("%s is missing", name)
		}
	}
}

// authority signs certificates.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	a := authority{key: newKey(t)}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.certificate, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (a authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.certificate.Raw})
}

// sign returns a certificate for an address or for names.
func (a authority) sign(t *testing.T, address net.IP, names ...string) tls.Certificate {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: names, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if address != nil {
		template.IPAddresses = []net.IP{address}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// tlsServer greets as MySQL does, offers TLS with the certificate, and refuses every login inside TLS.
// https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_connection_phase.html
func tlsServer(t *testing.T, certificate tls.Certificate) (port int) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() {
		listener.Close()
		<-done
	})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			if err := refuseLogin(conn, certificate); err != nil {
				t.Logf("the server: %v", err)
			}
			conn.Close()
		}
	}()
	return listener.Addr().(*net.TCPAddr).Port
}

func refuseLogin(conn net.Conn, certificate tls.Certificate) error {
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	const protocol41, ssl, secure, pluginAuth = 0x200, 0x800, 0x8000, 0x80000
	capabilities := binary.LittleEndian.AppendUint32(nil, protocol41|ssl|secure|pluginAuth)
	greeting := strings.Join([]string{
		"\x0a8.0.0\x00", "\x01\x00\x00\x00", "12345678\x00", string(capabilities[:2]), "\x2d", "\x02\x00",
		string(capabilities[2:]), "\x15", strings.Repeat("\x00", 10), "123456789012\x00", "mysql_native_password\x00",
	}, "")
	if err := writePacket(conn, 0, greeting); err != nil {
		return err
	}
	if _, err := readPacket(conn); err != nil { // the request for TLS
		return err
	}
	inside := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12})
	sequence, err := readPacket(inside) // the login
	if err != nil {
		return err
	}
	return writePacket(inside, sequence+1, "\xff\x15\x04#28000Access denied") // error 1045
}

func writePacket(w io.Writer, sequence byte, payload string) error {
	header := []byte{byte(len(payload)), byte(len(payload) >> 8), byte(len(payload) >> 16), sequence}
	_, err := w.Write(append(header, payload...))
	return err
}

func readPacket(r io.Reader) (sequence byte, err error) {
	var header [4]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return 0, err
	}
	_, err = io.CopyN(io.Discard, r, int64(header[0])|int64(header[1])<<8|int64(header[2])<<16)
	return header[3], err
}

func TestTLSTrustsOnlyTheConfiguredRoots(t *testing.T) { // not parallel: it replaces the roots
	ours := newAuthority(t)
	forThisHost, forOtherHost := ours.sign(t, net.IPv4(127, 0, 0, 1)), ours.sign(t, nil, "other.example.com")
	file := filepath.Join(t.TempDir(), "ours.pem")
	if err := os.WriteFile(file, ours.pem(), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		certificate tls.Certificate
		trust       mysqlstore.Config
		rdsRoots    []byte // in place of Amazon's
		trusted     bool
	}{
		"the test's authority with RDS's roots":            {forThisHost, mysqlstore.Config{RDS: true}, nil, false},
		"the test's authority with the system's roots":     {forThisHost, mysqlstore.Config{}, nil, false},
		"the authority of the CA file":                     {forThisHost, mysqlstore.Config{CAFile: file}, nil, true},
		"the authority of the CA file, for another host":   {forOtherHost, mysqlstore.Config{CAFile: file}, nil, false},
		"the test's authority among RDS's":                 {forThisHost, mysqlstore.Config{RDS: true}, ours.pem(), true},
		"the test's authority among RDS's, for other host": {forOtherHost, mysqlstore.Config{RDS: true}, ours.pem(), false},
	} {
		t.Run(name, func(t *testing.T) {
			if c.rdsRoots != nil {
				defer mysqlstore.SetRDSRoots(c.rdsRoots)()
			}
			config := c.trust
			config.Host, config.Port, config.TLS, config.User, config.Name = "127.0.0.1", tlsServer(t, c.certificate), true, "u", "n"
			_, err := mysqlstore.Open(t.Context(), config)
			if c.trusted { // the server then refuses the login inside TLS
				wantFailure(t, err, billing.RunFatal, billing.ReasonDatabaseLogin)
				return
			}
			wantFailure(t, err, billing.Unavailable, billing.ReasonDatabaseUnavailable)
			if _, ok := errors.AsType[*tls.CertificateVerificationError](err); !ok || !strings.Contains(err.Error(), "DB_TLS") {
				t.Errorf("the error is not about the certificate: %v", err)
			}
		})
	}
}
