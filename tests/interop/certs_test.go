package interop

// Authorities and certificates made on the spot, and servers that speak TLS.

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

var nextSerial atomic.Int64

func init() { nextSerial.Store(0x5000) }

// authority signs certificates, and keeps them in files.
type authority struct {
	dir  string
	file string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// identity is a certificate and its key.
type identity struct {
	cert, key string
	serial    *big.Int
}

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	a := &authority{dir: t.TempDir()}
	a.key = ok[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der := ok[[]byte](t)(x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key))
	a.cert = ok[*x509.Certificate](t)(x509.ParseCertificate(der))
	a.file = a.write(t, "ca-"+name+".pem", "CERTIFICATE", der)
	return a
}

// write puts a PEM file where another may have been, by renaming.
func (a *authority) write(t testing.TB, name, kind string, der []byte) string {
	t.Helper()
	file := filepath.Join(a.dir, name)
	fine(t, os.WriteFile(file+".new", pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
	fine(t, os.Rename(file+".new", file))
	return file
}

// sign makes a certificate for the loopback address, or what edit makes of it.
func (a *authority) sign(t testing.TB, name string, edit func(*x509.Certificate)) identity {
	t.Helper()
	key := ok[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(nextSerial.Add(1)), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
	}
	if edit != nil {
		edit(template)
	}
	der := ok[[]byte](t)(x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key))
	keyDER := ok[[]byte](t)(x509.MarshalECPrivateKey(key))
	return identity{
		key: a.write(t, name+"-key.pem", "EC PRIVATE KEY", keyDER), cert: a.write(t, name+".pem", "CERTIFICATE", der),
		serial: template.SerialNumber,
	}
}

// revoke writes the list of revoked certificates, as DER: etcd reads nothing else.
func (a *authority) revoke(t testing.TB, serials ...*big.Int) string {
	t.Helper()
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour)}
	for _, serial := range serials {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: serial, RevocationTime: time.Now()})
	}
	der := ok[[]byte](t)(x509.CreateRevocationList(rand.Reader, list, a.cert, a.key))
	file := filepath.Join(a.dir, "revoked.crl")
	fine(t, os.WriteFile(file+".new", der, 0o600))
	fine(t, os.Rename(file+".new", file))
	return file
}

// tlsConfig trusts the authority and shows an identity, if there is one.
func (a *authority) tlsConfig(t testing.TB, id identity) *tls.Config {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	config := &tls.Config{RootCAs: pool}
	if id.cert != "" {
		shown := ok[tls.Certificate](t)(tls.LoadX509KeyPair(id.cert, id.key))
		// Also to a server that has not asked for this authority's.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &shown, nil }
	}
	return config
}

// secureServer is a server that speaks TLS alone to its clients; not started.
func secureServer(t testing.TB, program string, args ...string) *Server {
	t.Helper()
	s := newServer(t, program)
	s.Args = append([]string{"--listen-client-urls=https://" + s.Endpoint(), "--log-level=debug"}, args...)
	return s
}

// mutual are the flags of a server that asks for certificates.
func (a *authority) mutual(server identity) []string {
	return []string{"--cert-file=" + server.cert, "--key-file=" + server.key, "--client-cert-auth", "--trusted-ca-file=" + a.file}
}

// secureClient is clientv3 over TLS.
func secureClient(t testing.TB, s *Server, config *tls.Config) *clientv3.Client {
	t.Helper()
	c := ok[*clientv3.Client](t)(clientv3.New(clientv3.Config{
		Endpoints: []string{"https://" + s.Endpoint()}, DialTimeout: patience, Logger: zap.NewNop(), TLS: config,
	}))
	t.Cleanup(func() { c.Close() })
	return c
}
