package interop

// Mutual TLS: an etch and a real etcd that want a certificate, on TCP and on a
// socket in the file system, asked in each way by clientv3 and by etch-client.

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

func TestMutualTLS(t *testing.T) {
	t.Parallel()
	program := rustProgram(t)
	ca := newAuthority(t, "ca")
	both := func(c *x509.Certificate) { c.DNSNames = append(c.DNSNames, "etcd.test") }
	ca.sign(t, "server", both)
	ca.sign(t, "client", nil)
	fine(t, os.Link(ca.file, filepath.Join(ca.dir, "ca.pem")))
	fine(t, os.Link(newAuthority(t, "other").file, filepath.Join(ca.dir, "other.pem")))

	for _, server := range []string{"etch", "etcd"} {
		t.Run(server, func(t *testing.T) {
			t.Parallel()
			mutualTLS(t, server, program, ca.dir)
		})
	}
}

func mutualTLS(t *testing.T, server, program, dir string) {
	s := newServer(t, server)
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
