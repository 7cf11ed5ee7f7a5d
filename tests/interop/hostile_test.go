package interop

// Hostile clients: while they do their worst, the server goes on answering
// others, its memory stays under a bound, and comes back down when they are
// gone. The bounds, with what was measured, are in docs/limits.md.

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"
)

// foe is a connection without manners: frames as the test writes them.
type foe struct {
	net.Conn
	*http2.Framer
	block bytes.Buffer
	enc   *hpack.Encoder
	next  uint32
}

// greeting is the preface with settings that open every window.
func greeting() []byte {
	var b bytes.Buffer
	b.WriteString(http2.ClientPreface)
	f := http2.NewFramer(&b, nil)
	f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1})
	f.WriteWindowUpdate(0, 1<<30)
	return b.Bytes()
}

func newFoe(t testing.TB, s *Server) *foe {
	t.Helper()
	c, err := net.Dial("tcp", s.Endpoint())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, err := c.Write(greeting()); err != nil {
		t.Fatal(err)
	}
	f := &foe{Conn: c, next: 1}
	f.Framer = http2.NewFramer(c, c)
	f.Framer.AllowIllegalWrites = true
	f.Framer.AllowIllegalReads = true
	f.enc = hpack.NewEncoder(&f.block)
	return f
}

// headers is the header block of a call.
func (f *foe) headers(path string, more ...string) []byte {
	f.block.Reset()
	fields := append([]string{":method", "POST", ":scheme", "http", ":path", path, ":authority", "x", "content-type", "application/grpc", "te", "trailers"}, more...)
	for i := 0; i < len(fields); i += 2 {
		f.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return f.block.Bytes()
}

// open begins a call and sends its bytes; the stream's end is left out if end is false.
func (f *foe) open(path string, message []byte, end bool) (uint32, error) {
	id := f.next
	f.next += 2
	err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: f.headers(path), EndHeaders: true})
	if err != nil {
		return id, err
	}
	return id, f.WriteData(id, end, message)
}

// grpcFrame puts the prefix of gRPC in front of a message.
func grpcFrame(m proto.Message) []byte {
	body, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(body))), body...)
}

// isCut waits until the server has closed the connection; what it says meanwhile is read and dropped.
func (f *foe) isCut(patience time.Duration) bool {
	f.SetReadDeadline(time.Now().Add(patience))
	_, err := io.Copy(io.Discard, f.Conn)
	return err == nil || !errors.Is(err, os.ErrDeadlineExceeded)
}

// floods writes the same bytes until the server has had enough.
func floods(t *testing.T, f *foe, what func() error) {
	t.Helper()
	done := make(chan bool, 1)
	go func() { done <- f.isCut(30 * time.Second) }()
	until := time.Now().Add(30 * time.Second)
	for time.Now().Before(until) {
		if what() != nil {
			break
		}
	}
	if !<-done {
		t.Error("the server let it go on")
	}
}

// probe is an honest client that must not notice anything.
type probe struct {
	stop   chan struct{}
	done   sync.WaitGroup
	asked  atomic.Int64
	worst  atomic.Int64
	failed atomic.Pointer[error]
}

func startProbe(t testing.TB, s *Server) *probe {
	p := &probe{stop: make(chan struct{})}
	kv := pb.NewKVClient(dial(t, s))
	p.done.Add(1)
	go func() {
		defer p.done.Done()
		for n := 0; ; n++ {
			select {
			case <-p.stop:
				return
			case <-time.After(10 * time.Millisecond):
			}
			began := time.Now()
			err := ask(kv, "probe", n)
			if err != nil && p.failed.Load() == nil {
				p.failed.Store(&err)
			}
			p.asked.Add(1)
			p.worst.Store(max(p.worst.Load(), int64(time.Since(began))))
		}
	}()
	t.Cleanup(func() { p.end() })
	return p
}

func ask(kv pb.KVClient, key string, n int) error {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	want := strconv.Itoa(n)
	if _, err := kv.Put(ctx, put(key, want)); err != nil {
		return fmt.Errorf("put: %w", err)
	}
	r, err := kv.Range(ctx, rng(key, ""))
	if err != nil {
		return fmt.Errorf("range: %w", err)
	}
	if len(r.Kvs) != 1 || string(r.Kvs[0].Value) != want {
		return fmt.Errorf("range after put %s: %v", want, r.Kvs)
	}
	return nil
}

