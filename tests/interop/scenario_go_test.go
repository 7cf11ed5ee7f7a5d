package interop

// The steps of a scenario, taken with Go's clientv3. What each writes down is
// the same in crates/client/tests/scenarios, word for word.

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.etcd.io/etcd/client/v3/leasing"
	"go.etcd.io/etcd/client/v3/mirror"
	"go.etcd.io/etcd/client/v3/namespace"
	"go.etcd.io/etcd/client/v3/ordering"
	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// stepLimit ends a step that hangs.
const stepLimit = 3 * time.Minute

// handle is a client with its layers.
type handle struct {
	*clientv3.Client
	kv      clientv3.KV
	watcher clientv3.Watcher
	lease   clientv3.Lease
	leader  bool
}

// goRun is a scenario under way.
type goRun struct {
	t        testing.TB
	w        *world
	base     int64
	handles  named[*handle]
	watches  named[*goWatch]
	leases   named[clientv3.LeaseID]
	kept     named[*goKept]
	sessions named[*concurrency.Session]
	locks    named[*concurrency.Mutex]
	stands   named[*concurrency.Election]
	copies   named[*goWatch]
	later    named[chan string]
}

// named holds what steps have made, by name; steps may run side by side.
type named[V any] struct{ m sync.Map }

func (n *named[V]) set(name string, v V) { n.m.Store(name, v) }

func (n *named[V]) get(name string) V {
	v, _ := n.m.Load(name)
	made, _ := v.(V)
	return made
}

type goWatch struct {
	events clientv3.WatchChan
	stop   context.CancelFunc
	left   []*clientv3.Event
}

type goKept struct {
	alive <-chan *clientv3.LeaseKeepAliveResponse
	stop  context.CancelFunc
}

func runGo(t testing.TB, w *world, s scenario) []string {
	r := &goRun{t: t, w: w}
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	defer func() {
		for _, h := range r.handles.m.Range {
			h.(*handle).Close()
		}
	}()
	var all, direct []string
	for i := range w.members {
		all = append(all, strconv.Itoa(i))
		direct = append(direct, "d"+strconv.Itoa(i))
	}
	if made := r.client("c", strings.Join(all, ","), nil) + r.client("direct", strings.Join(direct, ","), nil); made != "okok" {
		return []string{made}
	}
	now, err := r.handles.get("direct").Get(ctx, "x")
	if err != nil {
		return []string{err.Error()}
	}
	r.base = now.Header.Revision
	var lines []string
	for _, step := range s.steps {
		done := make(chan string, 1)
		go func() {
			defer func() {
				if p := recover(); p != nil {
					done <- fmt.Sprint("panic: ", p)
				}
			}()
			done <- r.step(ctx, parseStep(step))
		}()
		select {
		case line := <-done:
			lines = append(lines, line)
		case <-time.After(stepLimit):
			return append(lines, "hangs")
		}
	}
	return lines
}

