package interop

// The table: what no honest client sends. Every line gets etcd's own error and
// changes nothing, and nothing of it ends the server.

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// rawCodec sends bytes as they are under the name of protobuf.
type rawCodec struct{}

func (rawCodec) Marshal(v any) ([]byte, error)      { return *v.(*[]byte), nil }
func (rawCodec) Unmarshal(data []byte, v any) error { *v.(*[]byte) = data; return nil }
func (rawCodec) Name() string                       { return "proto" }

// raw sends the bytes as the body of a call; the reply is written in hex.
func (s *Side) raw(path string, body []byte, opts ...grpc.CallOption) string {
	var reply []byte
	err := s.Conn.Invoke(timeout(), path, &body, &reply, append(opts, grpc.ForceCodec(rawCodec{}))...)
	if err != nil {
		return errText(err)
	}
	return fmt.Sprintf("%x", reply)
}

func rawStep(name, path string, body []byte) step {
	return step{name + path, func(s *Side) string { return s.raw(path, body) }}
}

// rawStream sends the bytes as the one message of a stream.
func rawStream(name, path string, body []byte) step {
	return step{name + path, func(s *Side) string {
		desc := &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}
		c, err := s.Conn.NewStream(timeout(), desc, path, grpc.ForceCodec(rawCodec{}))
		if err != nil {
			return errText(err)
		}
		if err := c.SendMsg(&body); err != nil && err != io.EOF {
			return errText(err)
		}
		out := ""
		for {
			var reply []byte
			if err := c.RecvMsg(&reply); err != nil {
				return out + errText(err)
			}
			out += fmt.Sprintf("%d ", len(reply))
		}
	}}
}

const services = "/etcdserverpb."

// broken are bodies that are not protobuf, or are it in an odd way.
var broken = []struct {
	name string
	body []byte
}{
	{"tag-only", []byte{0x0a}},
	{"short-bytes", []byte{0x0a, 0x05, 'a'}},
	{"huge-length", []byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f}},
	{"endless-varint", []byte{0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}},
	{"field-zero", []byte{0x02, 0x01, 'a'}},
	{"group-end", []byte{0x0c}},
	{"group-open", []byte{0x0b}},
	{"wire-7", []byte{0x0f}},
	{"text", []byte("this is not protobuf at all")},
}

func bodies() []step {
	var steps []step
	for _, b := range broken {
		for _, m := range []string{"KV/Range", "KV/Put", "KV/DeleteRange", "KV/Txn", "KV/Compact", "Lease/LeaseGrant", "Lease/LeaseRevoke",
			"Lease/LeaseTimeToLive", "Cluster/MemberAdd", "Maintenance/Alarm", "Maintenance/HashKV", "Auth/AuthStatus"} {
			steps = append(steps, rawStep(b.name, services+m, b.body))
		}
		for _, m := range []string{"Watch/Watch", "Lease/LeaseKeepAlive", "KV/RangeStream", "Maintenance/Snapshot"} {
			if b.name == "text" || m != "Maintenance/Snapshot" {
				steps = append(steps, rawStream(b.name, services+m, b.body))
			}
		}
	}
	return steps
}