func (p *probe) end() {
	select {
	case <-p.stop:
	default:
		close(p.stop)
	}
	p.done.Wait()
}

// ownMemory is what the process holds beside mapped files, in MiB.
func (s *Server) ownMemory(t testing.TB) int {
	t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		t.Fatalf("%v\n%s", err, s.Log.Tail())
	}
	for _, line := range strings.Split(string(raw), "\n") {
		if rest, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			kb, _ := strconv.Atoi(strings.Fields(rest)[0])
			return kb >> 10
		}
	}
	t.Fatal("no RssAnon")
	return 0
}

// attack runs one attack beside a probe and holds the server's memory to bounds, in MiB above what it was.
func attack(t *testing.T, s *Server, name string, peak, after int, do func(t *testing.T)) {
	t.Run(name, func(t *testing.T) {
		p := startProbe(t, s)
		before := s.ownMemory(t)
		highest := before
		stop := make(chan struct{})
		var watching sync.WaitGroup
		watching.Add(1)
		go func() {
			defer watching.Done()
			for {
				select {
				case <-stop:
					return
				case <-time.After(20 * time.Millisecond):
					highest = max(highest, s.ownMemory(t))
				}
			}
		}()
		began := time.Now()
		t.Run("attack", do)
		took := time.Since(began)
		// Its connections are closed by now.
		left := s.ownMemory(t)
		// A thread gives back what it has freed when it has something to do: a few guests see to that.
		for until := time.Now().Add(15 * time.Second); left-before > after && time.Now().Before(until); {
			for range 2 * runtime.NumCPU() {
				if err := ask(pb.NewKVClient(dial(t, s)), "guest", 0); err != nil && p.failed.Load() == nil {
					p.failed.Store(&err)
				}
			}
			time.Sleep(100 * time.Millisecond)
			left = s.ownMemory(t)
		}
		close(stop)
		watching.Wait()
		p.end()
		t.Logf("%.1fs; %d MiB before, at most %d, %d after; %d probes, the slowest %v",
			took.Seconds(), before, highest, left, p.asked.Load(), time.Duration(p.worst.Load()).Round(time.Millisecond))
		if err := p.failed.Load(); err != nil {
			t.Errorf("a client beside it: %v\n%s", *err, s.Log.Tail())
		}
		if p.asked.Load() == 0 {
			t.Error("nobody asked")
		}
		if highest-before > peak {
			t.Errorf("memory grew by %d MiB, the bound is %d", highest-before, peak)
		}
		if left-before > after {
			t.Errorf("%d MiB stayed, the bound is %d", left-before, after)
		}
	})
}

// allowFiles raises the limit of open files, for us and for the server.
func allowFiles(t *testing.T, n uint64) {
	t.Helper()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if limit.Max < n {
		t.Skipf("the hard limit of open files is %d, these clients need %d", limit.Max, n)
	}
	limit.Cur = limit.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
}

func TestHostile(t *testing.T) {
	allowFiles(t, 12_000)
	// What the log keeps in memory for others is not what is measured here.
	s := startServer(t, "etch", "--snapshot-count=500", "--snapshot-catchup-entries=500")
	half := halfOpen(t, s)
	attack(t, s, "floods", 40, 15, func(t *testing.T) { controlFloods(t, s) })
	attack(t, s, "headers", 60, 15, func(t *testing.T) { headerFloods(t, s) })
	attack(t, s, "oversize", 40, 15, func(t *testing.T) { oversize(t, s) })
	attack(t, s, "rapid-reset", 60, 15, func(t *testing.T) { rapidReset(t, s) })
	attack(t, s, "unfinished-requests", 100+300*runtime.NumCPU(), 60, func(t *testing.T) { unfinished(t, s) })
	attack(t, s, "idle-connections", 500, 60, func(t *testing.T) { idle(t, s, 10_000) })
	attack(t, s, "deaf-watchers", 300, 60, func(t *testing.T) { deafWatchers(t, s) })
	attack(t, s, "deaf-snapshots", 150, 60, func(t *testing.T) { deafSnapshots(t, s) })
	for _, c := range half {
		c.SetReadDeadline(time.Now().Add(40 * time.Second))
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal("a connection that never says what it speaks stays for ever")
		}
		c.Close()
	}
}

