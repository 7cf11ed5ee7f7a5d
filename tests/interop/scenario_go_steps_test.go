package interop

// The steps of a scenario, taken with Go's clientv3, by kind: keys, watches,
// leases, and what is built on them.

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

func (r *goRun) keys(ctx context.Context, h *handle, s words) string {
	opts := r.keyOptions(s.opts)
	switch s.verb {
	case "put":
		a, err := h.kv.Put(ctx, s.args[0], valueOf(s.args[1]), opts...)
		if err != nil {
			return failed(err)
		}
		line := r.header(s, a.Header)
		if kv := a.PrevKv; kv != nil {
			line += " before " + r.pair(s, kv)
		}
		return line
	case "get":
		a, err := h.kv.Get(ctx, s.args[0], opts...)
		if err != nil {
			return failed(err)
		}
		return r.found(s, a)
	case "await":
		for {
			a, err := h.kv.Get(ctx, s.args[0], opts...)
			if err == nil && (s.args[1] == "" && a.Count == 0 || a.Count == 1 && string(a.Kvs[0].Value) == s.args[1]) {
				return "ok"
			}
			time.Sleep(10 * time.Millisecond)
		}
	case "delete":
		a, err := h.kv.Delete(ctx, s.args[0], opts...)
		if err != nil {
			return failed(err)
		}
		line := fmt.Sprintf("%s deleted %d", r.header(s, a.Header), a.Deleted)
		for _, kv := range a.PrevKvs {
			line += " before " + r.pair(s, kv)
		}
		return line
	case "txn":
		return r.txn(ctx, h, s)
	case "compact":
		a, err := h.kv.Compact(ctx, r.number(s.args[0]))
		if err != nil {
			return failed(err)
		}
		return r.header(s, a.Header)
	case "ensure":
		return r.ensure(ctx, h, s, opts)
	case "fill":
		n := int(r.number(s.args[1]))
		for i := range n {
			if _, err := h.kv.Put(ctx, s.args[0]+strconv.Itoa(i), strconv.Itoa(i)); err != nil {
				return failed(err)
			}
		}
		return "ok"
	case "pages":
		return r.pages(ctx, h, s)
	}
	return "what is " + s.verb + "?"
}

func (r *goRun) found(s words, a *clientv3.GetResponse) string {
	var kvs []string
	for _, kv := range a.Kvs {
		kvs = append(kvs, r.pair(s, kv))
	}
	if s.quiet {
		return fmt.Sprint("ok ", kvs)
	}
	return fmt.Sprintf("%s %v of %d more %t", r.header(s, a.Header), kvs, a.Count, a.More)
}