// oddities are well-formed in a way that a decoder may get wrong.
func oddities() []step {
	return []step{
		rawStep("empty", services+"KV/Range", nil),
		rawStep("empty", services+"KV/Put", nil),
		rawStep("empty", services+"KV/Txn", nil),
		rawStep("key-twice", services+"KV/Put", join(field(1, "first"), field(1, "second"), field(2, "v"))),
		rawStep("unknown-field", services+"KV/Put", join(field(1, "unknown"), field(99, "x"), varint(98, 7))),
		rawStep("big-bool", services+"KV/Put", join(field(1, "bool"), varint(4, 77))),
		rawStep("both-oneofs", services+"KV/Txn", join(field(2, string(join(field(1, string(field(1, "a"))), field(2, string(field(1, "oneof")))))))),
		rawStep("oneof-merge", services+"KV/Txn", join(field(2, string(join(field(2, string(field(1, "merged"))), field(2, string(field(2, "value")))))))),
		rawStep("reverse-order", services+"KV/Put", join(field(2, "v"), field(1, "reverse"))),
		rawStep("overlong-varint", services+"KV/Range", join(field(1, "a"), []byte{0x18, 0x81, 0x80, 0x80, 0x00})),
		rawStep("large-enum", services+"KV/Range", join(field(1, "a"), varint(5, 1<<40))),
		rawStep("method", "/etcdserverpb.KV/Nothing", nil),
		rawStep("service", "/etcdserverpb.Nothing/Range", nil),
		rawStep("package", "/other.KV/Range", nil),
		rawStep("case", "/etcdserverpb.KV/range", nil),
		rawStep("slash", "/KV", nil),
		rawStep("no-slash", "/", nil),
		rawStep("more", "/etcdserverpb.KV/Range/More", nil),
		rawStep("internal", "/etcdserverpb.Lease/LeaseCheckpoint", nil),
		rawStep("reflection", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", nil),
		rawStep("health", "/grpc.health.v1.Health/Check", nil),
		rawStep("health-named", "/grpc.health.v1.Health/Check", field(1, "etcdserverpb.KV")),
		call("all", "KV/Range", rng("\x00", "\x00")),
	}
}

// withMeta makes a put under some metadata.
func withMeta(name string, kv ...string) step {
	return step{"metadata/" + name, func(s *Side) string {
		ctx := metadata.AppendToOutgoingContext(timeout(), kv...)
		resp := &pb.PutResponse{}
		if err := s.Conn.Invoke(ctx, services+"KV/Put", put("meta", name), resp); err != nil {
			return errText(err)
		}
		return text(resp)
	}}
}

func metas() []step {
	return []step{
		withMeta("version", "client-api-version", "3.7"),
		withMeta("version-text", "client-api-version", "abc"),
		withMeta("version-empty", "client-api-version", ""),
		withMeta("version-twice", "client-api-version", "3.5", "client-api-version", "3.6"),
		withMeta("version-long", "client-api-version", strings.Repeat("3", 2000)),
		withMeta("leader", "hasleader", "true"),
		withMeta("leader-odd", "hasleader", "maybe"),
		withMeta("token", "token", "not-a-token"),
		withMeta("authorization", "authorization", "Bearer x"),
		withMeta("binary", "some-bin", "\xff\x00\xfe"),
		{"metadata/deadline-passed", func(s *Side) string {
			ctx, cancel := context.WithTimeout(context.Background(), -time.Second)
			defer cancel()
			return errText(s.Conn.Invoke(ctx, services+"KV/Put", put("late", "x"), &pb.PutResponse{}))
		}},
		{"metadata/gzip", func(s *Side) string {
			return errText(s.Conn.Invoke(timeout(), services+"KV/Put", put("zip", "x"), &pb.PutResponse{}, grpc.UseCompressor("unheard-of")))
		}},
		{"metadata/subtype", func(s *Side) string { return s.raw(services+"KV/Put", []byte{}, grpc.CallContentSubtype("json")) }},
	}
}

func TestTableBad(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	steps := append(bodies(), oddities()...)
	steps = append(steps, metas()...)
	steps = append(steps, call("all", "KV/Range", rng("\x00", "\x00")), call("hash", "Maintenance/HashKV", &pb.HashKVRequest{}))
	runSteps(t, p, steps)
}

// TestTableSizes walks over the limits of a request.
func TestTableSizes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		limit int
		args  []string
	}{{"default", 1572864, nil}, {"small", 30000, []string{"--max-request-bytes=30000"}}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t, c.args...)
			var steps []step
			for _, size := range []int{c.limit / 2, c.limit - 2000, c.limit - 10, c.limit, c.limit + 1, c.limit + 5000,
				c.limit + 512*1024 - 100, c.limit + 512*1024 - 15, c.limit + 512*1024, c.limit + 512*1024 + 1, c.limit + 600*1024, 3 * c.limit, 20 << 20} {
				value := strings.Repeat("v", size)
				steps = append(steps,
					call(fmt.Sprint(size), "KV/Put", put("big", value)),
					call(fmt.Sprintf("txn-%d", size), "KV/Txn", txn(nil, ops(opPut(put("big", value))), nil)),
					call(fmt.Sprintf("read-txn-%d", size), "KV/Txn", txn([]*pb.Compare{compareValue("big", "", pb.Compare_EQUAL, value)}, ops(opRange(rng("no", ""))), nil)),
					call(fmt.Sprintf("range-%d", size), "KV/Range", rng(value, "")),
					call(fmt.Sprintf("delete-%d", size), "KV/DeleteRange", del("no"+value, "")))
			}
			steps = append(steps, call("revision", "KV/Range", &pb.RangeRequest{Key: []byte("big"), KeysOnly: true}))
			runSteps(t, p, steps)
		})
	}
}