// halfOpen opens a thousand connections that never say all that they should. Those that do not even finish the
// preface are given back: they must be closed at some time.
func halfOpen(t *testing.T, s *Server) []net.Conn {
	var silent []net.Conn
	for i := range 1000 {
		c, err := net.Dial("tcp", s.Endpoint())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		switch i % 4 {
		case 0:
			silent = append(silent, c)
		case 1:
			io.WriteString(c, http2.ClientPreface[:i%24])
			silent = append(silent, c)
		case 2:
			io.WriteString(c, "GET /health HTTP/1.1\r\nHost: ")
		case 3:
			c.Write(greeting())
			http2.NewFramer(c, nil).WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x83}})
		}
	}
	return silent
}

// controlFloods sends what costs the client nothing, each kind on its own connection, all at once.
func controlFloods(t *testing.T, s *Server) {
	many := func(write func(f *http2.Framer)) []byte {
		var b bytes.Buffer
		f := http2.NewFramer(&b, nil)
		f.AllowIllegalWrites = true
		for range 1000 {
			write(f)
		}
		return b.Bytes()
	}
	var wg sync.WaitGroup
	for name, flood := range map[string][]byte{
		"ping":          many(func(f *http2.Framer) { f.WritePing(false, [8]byte{}) }),
		"settings":      many(func(f *http2.Framer) { f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 9}) }),
		"window":        many(func(f *http2.Framer) { f.WriteWindowUpdate(0, 1) }),
		"stream-window": many(func(f *http2.Framer) { f.WriteWindowUpdate(1, 1) }),
		"priority":      many(func(f *http2.Framer) { f.WritePriority(1, http2.PriorityParam{StreamDep: 3}) }),
		"unknown":       many(func(f *http2.Framer) { f.WriteRawFrame(0x42, 0, 0, []byte("?")) }),
		"empty-data":    many(func(f *http2.Framer) { f.WriteData(1, false, nil) }),
		"goaway":        many(func(f *http2.Framer) { f.WriteGoAway(0, 0, nil) }),
	} {
		for range 4 {
			f := newFoe(t, s)
			watch := &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: wreq("nobody", "", 0)}}
			if _, err := f.open(services+"Watch/Watch", grpcFrame(watch), false); err != nil {
				t.Fatal(err)
			}
			wg.Add(1)
			go func() {
				defer wg.Done()
				floods(t, f, func() error { _, err := f.Write(flood); return err })
				if t.Failed() {
					t.Log(name)
				}
			}()
		}
	}
	wg.Wait()
}

// headerFloods sends header lists without end, and small ones that unpack to large ones.
func headerFloods(t *testing.T, s *Server) {
	endless := func(f *foe) {
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: f.headers(services + "KV/Range")})
		field := append([]byte{0x00, 0x01, 'a', 0x7f, 0x80, 0x7d}, bytes.Repeat([]byte{'b'}, 16_000)...)
		floods(t, f, func() error { return f.WriteContinuation(1, false, field) })
	}
	empty := func(f *foe) {
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: f.headers(services + "KV/Range")})
		floods(t, f, func() error { return f.WriteContinuation(1, false, nil) })
	}
	bomb := func(f *foe) {
		// One large entry of the dynamic table, and then its one-byte name thousands of times.
		id := uint32(1)
		f.plantBomb(id)
		for range 200 {
			id += 2
			if f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: append(f.headers(services+"KV/Range"), bytes.Repeat([]byte{0xbe}, 12_000)...), EndHeaders: true, EndStream: true}) != nil {
				break
			}
		}
		f.isCut(time.Second)
	}
	var wg sync.WaitGroup
	for _, do := range []func(*foe){endless, empty, bomb} {
		for range 20 {
			f := newFoe(t, s)
			wg.Add(1)
			go func() { defer wg.Done(); do(f) }()
		}
	}
	wg.Wait()
}