// step takes a step, again and again if it says so.
func (r *goRun) step(ctx context.Context, s words) string {
	if s.verb == "later" {
		done := make(chan string, 1)
		r.later.set(s.args[0], done)
		go func() { done <- r.step(ctx, parseStep(s.args[1])) }()
		return "begun"
	}
	for {
		try, cancel := ctx, context.CancelFunc(func() {})
		if s.within > 0 {
			try, cancel = context.WithTimeout(ctx, s.within)
		}
		line := r.take(try, s)
		cancel()
		if s.coarse && noAnswer(line) {
			return "no answer"
		}
		if !s.retry || !noAnswer(line) {
			return line
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// noAnswer tells whether a client, or the member that it asked, does not know
// what came of a request.
func noAnswer(line string) bool {
	for _, text := range []string{
		"deadline", "unavailable", "refused etcdserver: request timed out", "refused etcdserver: leader changed",
		"refused etcdserver: no leader", "refused etcdserver: server stopped", "refused etcdserver: not leader",
	} {
		if strings.HasPrefix(line, text) {
			return true
		}
	}
	return false
}

// failed says how a call ended badly.
func failed(err error) string {
	var known rpctypes.EtcdError
	switch {
	case errors.Is(err, context.DeadlineExceeded), status.Code(err) == codes.DeadlineExceeded:
		return "deadline"
	case errors.Is(err, concurrency.ErrLocked):
		return "locked"
	case errors.Is(err, concurrency.ErrElectionNoLeader):
		return "nobody leads"
	case errors.Is(err, ordering.ErrNoGreaterRev):
		return "out of order"
	case errors.As(err, &known):
		if strings.HasPrefix(known.Error(), "etcdserver: ") {
			return "refused " + known.Error()
		}
	}
	message := status.Convert(err).Message()
	if _, inner, is := strings.Cut(message, " desc = "); is {
		message = inner
	}
	switch {
	case strings.HasPrefix(message, "etcdserver: "):
		return "refused " + message
	case status.Code(err) == codes.Unavailable, errors.As(err, &known) && known.Code() == codes.Unavailable:
		return "unavailable"
	case status.Code(err) == codes.Canceled, errors.Is(err, context.Canceled):
		return "canceled"
	}
	return "refused " + message
}

func (r *goRun) rel(rev int64) string { return fmt.Sprintf("%+d", rev-r.base) }

// header shows the revision of an answer, unless a step may have been repeated.
func (r *goRun) header(s words, h *pb.ResponseHeader) string {
	if s.quiet || s.retry {
		return "ok"
	}
	return "ok " + r.rel(h.Revision)
}

func (r *goRun) pair(s words, kv *mvccpb.KeyValue) string {
	if s.quiet {
		return fmt.Sprintf("%s=%s", kv.Key, shown(kv.Value))
	}
	return fmt.Sprintf("%s=%s(%d)@%s", kv.Key, shown(kv.Value), kv.Version, r.rel(kv.ModRevision))
}

func (r *goRun) number(word string) int64 {
	n, _ := strconv.ParseInt(word, 10, 64)
	if strings.HasPrefix(word, "+") {
		return n + r.base
	}
	return n
}

func (r *goRun) take(ctx context.Context, s words) string {
	h := r.handles.get(s.on)
	if h == nil {
		return "no client " + s.on
	}
	if h.leader {
		ctx = clientv3.WithRequireLeader(ctx)
	}
	arg := func(i int) string {
		if i < len(s.args) {
			return s.args[i]
		}
		return ""
	}
	switch s.verb {
	case "fault":
		return r.w.befall(r.t, s.args)
	case "idle":
		d, _ := time.ParseDuration(arg(0))
		time.Sleep(d)
		return "ok"
	case "join":
		return <-r.later.get(arg(0))
	case "client":
		return r.client(arg(0), arg(1), s.opts)
	case "endpoints", "sync", "await-sync":
		return r.endpoints(ctx, h, s)
	case "namespace", "ordering", "leasing":
		return r.layer(h, s.verb, arg(0), arg(1))
	case "mirror", "updates":
		return r.copy(ctx, h, s)
	case "auth":
		return r.auth(ctx, arg(0))
	case "watch", "events", "cancel", "progress":
		return r.watch(ctx, h, s)
	case "grant", "once", "keep", "alive", "lost", "release", "left", "revoke":
		return r.leaseStep(ctx, h, s)
	case "session", "gone", "close", "lock", "trylock", "unlock", "owner", "campaign", "proclaim", "resign", "leader":
		return r.together(ctx, h, s)
	}
	return r.keys(ctx, h, s)
}

func (r *goRun) client(name, endpoints string, opts map[string]string) string {
	var list []string
	for e := range strings.SplitSeq(endpoints, ",") {
		n, err := strconv.Atoi(strings.TrimPrefix(e, "d"))
		switch {
		case err != nil || n >= len(r.w.members): // A world of one has fewer.
		case e[0] == 'd':
			list = append(list, r.w.members[n].Endpoint())
		default:
			list = append(list, r.w.proxies[n].addr)
		}
	}
	config := clientv3.Config{Endpoints: list, DialTimeout: 20 * time.Second, Logger: zap.NewNop()}
	config.Username, config.Password, _ = strings.Cut(opts["user"], ":")
	config.AutoSyncInterval, _ = time.ParseDuration(opts["autosync"])
	c, err := clientv3.New(config)
	if err != nil {
		return failed(err)
	}
	r.handles.set(name, &handle{Client: c, kv: c.KV, watcher: c.Watcher, lease: c.Lease, leader: opts["hasleader"] != ""})
	return "ok"
}

func (r *goRun) endpoints(ctx context.Context, h *handle, s words) string {
	var all []string
	for _, p := range r.w.proxies {
		all = append(all, p.addr)
	}
	synced := func() bool {
		var have []string
		for _, e := range h.Endpoints() {
			have = append(have, strings.TrimPrefix(e, "http://"))
		}
		slices.Sort(have)
		slices.Sort(all)
		return slices.Equal(have, all)
	}
	switch s.verb {
	case "endpoints":
		if s.args[0] == "none" {
			h.SetEndpoints()
		} else {
			n, _ := strconv.Atoi(s.args[0])
			h.SetEndpoints(r.w.proxies[n].addr)
		}
		return "ok"
	case "sync":
		if err := h.Sync(ctx); err != nil {
			return failed(err)
		}
		return fmt.Sprint("ok ", synced())
	}
	for !synced() {
		time.Sleep(10 * time.Millisecond)
	}
	return "ok"
}

func (r *goRun) layer(h *handle, kind, name, prefix string) string {
	made := *h
	switch kind {
	case "namespace":
		made.kv, made.watcher, made.lease = namespace.NewKV(h.kv, prefix), namespace.NewWatcher(h.watcher, prefix), namespace.NewLease(h.lease, prefix)
	case "ordering":
		made.kv = ordering.NewKV(h.kv, ordering.NewOrderViolationSwitchEndpointClosure(h.Client))
	case "leasing":
		kv, _, err := leasing.NewKV(h.Client, prefix)
		if err != nil {
			return failed(err)
		}
		made.kv = kv
	}
	r.handles.set(name, &made)
	return "ok"
}

func (r *goRun) copy(ctx context.Context, h *handle, s words) string {
	if s.verb == "updates" {
		return r.events(r.copies.get(s.args[0]), s)
	}
	syncer := mirror.NewSyncer(h.Client, s.args[1], 0)
	base, errs := syncer.SyncBase(ctx)
	var keys []string
	for part := range base {
		for _, kv := range part.Kvs {
			keys = append(keys, fmt.Sprintf("%s=%s", kv.Key, kv.Value))
		}
	}
	if err := <-errs; err != nil {
		return failed(err)
	}
	updates, stop := context.WithCancel(r.t.Context())
	r.copies.set(s.args[0], &goWatch{events: syncer.SyncUpdates(updates), stop: stop})
	return fmt.Sprint("ok ", keys)
}

// auth makes root and alice, who may touch what begins with w/, and turns
// users on; or off.
func (r *goRun) auth(ctx context.Context, what string) string {
	if what == "off" {
		if err := r.w.authOff(ctx); err != nil {
			return failed(err)
		}
		return "ok"
	}
	c := r.w.direct
	_, err := c.UserAdd(ctx, "root", "r")
	then := func(f func() error) {
		if err == nil {
			err = f()
		}
	}
	then(func() error { _, err := c.RoleAdd(ctx, "root"); return err })
	then(func() error { _, err := c.UserGrantRole(ctx, "root", "root"); return err })
	then(func() error { _, err := c.RoleAdd(ctx, "writer"); return err })
	then(func() error {
		_, err := c.RoleGrantPermission(ctx, "writer", "w/", "w0", clientv3.PermissionType(clientv3.PermReadWrite))
		return err
	})
	then(func() error { _, err := c.UserAdd(ctx, "alice", "a"); return err })
	then(func() error { _, err := c.UserGrantRole(ctx, "alice", "writer"); return err })
	then(func() error { _, err := c.AuthEnable(ctx); return err })
	then(func() error { return r.w.settle(ctx) })
	if err != nil {
		return failed(err)
	}
	return "ok"
}

// keyOptions reads the options of a get, a delete or a watch.
func (r *goRun) keyOptions(opts map[string]string) []clientv3.OpOption {
	var list []clientv3.OpOption
	for name, value := range opts {
		switch name {
		case "prefix":
			list = append(list, clientv3.WithPrefix())
		case "from":
			list = append(list, clientv3.WithFromKey())
		case "range":
			list = append(list, clientv3.WithRange(value))
		case "prev":
			list = append(list, clientv3.WithPrevKV())
		case "rev":
			list = append(list, clientv3.WithRev(r.number(value)))
		case "limit":
			list = append(list, clientv3.WithLimit(r.number(value)))
		case "serializable":
			list = append(list, clientv3.WithSerializable())
		case "keysonly":
			list = append(list, clientv3.WithKeysOnly())
		case "countonly":
			list = append(list, clientv3.WithCountOnly())
		case "minmod":
			list = append(list, clientv3.WithMinModRev(r.number(value)))
		case "maxcreate":
			list = append(list, clientv3.WithMaxCreateRev(r.number(value)))
		case "noput":
			list = append(list, clientv3.WithFilterPut())
		case "nodelete":
			list = append(list, clientv3.WithFilterDelete())
		case "lease":
			id := r.leases.get(value)
			if id == 0 {
				id = clientv3.LeaseID(r.number(value))
			}
			list = append(list, clientv3.WithLease(id))
		case "ignorevalue":
			list = append(list, clientv3.WithIgnoreValue())
		case "sort":
			by, order, _ := strings.Cut(value, ":")
			target := map[string]clientv3.SortTarget{
				"key": clientv3.SortByKey, "value": clientv3.SortByValue, "mod": clientv3.SortByModRevision,
				"create": clientv3.SortByCreateRevision, "version": clientv3.SortByVersion,
			}[by]
			direction := clientv3.SortAscend
			if order == "descend" {
				direction = clientv3.SortDescend
			}
			list = append(list, clientv3.WithSort(target, direction))
		}
	}
	return list
}
