package interop

// Endpoints from DNS: a name server of our own in a network and a file system
// that only this process and its children see, asked by the real etcdctl and by
// ours. Where the machine does not permit that, the test says so and is skipped.

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/net/dns/dnsmessage"
)

// inside is set where the name server is ours.
const inside = "ETCH_TEST_OWN_NETWORK"

func TestCtlDiscovery(t *testing.T) {
	if os.Getenv(inside) == "" {
		t.Parallel()
		apart(t)
		return
	}
	fine(t, loopbackUp())
	fine(t, syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""))
	config := filepath.Join(t.TempDir(), "resolv.conf")
	fine(t, os.WriteFile(config, []byte("nameserver 127.0.0.1\noptions timeout:5\n"), 0o644))
	fine(t, syscall.Mount(config, "/etc/resolv.conf", "", syscall.MS_BIND, ""))
	discovery(t)
}

// apart runs this test again in namespaces of its own.
func apart(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, ok[string](t)(os.Executable()), "-test.run=^TestCtlDiscovery$", "-test.v")
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Skipf("no namespaces for a name server of our own: %v", err)
	}
	if err := cmd.Wait(); err != nil {
		if strings.Contains(out.String(), "operation not permitted") {
			t.Skipf("no name server of our own: %s", out.String())
		}
		t.Errorf("%v\n%s", err, out.String())
	}
}

// loopbackUp sets the flag that a new network's loopback lacks.
func loopbackUp() error {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	var request struct {
		name  [syscall.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}
	copy(request.name[:], "lo")
	request.flags = syscall.IFF_UP | syscall.IFF_RUNNING
	if _, _, err := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), syscall.SIOCSIFFLAGS, uintptr(unsafe.Pointer(&request))); err != 0 {
		return err
	}
	return nil
}

// zone holds SRV records, by name: the host and the port. A host's address
// is always the loopback's.
type zone map[string]struct {
	host string
	port int
}

// serve answers queries to the port of name servers. Names under broken.test are
// a failure of the server's; those that are not there do not exist.
func (s zone) serve(t testing.TB) {
	conn := ok[net.PacketConn](t)(net.ListenPacket("udp", "127.0.0.1:53"))
	t.Cleanup(func() { conn.Close() })
	go func() {
		buffer := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buffer)
			if err != nil {
				return
			}
			if answer, err := s.answer(buffer[:n]); err == nil {
				conn.WriteTo(answer, from)
			}
		}
	}()
}

func (s zone) answer(query []byte) ([]byte, error) {
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil {
		return nil, err
	}
	asked := m.Questions[0]
	reply := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: m.ID, Response: true, Authoritative: true, RecursionAvailable: true, RCode: dnsmessage.RCodeNameError},
		Questions: m.Questions,
	}
	name := strings.TrimSuffix(strings.ToLower(asked.Name.String()), ".")
	header := dnsmessage.ResourceHeader{Name: asked.Name, Class: dnsmessage.ClassINET, TTL: 60}
	service, known := s[name]
	switch {
	case strings.HasSuffix(name, "broken.test"):
		reply.RCode = dnsmessage.RCodeServerFailure
	case known:
		reply.RCode = dnsmessage.RCodeSuccess
		target := dnsmessage.MustNewName(service.host + ".")
		body := &dnsmessage.SRVResource{Port: uint16(service.port), Target: target}
		reply.Answers = append(reply.Answers, dnsmessage.Resource{Header: header, Body: body})
	case strings.HasPrefix(name, "host."):
		reply.RCode = dnsmessage.RCodeSuccess
		if asked.Type == dnsmessage.TypeA {
			body := &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}}
			reply.Answers = append(reply.Answers, dnsmessage.Resource{Header: header, Body: body})
		}
	}
	return reply.Pack()
}