func (f *foe) plantBomb(id uint32) {
	block := f.headers(services+"KV/Range", "x-bomb", strings.Repeat("b", 3900))
	f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndHeaders: true, EndStream: true})
}

// oversize announces more than it may send.
func oversize(t *testing.T, s *Server) {
	var wg sync.WaitGroup
	for range 20 {
		wg.Add(2)
		large, long := newFoe(t, s), newFoe(t, s)
		go func() {
			defer wg.Done()
			if large.WriteRawFrame(http2.FrameData, 0, 1, make([]byte, 1<<24-1)); !large.isCut(10 * time.Second) {
				t.Error("a frame of 16 MiB was taken")
			}
		}()
		go func() {
			defer wg.Done()
			for range 100 {
				if _, err := long.open(services+"KV/Put", []byte{0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3}, false); err != nil {
					return
				}
			}
			long.isCut(500 * time.Millisecond)
		}()
	}
	wg.Wait()
}

// rapidReset opens calls and takes them back at once, a thousand with each write.
func rapidReset(t *testing.T, s *Server) {
	var wg sync.WaitGroup
	create := grpcFrame(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: wreq("reset", "", 0)}})
	for i := range 8 {
		f := newFoe(t, s)
		calls := manyCalls(services+"KV/Range", grpcFrame(rng("probe", "")))
		if i%2 == 1 {
			calls = manyCalls(services+"Watch/Watch", create)
		}
		id := uint32(1)
		wg.Add(1)
		go func() {
			defer wg.Done()
			floods(t, f, func() error {
				_, err := f.Write(calls(&id, 1000, true))
				return err
			})
		}()
	}
	wg.Wait()
}

// manyCalls makes the frames of n calls, each of them reset or ended.
func manyCalls(path string, message []byte) func(id *uint32, n int, reset bool) []byte {
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	enc.SetMaxDynamicTableSize(0)
	for _, h := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":path", path}, {":authority", "x"}, {"content-type", "application/grpc"}} {
		enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]})
	}
	return func(id *uint32, n int, reset bool) []byte {
		var b bytes.Buffer
		f := http2.NewFramer(&b, nil)
		for range n {
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: *id, BlockFragment: block.Bytes(), EndHeaders: true})
			f.WriteData(*id, !reset, message)
			if reset {
				f.WriteRSTStream(*id, http2.ErrCodeCancel)
			}
			*id += 2
		}
		return b.Bytes()
	}
}

// unfinished sends requests but for their last byte, as many as there is room for, as unary calls and on streams.
func unfinished(t *testing.T, s *Server) {
	body := append(binary.BigEndian.AppendUint32([]byte{0}, 60_000), make([]byte, 59_999)...)
	var wg sync.WaitGroup
	for i := range 40 {
		path := services + "KV/Put"
		if i%2 == 1 {
			path = services + "Watch/Watch"
		}
		f := newFoe(t, s)
		var window atomic.Int64
		window.Store(65_535)
		go func() {
			for {
				frame, err := f.ReadFrame()
				if err != nil {
					return
				}
				if w, ok := frame.(*http2.WindowUpdateFrame); ok && w.StreamID == 0 {
					window.Add(int64(w.Increment))
				}
			}
		}()
		wg.Add(1)
		go func() {
			defer wg.Done()
			until := time.Now().Add(6 * time.Second)
			f.SetWriteDeadline(until)
			for range 400 {
				for window.Load() < int64(len(body)) {
					if time.Now().After(until) {
						return
					}
					time.Sleep(time.Millisecond)
				}
				window.Add(-int64(len(body)))
				id, err := f.open(path, body[:15_000], false)
				for sent := 15_000; sent < len(body) && err == nil; sent += 15_000 {
					err = f.WriteData(id, false, body[sent:min(sent+15_000, len(body))])
				}
				if err != nil {
					return
				}
			}
		}()
	}
	wg.Wait()
}

