package interop

// The comparison: the same request goes to etcd and to etch, and what comes
// back is written down as text and must be the same text.

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// Side is one server of a comparison, with what was remembered from its replies.
type Side struct {
	*Server
	Conn *grpc.ClientConn
	mu   sync.Mutex
	vars map[string]int64
}

// Pair is the two servers of a comparison.
type Pair struct{ A, B *Side }

func dial(t testing.TB, s *Server) *grpc.ClientConn {
	t.Helper()
	return dialAt(t, s.Endpoint())
}

func dialAt(t testing.TB, endpoint string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(endpoint,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(math.MaxInt32), grpc.MaxCallSendMsgSize(math.MaxInt32)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// newPair starts a fresh etcd and a fresh etch with the same flags.
func newPair(t testing.TB, args ...string) *Pair {
	t.Helper()
	a, b := newServer(t, "etcd", args...), newServer(t, "etch", args...)
	a.Launch(t)
	b.Launch(t)
	for _, s := range []*Server{a, b} {
		if err := s.awaitReady(); err != nil {
			t.Fatalf("%s: %v\n%s", s.Program, err, s.Log.Tail())
		}
	}
	p := &Pair{
		A: connect(t, a),
		B: connect(t, b),
	}
	p.settle(t)
	return p
}

// connect is one server alone, with a connection to it.
func connect(t testing.TB, s *Server) *Side {
	t.Helper()
	s.dialAll(t)
	return &Side{Server: s, Conn: dial(t, s), vars: map[string]int64{}}
}

// settle waits until both have written down their cluster version: until then
// some replies are still those of a cluster that is being born.
func (p *Pair) settle(t testing.TB) {
	t.Helper()
	for _, s := range []*Side{p.A, p.B} {
		deadline := time.Now().Add(patience)
		for {
			r, err := pb.NewMaintenanceClient(s.Conn).Status(t.Context(), &pb.StatusRequest{})
			if err == nil && r.StorageVersion == "3.7.0" && s.hasVersions() {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s never had a cluster version: %v %v", s.Program, r, err)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
}

// Both runs f on the two sides at once and demands the same text of both.
func (p *Pair) Both(t testing.TB, f func(*Side) string) {
	t.Helper()
	var a, b string
	var wg sync.WaitGroup
	wg.Add(2)
	go func() { defer wg.Done(); a = f(p.A) }()
	go func() { defer wg.Done(); b = f(p.B) }()
	wg.Wait()
	if a != b {
		t.Errorf("different answers\n--- etcd\n%s\n--- etch\n%s", clip(a, b), clip(b, a))
	}
	select {
	case <-p.B.exited:
		t.Fatalf("etch ended: %v\n%s", p.B.err, p.B.Log.Tail())
	default:
	}
}

// oneDeadline makes one of the two things that Go's gRPC may say when the time of
// a stream is up: what its own clock says, or what came from the server, whose
// clock may be a moment ahead.
func oneDeadline(out string) string {
	return strings.ReplaceAll(out, "stream terminated by RST_STREAM with error code: CANCEL", "context deadline exceeded")
}

// clip shortens a long text around the first place where it differs from another.
func clip(s, other string) string {
	if len(s) < 3000 && len(other) < 3000 {
		return s
	}
	i := 0
	for i < len(s) && i < len(other) && s[i] == other[i] {
		i++
	}
	from, to := max(0, i-300), min(len(s), i+700)
	return fmt.Sprintf("(%d bytes, different at %d) …%s…", len(s), i, s[from:to])
}

// Set remembers a number under a name; Get reads it.
func (s *Side) Set(name string, v int64) { s.mu.Lock(); s.vars[name] = v; s.mu.Unlock() }

// Get reads a remembered number.
func (s *Side) Get(name string) int64 { s.mu.Lock(); defer s.mu.Unlock(); return s.vars[name] }

// timeout is a context for one call of a test.
func timeout() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience/3)
	context.AfterFunc(ctx, cancel)
	return ctx
}

func method(name string) (path string, out protoreflect.MessageType) {
	svc, m, _ := strings.Cut(name, "/")
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName("etcdserverpb." + svc))
	if err != nil {
		panic(err)
	}
	md := d.(protoreflect.ServiceDescriptor).Methods().ByName(protoreflect.Name(m))
	out, err = protoregistry.GlobalTypes.FindMessageByName(md.Output().FullName())
	if err != nil {
		panic(err)
	}
	return "/etcdserverpb." + name, out
}

// Call makes a unary call, such as "KV/Range", and gives the reply.
func (s *Side) Call(name string, req proto.Message) (proto.Message, error) {
	path, out := method(name)
	resp := out.New().Interface()
	ctx, cancel := context.WithTimeout(context.Background(), patience/3)
	defer cancel()
	err := s.Conn.Invoke(ctx, path, req, resp)
	if name != "KV/Range" {
		s.level()
	}
	canonical(req, resp)
	return resp, err
}

// Text makes a unary call and writes down the reply.
func (s *Side) Text(name string, req proto.Message) string {
	resp, err := s.Call(name, req)
	if err != nil {
		return errText(err)
	}
	return text(resp)
}

// errText writes down an error: code, message, and that it has no details.
func errText(err error) string {
	st := status.Convert(err)
	// protobuf's own messages begin with either a blank or a hard blank, so
	// that nobody relies on them.
	msg := strings.ReplaceAll(st.Message(), "\u00a0", " ")
	return fmt.Sprintf("error %s %q details=%d", st.Code(), msg, len(st.Details()))
}

// text writes down a message as compact JSON, after masking what may differ.
func text(m proto.Message) string {
	m = proto.Clone(m)
	mask(m)
	unknown := unknownFields(m.ProtoReflect())
	raw, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		return "unprintable " + err.Error()
	}
	var out bytes.Buffer
	if err := json.Compact(&out, raw); err != nil {
		return "unprintable " + err.Error()
	}
	return oneCluster(out.String()) + unknown
}

func unknownFields(m protoreflect.Message) string {
	found := ""
	if u := m.GetUnknown(); len(u) > 0 {
		found = fmt.Sprintf(" unknown fields in %s: %x", m.Descriptor().FullName(), []byte(u))
	}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if fd.Message() == nil {
			return true
		}
		if fd.IsList() {
			for i := range v.List().Len() {
				found += unknownFields(v.List().Get(i).Message())
			}
			return true
		}
		found += unknownFields(v.Message())
		return true
	})
	return found
}

