package interop

// Clients that stop reading in the middle of an answer: the file must not grow
// on their account, and what they get in the end is whole.

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
)

// churn overwrites the same keys for some rounds and compacts each away. It
// gives the size of the file, and of what is in use of it, after each round.
func churn(t testing.TB, s *Side, rounds int) (size, used int64) {
	t.Helper()
	value := strings.Repeat("v", 64<<10)
	for round := range rounds {
		var rev int64
		for k := range 100 {
			r := ok[*pb.PutResponse](t)(pb.NewKVClient(s.Conn).Put(t.Context(), put(fmt.Sprintf("churn%03d", k), fmt.Sprint(round)+value)))
			rev = r.Header.Revision
		}
		ok[*pb.CompactionResponse](t)(pb.NewKVClient(s.Conn).Compact(t.Context(), &pb.CompactionRequest{Revision: rev, Physical: true}))
	}
	r := ok[*pb.StatusResponse](t)(pb.NewMaintenanceClient(s.Conn).Status(t.Context(), &pb.StatusRequest{}))
	return r.DbSize, r.DbSizeInUse
}

func startSlow(t testing.TB) *Side {
	t.Helper()
	if testingEtcd() {
		t.Skip("etcd holds a transaction for as long as the client likes")
	}
	s := startServer(t, "etch")
	side := &Side{Server: s, Conn: dial(t, s), vars: map[string]int64{}}
	value := strings.Repeat("w", 100<<10)
	for k := range 80 {
		ok[*pb.PutResponse](t)(pb.NewKVClient(side.Conn).Put(t.Context(), put(fmt.Sprintf("big%03d", k), value)))
	}
	return side
}

func TestSnapshotReaderThatStops(t *testing.T) {
	t.Parallel()
	s := startSlow(t)
	before := ok[*pb.StatusResponse](t)(pb.NewMaintenanceClient(s.Conn).Status(t.Context(), &pb.StatusRequest{}))
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	// A fixed window: the stream cannot run ahead of its reader.
	slow := ok[*grpc.ClientConn](t)(grpc.NewClient(s.Endpoint(), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithStaticStreamWindowSize(64<<10), grpc.WithStaticConnWindowSize(64<<10)))
	defer slow.Close()
	stream := ok[pb.Maintenance_SnapshotClient](t)(pb.NewMaintenanceClient(slow).Snapshot(ctx, &pb.SnapshotRequest{}))
	first := ok[*pb.SnapshotResponse](t)(stream.Recv())
	size, used := churn(t, s, 40)
	// 40 rounds wrote 256 MiB.
	if limit := before.DbSize + 128<<20; size > limit {
		t.Errorf("the file has grown to %d bytes (%d in use), from %d", size, used, before.DbSize)
	}
	if !strings.Contains(s.Log.String(), "copying ahead a snapshot") {
		t.Errorf("nothing was copied ahead\n%s", s.Log.Tail())
	}
	sum := sha256.New()
	blob, total := first.Blob, int64(0)
	for {
		r, err := stream.Recv()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("after %d bytes: %v\n%s", total, err, s.Log.Tail())
		}
		sum.Write(blob)
		total += int64(len(blob))
		blob = r.Blob
	}
	if !bytes.Equal(blob, sum.Sum(nil)) {
		t.Errorf("%d bytes with another digest", total)
	}
}

