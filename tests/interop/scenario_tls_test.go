package interop

// Mutual TLS: a real etcd that wants a certificate, on TCP and on a socket in
// the file system, asked in each way by clientv3 and by etch-client.

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// authority signs certificates into a directory.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func writePEM(t testing.TB, path, kind string, der []byte) {
	t.Helper()
	fine(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
}

// certificate makes NAME.pem and NAME-key.pem, signed by the authority or, where
// there is none, by itself.
func (a *authority) certificate(t testing.TB, dir, name string) *authority {
	t.Helper()
	key := ok[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"localhost", "etcd.test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IsCA:        a == nil, BasicConstraintsValid: true,
	}
	parent, signer := template, key
	if a != nil {
		parent, signer = a.cert, a.key
	}
	der := ok[[]byte](t)(x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer))
	secret := ok[[]byte](t)(x509.MarshalPKCS8PrivateKey(key))
	writePEM(t, filepath.Join(dir, name+".pem"), "CERTIFICATE", der)
	writePEM(t, filepath.Join(dir, name+"-key.pem"), "PRIVATE KEY", secret)
	return &authority{dir, ok[*x509.Certificate](t)(x509.ParseCertificate(der)), key}
}

func TestMutualTLS(t *testing.T) {
	t.Parallel()
	program := rustProgram(t)
	dir := t.TempDir()
	var none *authority
	ca := none.certificate(t, dir, "ca")
	none.certificate(t, dir, "other")
	ca.certificate(t, dir, "server")
	ca.certificate(t, dir, "client")

	s := newServer(t, "etcd")
	secured := "https://" + s.Endpoint()
	// etcd takes a socket's name only in the form of a host and a port, and makes it where it runs.
	port := freePort(t)
	socket := filepath.Join(ok[string](t)(os.Getwd()), fmt.Sprintf("localhost:%d", port))
	t.Cleanup(func() { os.Remove(socket) })
	s.Own = append(s.flags(),
		"--listen-client-urls="+secured+fmt.Sprintf(",unixs://localhost:%d", port), "--advertise-client-urls="+secured,
		"--cert-file="+filepath.Join(dir, "server.pem"), "--key-file="+filepath.Join(dir, "server-key.pem"),
		"--client-cert-auth", "--trusted-ca-file="+filepath.Join(dir, "ca.pem"))
	s.Start(t)

	ours := converse(t, &world{}, program, "tls", dir, secured, "unixs://"+socket)
	var theirs []string
	for _, way := range []struct{ name, ca, cert, server string }{
		{"as it should be", "ca", "client", ""},
		{"no certificate", "ca", "", ""},
		{"an unknown authority", "other", "client", ""},
		{"another name", "ca", "client", "elsewhere.test"},
		{"its other name", "ca", "client", "etcd.test"},
		{"no check", "", "client", ""},
	} {
		info := transport.TLSInfo{ServerName: way.server, InsecureSkipVerify: way.ca == ""}
		if way.ca != "" {
			info.TrustedCAFile = filepath.Join(dir, way.ca+".pem")
		}
		if way.cert != "" {
			info.CertFile, info.KeyFile = filepath.Join(dir, way.cert+".pem"), filepath.Join(dir, way.cert+"-key.pem")
		}
		config := ok[*tls.Config](t)(info.ClientConfig())
		theirs = append(theirs, fmt.Sprintf("https %s: %s", way.name, reached(secured, config)))
	}
	theirs = append(theirs, "https in the clear: "+reached(strings.Replace(secured, "https", "http", 1), nil))
	want := []string{"ok", "no answer", "no answer", "no answer", "ok", "ok", "no answer"}
	for i, line := range theirs {
		// gRPC puts the endpoint's host in the place of the name that clientv3 is given.
		expected := want[i]
		if strings.Contains(line, "another name") {
			expected = "ok"
		}
		if !strings.HasSuffix(line, ": "+expected) {
			t.Errorf("clientv3: %s, expected %s", line, expected)
		}
	}
	for i, line := range ours {
		if !strings.HasSuffix(line, ": "+want[i%len(want)]) {
			t.Errorf("%s, expected %s", line, want[i%len(want)])
		}
	}
	if len(ours) != 2*len(want) {
		t.Errorf("%d lines: %q", len(ours), ours)
	}
}

func reached(endpoint string, config *tls.Config) string {
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, TLS: config, Logger: zap.NewNop()})
	if err != nil {
		return "no answer"
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if _, err := c.Put(ctx, "a", "1"); err != nil {
		return "no answer"
	}
	return "ok"
}