// mask hides what two correct servers may answer differently. Ids of member
// and cluster, and the term, are not among it: both sides must compute the same.
func mask(m proto.Message) {
	sign := func(v int64) int64 {
		if v > 0 {
			return 1
		}
		return v
	}
	switch r := m.(type) {
	case *pb.StatusResponse:
		r.DbSize, r.DbSizeInUse = sign(r.DbSize), sign(r.DbSizeInUse)
		// The text of an alarm has one blank or two between its fields, by build.
		for i, e := range r.Errors {
			r.Errors[i] = strings.Join(strings.Fields(e), " ")
		}
		r.RaftIndex, r.RaftAppliedIndex = uint64(sign(int64(r.RaftIndex))), uint64(sign(int64(r.RaftAppliedIndex)))
	case *pb.HashResponse:
		// The hash of the whole file depends on its layout.
		r.Hash = 0
	}
}

// step is one line of a table.
type step struct {
	name string
	do   func(*Side) string
}

// call is a step that makes one unary call.
func call(name, rpc string, req proto.Message) step {
	return step{name: rpc + "/" + name, do: func(s *Side) string { return s.Text(rpc, req) }}
}

// runSteps runs the steps of a table in order, each as a subtest.
func runSteps(t *testing.T, p *Pair, steps []step) {
	t.Helper()
	for i, st := range steps {
		if inCluster() && ofOne.MatchString(st.name) {
			continue
		}
		select {
		case <-p.B.exited:
			t.Fatalf("etch is gone, %d steps are left", len(steps)-i)
		default:
		}
		t.Run(fmt.Sprintf("%03d_%s", i, st.name), func(t *testing.T) { p.Both(t, st.do) })
	}
}
