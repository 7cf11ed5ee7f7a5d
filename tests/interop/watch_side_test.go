package interop

// One watch stream of a comparison. Servers may cut the same events into
// messages as they like, so what is compared is the order of the events per
// watch, and every other message whole.

import (
	"context"
	"fmt"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

// stream is one open watch stream and what came on it, piece by piece.
type watchStream struct {
	side   *Side
	c      pb.Watch_WatchClient
	cancel context.CancelFunc
	pieces chan string
	out    strings.Builder
	asked  bool // for progress more than once, so that an answer may be left over
}

func (s *Side) openWatch() *watchStream {
	ctx, cancel := context.WithCancel(context.Background())
	w := &watchStream{side: s, cancel: cancel, pieces: make(chan string, 4096)}
	c, err := pb.NewWatchClient(s.Conn).Watch(ctx)
	if err != nil {
		w.pieces <- errText(err)
		close(w.pieces)
		return w
	}
	w.c = c
	go w.read()
	return w
}

func (w *watchStream) read() {
	defer close(w.pieces)
	lastRev := map[int64]int64{}
	for {
		m, err := w.c.Recv()
		if err != nil {
			w.pieces <- errText(err)
			return
		}
		if len(m.Events) == 0 {
			w.pieces <- text(m)
			continue
		}
		for _, e := range m.Events {
			line := fmt.Sprintf("watch %d: %s", m.WatchId, text(e))
			if e.Kv.ModRevision > m.Header.GetRevision() {
				line += fmt.Sprintf(" under a header of revision %d", m.Header.GetRevision())
			}
			if e.Kv.ModRevision < lastRev[m.WatchId] {
				line += " out of order"
			}
			lastRev[m.WatchId] = e.Kv.ModRevision
			w.pieces <- line
		}
		rest := proto.Clone(m).(*pb.WatchResponse)
		if rest.Created || rest.Canceled || rest.CompactRevision != 0 || rest.CancelReason != "" {
			w.pieces <- "with events: " + text(rest)
		}
	}
}

func (w *watchStream) send(r *pb.WatchRequest) {
	if w.c == nil {
		return
	}
	if err := w.c.Send(r); err != nil {
		fmt.Fprintf(&w.out, "send: %s\n", errText(err))
	}
}

func (w *watchStream) create(r *pb.WatchCreateRequest) {
	w.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: r}})
}

func (w *watchStream) cancelID(id int64) {
	w.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: id}}})
}

func (w *watchStream) progress() {
	w.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}})
}

// do makes a unary call on the way and writes down its answer.
func (w *watchStream) do(rpc string, req proto.Message) {
	fmt.Fprintf(&w.out, "%s: %s\n", rpc, w.side.Text(rpc, req))
}

// want waits for n pieces.
func (w *watchStream) want(n int) {
	for n > 0 {
		select {
		case p, ok := <-w.pieces:
			if !ok {
				w.out.WriteString("(ended)\n")
				return
			}
			if w.asked && isProgress(p) {
				continue
			}
			n--
			w.out.WriteString(p + "\n")
		case <-time.After(10 * time.Second):
			w.out.WriteString("(nothing more)\n")
			return
		}
	}
}

// quiet shows that nothing more comes for a while.
func (w *watchStream) quiet(d time.Duration) {
	over := time.After(d)
	for {
		select {
		case p := <-w.pieces:
			if w.asked && isProgress(p) {
				continue
			}
			w.out.WriteString("unasked: " + p + "\n")
			return
		case <-over:
			return
		}
	}
}

// isProgress tells an answer to a wish for progress.
func isProgress(piece string) bool {
	return strings.Contains(piece, `"watch_id":"-1"`) && !strings.Contains(piece, "cancel")
}

// watchScript is a step that runs a script on a fresh watch stream.
func watchScript(name string, script func(*watchStream)) step {
	return step{"Watch/" + name, func(s *Side) string {
		w := s.openWatch()
		defer w.cancel()
		script(w)
		w.quiet(30 * time.Millisecond)
		return w.out.String()
	}}
}

// watchOnce creates one watch and wants n pieces: the created message and events.
func watchOnce(name string, r *pb.WatchCreateRequest, n int) step {
	return watchScript(name, func(w *watchStream) {
		w.create(r)
		w.want(n)
	})
}