// idle opens connections that say no more than they must.
func idle(t *testing.T, s *Server, n int) {
	hello := greeting()
	var wg sync.WaitGroup
	for range 20 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range n / 20 {
				c, err := net.Dial("tcp", s.Endpoint())
				if err != nil {
					t.Error(err)
					return
				}
				t.Cleanup(func() { c.Close() })
				if _, err := c.Write(hello); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	wg.Wait()
	// One that comes after all of them is served as well.
	side := &Side{Server: s, Conn: dial(t, s)}
	if got := side.Text("KV/Put", put("late", "guest")); !strings.Contains(got, "revision") {
		t.Error(got)
	}
}

// writeMuch fills the store through one honest client.
func writeMuch(t *testing.T, s *Server, n, size int) {
	kv := pb.NewKVClient(dial(t, s))
	value := strings.Repeat("v", size)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := w; i < n; i += 8 {
				if _, err := kv.Put(timeout(), put(fmt.Sprintf("much/%04d", i%500), value)); err != nil {
					t.Error(err)
					return
				}
			}
		}()
	}
	wg.Wait()
}

// deafWatchers watch everything and read nothing: few streams with many watchers, and many streams.
func deafWatchers(t *testing.T, s *Server) {
	create := grpcFrame(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: wreq("\x00", "\x00", 0, prev)}})
	for range 60 {
		f := newFoe(t, s)
		f.SetWriteDeadline(time.Now().Add(2 * time.Second))
		for range 10 {
			if _, err := f.open(services+"Watch/Watch", create, false); err != nil {
				t.Fatal(err)
			}
		}
	}
	crowd := newFoe(t, s)
	crowd.SetWriteDeadline(time.Now().Add(2 * time.Second))
	id, err := crowd.open(services+"Watch/Watch", create, false)
	for i := 0; i < 10_000 && err == nil; i++ {
		err = crowd.WriteData(id, false, create)
	}
	writeMuch(t, s, 3000, 20_000)
}

// deafSnapshots ask for the whole store and read nothing of it.
func deafSnapshots(t *testing.T, s *Server) {
	for range 40 {
		f := newFoe(t, s)
		if _, err := f.open(services+"Maintenance/Snapshot", grpcFrame(&pb.SnapshotRequest{}), true); err != nil {
			t.Fatal(err)
		}
	}
	writeMuch(t, s, 500, 20_000)
}

// TestManyLeases grants a million leases through eight connections that do not wait for one another's answers.
func TestManyLeases(t *testing.T) {
	s := startServer(t, "etch", "--quota-backend-bytes=4294967296")
	const all, conns, batch = 1_000_000, 8, 500
	attack(t, s, "leases", 500, 500, func(t *testing.T) {
		var wg sync.WaitGroup
		for range conns {
			f := newFoe(t, s)
			calls := manyCalls(services+"Lease/LeaseGrant", grpcFrame(&pb.LeaseGrantRequest{TTL: 100_000}))
			wg.Add(1)
			go func() {
				defer wg.Done()
				id := uint32(1)
				in := bufio.NewReaderSize(f.Conn, 1<<16)
				for range all / conns / batch {
					if _, err := f.Write(calls(&id, batch, false)); err != nil {
						t.Error(err)
						return
					}
					if err := awaitEnds(in, batch); err != nil {
						t.Error(err)
						return
					}
				}
			}()
		}
		wg.Wait()
	})
	r, err := pb.NewLeaseClient(dial(t, s)).LeaseLeases(timeout(), &pb.LeaseLeasesRequest{})
	if err != nil || len(r.Leases) != all {
		t.Errorf("%d leases: %v", len(r.GetLeases()), err)
	}
}

// awaitEnds reads until n streams have ended.
func awaitEnds(in *bufio.Reader, n int) error {
	var head [9]byte
	for n > 0 {
		if _, err := io.ReadFull(in, head[:]); err != nil {
			return err
		}
		if _, err := in.Discard(int(head[0])<<16 | int(head[1])<<8 | int(head[2])); err != nil {
			return err
		}
		if http2.FrameType(head[3]) == http2.FrameHeaders && http2.Flags(head[4]).Has(http2.FlagHeadersEndStream) {
			n--
		}
	}
	return nil
}