// ensure writes a key that is not there, once, however often it takes.
func (r *goRun) ensure(ctx context.Context, h *handle, s words, opts []clientv3.OpOption) string {
	for {
		try, cancel := context.WithTimeout(ctx, 2*time.Second)
		_, err := h.kv.Txn(try).If(clientv3.Compare(clientv3.Version(s.args[0]), "=", 0)).
			Then(clientv3.OpPut(s.args[0], s.args[1], opts...)).Commit()
		cancel()
		if err == nil {
			return "ok"
		}
		if line := failed(err); !noAnswer(line) {
			return line
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (r *goRun) pages(ctx context.Context, h *handle, s words) string {
	var keys []string
	from, rev, count := s.args[0], int64(0), int64(-1)
	if at := s.opts["rev"]; at != "" {
		rev = r.number(at)
	}
	for {
		a, err := h.kv.Get(ctx, from, clientv3.WithRange(clientv3.GetPrefixRangeEnd(s.args[0])),
			clientv3.WithLimit(r.number(s.args[1])), clientv3.WithRev(rev))
		if err != nil {
			return failed(err)
		}
		for _, kv := range a.Kvs {
			keys = append(keys, fmt.Sprintf("%s=%s", kv.Key, kv.Value))
			from = string(kv.Key) + "\x00"
		}
		if count < 0 {
			count = a.Count
		}
		if rev == 0 {
			rev = a.Header.Revision
		}
		if !a.More {
			return fmt.Sprintf("ok %v of %d", keys, count)
		}
	}
}

func (r *goRun) txn(ctx context.Context, h *handle, s words) string {
	var when []clientv3.Cmp
	var then, otherwise []clientv3.Op
	for clause := range strings.SplitSeq(strings.Join(s.args, " "), " ; ") {
		w := strings.Fields(strings.ReplaceAll(clause, "  ", " '' "))
		switch w[0] {
		case "when":
			var cmp clientv3.Cmp
			var operand any = r.number(w[4])
			switch w[1] {
			case "value":
				cmp, operand = clientv3.Value(w[2]), w[4]
			case "version":
				cmp = clientv3.Version(w[2])
			case "mod":
				cmp = clientv3.ModRevision(w[2])
			case "create":
				cmp = clientv3.CreateRevision(w[2])
			case "lease":
				cmp = clientv3.LeaseValue(w[2])
			}
			when = append(when, clientv3.Compare(cmp, w[3], operand))
		case "then":
			then = append(then, r.op(w[1:]))
		case "else":
			otherwise = append(otherwise, r.op(w[1:]))
		}
	}
	a, err := h.kv.Txn(ctx).If(when...).Then(then...).Else(otherwise...).Commit()
	if err != nil {
		return failed(err)
	}
	line := fmt.Sprintf("%s %t", r.header(s, a.Header), a.Succeeded)
	for _, one := range a.Responses {
		switch {
		case one.GetResponsePut() != nil:
			line += " put"
		case one.GetResponseRange() != nil:
			line += " " + r.found(words{quiet: true}, (*clientv3.GetResponse)(one.GetResponseRange()))
		case one.GetResponseDeleteRange() != nil:
			line += fmt.Sprintf(" deleted %d", one.GetResponseDeleteRange().Deleted)
		}
	}
	return line
}

func (r *goRun) op(w []string) clientv3.Op {
	inner := parseStep(strings.Join(w, " "))
	opts := r.keyOptions(inner.opts)
	switch inner.verb {
	case "put":
		return clientv3.OpPut(inner.args[0], valueOf(inner.args[1]), opts...)
	case "delete":
		return clientv3.OpDelete(inner.args[0], opts...)
	}
	return clientv3.OpGet(inner.args[0], opts...)
}

func (r *goRun) watch(ctx context.Context, h *handle, s words) string {
	name := s.args[0]
	switch s.verb {
	case "watch":
		// A watch outlives the limit of its being set up.
		long, stop := context.WithCancel(context.WithoutCancel(ctx))
		w := &goWatch{stop: stop}
		made := make(chan clientv3.WatchResponse, 1)
		go func() {
			opts := append(r.keyOptions(s.opts), clientv3.WithCreatedNotify(), clientv3.WithFragment())
			w.events = h.watcher.Watch(long, s.args[1], opts...)
			made <- <-w.events
		}()
		select {
		case first := <-made:
			if err := first.Err(); err != nil {
				stop()
				return r.ended(first)
			}
		case <-ctx.Done():
			stop()
			return failed(ctx.Err())
		}
		r.watches.set(name, w)
		return "ok"
	case "events":
		return r.events(r.watches.get(name), s)
	case "cancel":
		w := r.watches.get(name)
		w.stop()
		for range w.events {
		}
		return "ok"
	}
	if err := h.watcher.RequestProgress(ctx); err != nil {
		return failed(err)
	}
	w := r.watches.get(name)
	for a := range w.events {
		w.left = append(w.left, a.Events...)
		if a.IsProgressNotify() {
			return "ok " + r.rel(a.Header.Revision)
		}
	}
	return "ended"
}

func (r *goRun) ended(a clientv3.WatchResponse) string {
	if a.CompactRevision != 0 {
		return "compacted " + r.rel(a.CompactRevision)
	}
	return failed(a.Err())
}

// events reads so many events.
func (r *goRun) events(w *goWatch, s words) string {
	if w == nil {
		return "no such watch"
	}
	n := int(r.number(s.args[1]))
	for len(w.left) < n {
		a, open := <-w.events
		if !open {
			return "ended"
		}
		if a.Err() != nil {
			return r.ended(a)
		}
		w.left = append(w.left, a.Events...)
	}
	var list []string
	for _, e := range w.left[:n] {
		one := fmt.Sprintf("delete %s@%s", e.Kv.Key, r.rel(e.Kv.ModRevision))
		if e.Type == clientv3.EventTypePut {
			one = fmt.Sprintf("put %s=%s@%s", e.Kv.Key, shown(e.Kv.Value), r.rel(e.Kv.ModRevision))
		}
		if e.PrevKv != nil {
			one += " before " + shown(e.PrevKv.Value)
		}
		list = append(list, one)
	}
	w.left = w.left[n:]
	return fmt.Sprint(strings.Join(list, ", "))
}

func (r *goRun) leaseStep(ctx context.Context, h *handle, s words) string {
	name := s.args[0]
	id := r.leases.get(name)
	switch s.verb {
	case "grant":
		a, err := h.lease.Grant(ctx, r.number(s.args[1]))
		if err != nil {
			return failed(err)
		}
		r.leases.set(name, a.ID)
		return fmt.Sprintf("%s for %d", r.header(s, a.ResponseHeader), a.TTL)
	case "once":
		a, err := h.lease.KeepAliveOnce(ctx, id)
		if err != nil {
			return failed(err)
		}
		return fmt.Sprint("ok for ", a.TTL)
	case "keep":
		long, stop := context.WithCancel(context.WithoutCancel(ctx))
		alive, err := h.lease.KeepAlive(long, id)
		if err != nil {
			stop()
			return failed(err)
		}
		// The channel of a lease that is not there is closed without a word.
		first, open := <-alive
		if !open {
			stop()
			return "refused etcdserver: requested lease not found"
		}
		r.kept.set(name, &goKept{alive, stop})
		return fmt.Sprint("ok for ", first.TTL)
	case "alive":
		for range r.number(s.args[1]) {
			if _, open := <-r.kept.get(name).alive; !open {
				return "lost"
			}
		}
		return "ok"
	case "lost":
		for range r.kept.get(name).alive {
		}
		return "lost"
	case "release":
		r.kept.get(name).stop()
		return "ok"
	case "left":
		a, err := h.lease.TimeToLive(ctx, id, clientv3.WithAttachedKeys())
		if err != nil {
			return failed(err)
		}
		return fmt.Sprintf("ok lives %t of %d with %d keys", a.TTL > 0, a.GrantedTTL, len(a.Keys))
	}
	a, err := h.lease.Revoke(ctx, id)
	if err != nil {
		return failed(err)
	}
	return r.header(s, a.Header)
}

func (r *goRun) together(ctx context.Context, h *handle, s words) string {
	name := s.args[0]
	err := error(nil)
	switch s.verb {
	case "session":
		var made *concurrency.Session
		made, err = concurrency.NewSession(h.Client, concurrency.WithTTL(int(r.number(s.args[1]))))
		r.sessions.set(name, made)
	case "gone":
		<-r.sessions.get(name).Done()
	case "close":
		err = r.sessions.get(name).Close()
	case "lock", "trylock":
		m := concurrency.NewMutex(r.sessions.get(s.args[1]), s.args[2])
		if s.verb == "lock" {
			err = m.Lock(ctx)
		} else {
			err = m.TryLock(ctx)
		}
		if err == nil {
			r.locks.set(name, m)
		}
	case "unlock":
		err = r.locks.get(name).Unlock(ctx)
	case "owner":
		// A transaction that reads nothing may be answered by a member that is behind.
		var a *clientv3.TxnResponse
		if a, err = h.kv.Txn(ctx).If(r.locks.get(name).IsOwner()).Then(clientv3.OpGet("x")).Commit(); err == nil {
			return fmt.Sprint("ok ", a.Succeeded)
		}
	case "campaign":
		e := concurrency.NewElection(r.sessions.get(s.args[1]), s.args[2])
		if err = e.Campaign(ctx, s.args[3]); err == nil {
			r.stands.set(name, e)
		}
	case "proclaim":
		err = r.stands.get(name).Proclaim(ctx, s.args[1])
	case "resign":
		err = r.stands.get(name).Resign(ctx)
	case "leader":
		var a *clientv3.GetResponse
		if a, err = concurrency.NewElection(r.sessions.get(name), s.args[1]).Leader(ctx); err == nil {
			return "ok " + string(a.Kvs[0].Value)
		}
	}
	if err != nil {
		return failed(err)
	}
	return "ok"
}