// TestRangeReaderThatStops speaks HTTP/2 by hand, so as to open no window.
func TestRangeReaderThatStops(t *testing.T) {
	t.Parallel()
	s := startSlow(t)
	before := ok[*pb.StatusResponse](t)(pb.NewMaintenanceClient(s.Conn).Status(t.Context(), &pb.StatusRequest{}))
	conn := ok[net.Conn](t)(net.Dial("tcp", s.Endpoint()))
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(2 * patience))
	_, err := conn.Write([]byte(http2.ClientPreface))
	fine(t, err)
	framer := http2.NewFramer(conn, conn)
	fine(t, framer.WriteSettings())
	var head bytes.Buffer
	enc := hpack.NewEncoder(&head)
	for _, f := range [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", "/etcdserverpb.KV/Range"}, {":authority", s.Endpoint()},
		{"content-type", "application/grpc"}, {"te", "trailers"},
	} {
		fine(t, enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}))
	}
	fine(t, framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: head.Bytes(), EndHeaders: true}))
	body := ok[[]byte](t)(proto.Marshal(rng("big", "bih")))
	fine(t, framer.WriteData(1, true, append([]byte{0, 0, 0, 0, byte(len(body))}, body...)))
	var got bytes.Buffer
	read := func(until int) {
		for got.Len() < until {
			f := ok[http2.Frame](t)(framer.ReadFrame())
			switch f := f.(type) {
			case *http2.DataFrame:
				got.Write(f.Data())
			case *http2.SettingsFrame:
				if !f.IsAck() {
					fine(t, framer.WriteSettingsAck())
				}
			case *http2.PingFrame:
				fine(t, framer.WritePing(true, f.Data))
			case *http2.RSTStreamFrame, *http2.GoAwayFrame:
				t.Fatalf("after %d bytes: %v", got.Len(), f)
			}
		}
	}
	// The first window, and then nothing.
	read(65535)
	size, used := churn(t, s, 40)
	if limit := before.DbSize + 64<<20; size > limit {
		t.Errorf("the file has grown to %d bytes (%d in use), from %d", size, used, before.DbSize)
	}
	fine(t, framer.WriteWindowUpdate(0, 1<<30))
	fine(t, framer.WriteWindowUpdate(1, 1<<30))
	read(80 * 100 << 10)
	total := 5 + int(uint32(got.Bytes()[1])<<24|uint32(got.Bytes()[2])<<16|uint32(got.Bytes()[3])<<8|uint32(got.Bytes()[4]))
	read(total)
	var r pb.RangeResponse
	fine(t, proto.Unmarshal(got.Bytes()[5:total], &r))
	if len(r.Kvs) != 80 || r.Count != 80 || len(r.Kvs[79].Value) != 100<<10 {
		t.Errorf("%d keys of %d", len(r.Kvs), r.Count)
	}
}

// TestWatchReaderThatStops writes far more than a watcher's windows and queues hold while it reads nothing. Then it
// reads on, and misses nothing.
func TestWatchReaderThatStops(t *testing.T) {
	t.Parallel()
	s := startSlow(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	slow := ok[*grpc.ClientConn](t)(grpc.NewClient(s.Endpoint(), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithStaticStreamWindowSize(64<<10), grpc.WithStaticConnWindowSize(64<<10)))
	defer slow.Close()
	stream := ok[pb.Watch_WatchClient](t)(pb.NewWatchClient(slow).Watch(ctx))
	fine(t, stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: wreq("watched", "", 0, prev)}}))
	created := ok[*pb.WatchResponse](t)(stream.Recv())
	const writes = 400
	value := strings.Repeat("v", 64<<10)
	for n := range writes {
		ok[*pb.PutResponse](t)(pb.NewKVClient(s.Conn).Put(ctx, put("watched", fmt.Sprint(n)+value)))
	}
	for n := 0; n < writes; {
		r := ok[*pb.WatchResponse](t)(stream.Recv())
		if r.Canceled {
			t.Fatalf("after %d events: %v", n, r.CancelReason)
		}
		for _, event := range r.Events {
			if want := created.Header.Revision + 1 + int64(n); event.Kv.ModRevision != want || string(event.Kv.Value) != fmt.Sprint(n)+value {
				t.Fatalf("event %d is of revision %d, not %d", n, event.Kv.ModRevision, want)
			}
			if n > 0 && string(event.PrevKv.GetValue()) != fmt.Sprint(n-1)+value {
				t.Fatalf("event %d has another value before it", n)
			}
			n++
		}
	}
}