// discovery compares both tools, and says what comes of each line.
func discovery(t *testing.T) {
	ca := newAuthority(t, "ca")
	id := ca.sign(t, "server", func(c *x509.Certificate) { c.DNSNames = []string{"tls.test", "host.tls.test", "host.other.test"} })
	plain := startServer(t, "etch")
	secured := newServer(t, "etch")
	secured.Own = append(secured.flags(), "--listen-client-urls=https://"+secured.Endpoint(), "--advertise-client-urls=https://"+secured.Endpoint(),
		"--cert-file="+id.cert, "--key-file="+id.key)
	secured.Start(t)
	zone{
		"_etcd-client._tcp.plain.test":        {"host.plain.test", plain.Port},
		"_etcd-client-ssl._tcp.tls.test":      {"host.tls.test", secured.Port},
		"_etcd-client-ssl-blue._tcp.tls.test": {"host.tls.test", secured.Port},
		"_etcd-client-ssl._tcp.wrong.test":    {"host.wrong.test", secured.Port},
		"_etcd-client-ssl._tcp.other.test":    {"host.other.test", secured.Port},
	}.serve(t)

	// The proxies find the cluster the same way.
	for _, flags := range [][]string{
		{"--discovery-srv", "plain.test", "--insecure-discovery"},
		{"--discovery-srv", "tls.test", "--cacert", ca.file},
		{"--discovery-srv", "tls.test", "--discovery-srv-name", "blue", "--cacert", ca.file},
	} {
		p := startGrpcProxy(t, flags...)
		if said := p.ctl(t, "put", "through", "a proxy"); said != "OK\n" {
			t.Errorf("%v: %s", flags, said)
		}
	}
	if said := spoken(t, "etch", "grpc-proxy", "start", "--discovery-srv", "nowhere.test"); !strings.Contains(said, "no such host") {
		t.Errorf("nowhere: %s", said)
	}

	ours := asEtcdctl(t)
	trust := " --cacert=" + ca.file
	missing := "Error: dns lookup errors: lookup _etcd-client-ssl._tcp.%[1]s on 127.0.0.1:53: %[2]s and lookup _etcd-client._tcp.%[1]s on 127.0.0.1:53: %[2]s\n"
	for _, l := range []struct {
		words  string
		code   int
		says   string // in either output
		differ bool   // the real one is content with less
	}{
		{words: "put a 1 --discovery-srv=plain.test", says: "OK\n"},
		{words: "get a --insecure-discovery=true --discovery-srv=plain.test", says: "a\n1\n"},
		{words: "get a --insecure-discovery=false --discovery-srv=plain.test --command-timeout=1s --dial-timeout=1s", code: 1, says: fmt.Sprintf("ignoring discovered insecure endpoint \"http://host.plain.test.:%d\"\n", plain.Port)},
		{words: "put b 2 --insecure-discovery=false --discovery-srv=tls.test" + trust, says: "OK\n"},
		{words: "get b --discovery-srv=tls.test --discovery-srv-name=blue" + trust, says: "b\n2\n"},
		{words: "get b --discovery-srv=tls.test --command-timeout=1s --dial-timeout=1s", code: 1},
		{words: "get b --insecure-discovery=false --discovery-srv=wrong.test --command-timeout=1s --dial-timeout=1s" + trust, code: 1},
		// etcdctl's gRPC asks for the host's name instead of the domain's, which etcd's documentation promises.
		{words: "get b --insecure-discovery=false --discovery-srv=other.test --command-timeout=1s --dial-timeout=1s" + trust, code: 1, differ: true},
		{words: "get a --discovery-srv=nowhere.test", code: 1, says: fmt.Sprintf(missing, "nowhere.test", "no such host")},
		{words: "get a --discovery-srv=broken.test", code: 1, says: fmt.Sprintf(missing, "broken.test", "server misbehaving")},
		{words: "get a --discovery-srv=tls.test --discovery-srv-name=red", code: 1, says: "lookup _etcd-client-ssl-red._tcp.tls.test on 127.0.0.1:53: no such host and"},
	} {
		t.Run(l.words, func(t *testing.T) {
			want, got := discovered(t, programs["etcdctl"], l.words), discovered(t, ours, l.words)
			if !l.differ && got != want {
				t.Errorf("etcdctl:\n%s\nours:\n%s", want, got)
			}
			if !strings.Contains(got, l.says) || !strings.HasSuffix(got, fmt.Sprintf("exit status %d", l.code)) {
				t.Errorf("said:\n%s", got)
			}
		})
	}
}

// discovered is what a tool prints, without how long it took.
func discovered(t testing.TB, tool, words string) string {
	cmd := exec.Command(tool, strings.Fields(words)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.Run()
	text := out.String() + "--\n" + ctlNoise.ReplaceAllString(errs.String(), "") + "--\n"
	return ctlTook.ReplaceAllString(text, "T") + fmt.Sprintf("exit status %d", cmd.ProcessState.ExitCode())
}