// TestTableDeafWatcher has a client that never reads: others must not notice.
func TestTableDeafWatcher(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	runSteps(t, p, []step{{"deaf", func(s *Side) string {
		c, err := pb.NewWatchClient(s.Conn).Watch(timeout())
		if err != nil {
			return errText(err)
		}
		c.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: wreq("a", "b", 0)}})
		if _, err := c.Recv(); err != nil {
			return errText(err)
		}
		value := strings.Repeat("x", 100_000)
		for i := range 200 {
			if _, err := s.Call("KV/Put", put(fmt.Sprintf("a%d", i), value)); err != nil {
				return errText(err)
			}
		}
		w := s.openWatch()
		defer w.cancel()
		w.create(wreq("b", "", 0))
		w.want(1)
		w.do("KV/Put", put("b", "heard"))
		w.want(1)
		got := 0
		for got < 200 {
			m, err := c.Recv()
			if err != nil {
				return errText(err)
			}
			got += len(m.Events)
		}
		return w.out.String() + fmt.Sprint(got)
	}}})
}

// TestSurvivesGarbage writes what is neither HTTP nor gRPC to the client port.
// No comparison: what counts is that etch still serves.
func TestSurvivesGarbage(t *testing.T) {
	t.Parallel()
	s := startServer(t, "etch")
	preface := "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	settings := "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	for _, junk := range []string{
		"", "\x00", "\x16\x03\x01\x02\x00", "GET", "GET / HTTP/1.1\r\n", "GET / HTTP/9.9\r\n\r\n", strings.Repeat("A", 1<<20), "POST /etcdserverpb.KV/Put HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n", preface, preface + settings, preface + "\xff\xff\xff\x00\x00\x00\x00\x00\x00",
		preface + settings + "\x00\x00\x05\x01\x04\x00\x00\x00\x01\xff\xff\xff\xff\xff", preface + settings + "\x00\x00\x04\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00",
		preface + settings + strings.Repeat("\x00\x00\x04\x03\x00\x00\x00\x00\x01\x00\x00\x00\x08", 500),
		preface + settings + strings.Repeat("\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678", 500),
		preface + strings.Repeat(settings, 2000),
	} {
		c, err := net.Dial("tcp", s.Endpoint())
		if err != nil {
			t.Fatalf("after garbage: %v\n%s", err, s.Log.Tail())
		}
		c.SetDeadline(time.Now().Add(300 * time.Millisecond))
		io.WriteString(c, junk)
		io.Copy(io.Discard, c)
		c.Close()
	}
	side := &Side{Server: s, Conn: dial(t, s)}
	// etcd itself falls over this one; etch must answer it with an error.
	if s.Program == "etch" && programs["etch"] != programs["etcd"] {
		side.Text("Maintenance/Alarm", &pb.AlarmRequest{Action: 9})
	}
	if got := side.Text("KV/Put", put("alive", "yes")); !strings.Contains(got, `"revision":"2"`) {
		t.Fatalf("after garbage: %s\n%s", got, s.Log.Tail())
	}
}
