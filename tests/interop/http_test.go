package interop

// What HTTP answers on the client port.

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// testingEtcd says that etcd stands in for etch, to prove the tests themselves.
func testingEtcd() bool { return programs["etch"] == programs["etcd"] }

// fetch makes one HTTP request and writes down what matters of the answer.
func (s *Side) fetch(client *http.Client, method, path, body string) string {
	req, err := http.NewRequest(method, "http://"+s.Endpoint()+path, strings.NewReader(body))
	if err != nil {
		return err.Error()
	}
	resp, err := client.Do(req)
	if err != nil {
		return strings.ReplaceAll(err.Error(), s.Endpoint(), "ENDPOINT")
	}
	defer resp.Body.Close()
	content, _ := io.ReadAll(resp.Body)
	head := ""
	for _, name := range []string{"Content-Type", "Allow", "Access-Control-Allow-Origin", "Access-Control-Allow-Methods", "Access-Control-Allow-Headers", "X-Content-Type-Options"} {
		head += fmt.Sprintf("%s=%q ", name, resp.Header.Get(name))
	}
	// The checks of /livez and /readyz come in the order of a Go map.
	lines := strings.SplitAfter(string(content), "\n")
	checks := 0
	for checks < len(lines) && strings.HasPrefix(lines[checks], "[") {
		checks++
	}
	slices.Sort(lines[:checks])
	return fmt.Sprintf("%d %s%q", resp.StatusCode, head, strings.Join(lines, ""))
}

var paths = []string{
	"/health", "/health?serializable=true", "/health?serializable=false", "/health?exclude=NOSPACE", "/health?exclude=NOSPACE&exclude=CORRUPT",
	"/health?exclude=nonsense", "/health?verbose", "/health/", "/livez", "/livez?verbose", "/livez?verbose=true", "/livez?verbose=false",
	"/livez?exclude=serializable_read", "/livez?verbose&exclude=serializable_read", "/livez?exclude=nonsense", "/livez/", "/livez/serializable_read",
	"/livez/serializable_read?verbose", "/livez/linearizable_read", "/livez/nothing", "/readyz", "/readyz?verbose", "/readyz?verbose&exclude=data_corruption",
	"/readyz?exclude=data_corruption&exclude=linearizable_read&verbose", "/readyz?exclude=nonsense&verbose", "/readyz/data_corruption", "/readyz/serializable_read",
	"/readyz/linearizable_read", "/readyz/linearizable_read?verbose", "/readyz/non_learner", "/readyz/nothing", "/version", "/version/", "/version?x=y",
	"/", "/nothing", "/v2/keys", "/v2/keys/foo", "/debug/pprof/", "/members", "/raft",
}

func httpSteps() []step {
	client := &http.Client{Timeout: patience, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	var steps []step
	for _, path := range paths {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "DELETE"} {
			if method != "GET" && !slices.Contains([]string{"/health", "/livez", "/readyz", "/version", "/nothing", "/readyz/data_corruption"}, path) {
				continue
			}
			steps = append(steps, step{method + strings.ReplaceAll(path, "/", "|"), func(s *Side) string { return s.fetch(client, method, path, "") }})
		}
	}
	return steps
}

func TestHTTP(t *testing.T) {
	t.Parallel()
	runSteps(t, newPair(t), httpSteps())
}

// TestHTTPAlarms asks again while an alarm is on.
func TestHTTPAlarms(t *testing.T) {
	t.Parallel()
	for _, kind := range []pb.AlarmType{pb.AlarmType_NOSPACE, pb.AlarmType_CORRUPT} {
		t.Run(kind.String(), func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			on := step{"alarm", func(s *Side) string {
				m, err := s.Call("Maintenance/Status", &pb.StatusRequest{})
				if err != nil {
					return errText(err)
				}
				id := m.(*pb.StatusResponse).Header.MemberId
				return s.Text("Maintenance/Alarm", &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, Alarm: kind, MemberID: id})
			}}
			runSteps(t, p, append([]step{on}, httpSteps()...))
		})
	}
}

// families reads the names and types of the metrics.
func (s *Side) families(t testing.TB) (types map[string]string, values map[string]string) {
	t.Helper()
	resp := ok[*http.Response](t)(http.Get("http://" + s.Endpoint() + "/metrics"))
	defer resp.Body.Close()
	if ct := resp.Header.Get("Content-Type"); !strings.HasPrefix(ct, "text/plain; version=0.0.4") {
		t.Errorf("%s: metrics come as %q", s.Program, ct)
	}
	types, values = map[string]string{}, map[string]string{}
	for in := bufio.NewScanner(resp.Body); in.Scan(); {
		line := in.Text()
		if f := strings.Fields(line); strings.HasPrefix(line, "# TYPE ") {
			types[f[2]] = f[3]
		} else if !strings.HasPrefix(line, "#") {
			i := strings.LastIndexByte(line, ' ')
			values[line[:i]] = line[i+1:]
		}
	}
	return types, values
}

// missingMetrics are families of etcd that etch need not have, and why.
func missingMetrics(name string) bool {
	// The runtime of Go: what has no meaning elsewhere is not made up.
	return strings.HasPrefix(name, "go_")
}

func TestMetricFamilies(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	a, _ := p.A.families(t)
	b, _ := p.B.families(t)
	for name, kind := range a {
		if got, has := b[name]; !has && !missingMetrics(name) {
			t.Errorf("%s (%s) is missing", name, kind)
		} else if has && got != kind {
			t.Errorf("%s is a %s, etcd's is a %s", name, got, kind)
		}
	}
	for name := range b {
		if _, has := a[name]; !has && !strings.HasPrefix(name, "etch_") {
			t.Errorf("%s is no metric of etcd", name)
		}
	}
}

// countedMetrics must have equal values after equal work.
var countedMetrics = []string{
	"etcd_mvcc_put_total", "etcd_mvcc_delete_total", "etcd_mvcc_range_total", "etcd_mvcc_txn_total",
	"etcd_debugging_mvcc_put_total", "etcd_debugging_mvcc_delete_total", "etcd_debugging_mvcc_range_total", "etcd_debugging_mvcc_txn_total",
	"etcd_debugging_mvcc_keys_total", "etcd_debugging_mvcc_current_revision", "etcd_debugging_mvcc_compact_revision",
	"etcd_debugging_mvcc_watcher_total", "etcd_debugging_mvcc_watch_stream_total", "etcd_debugging_mvcc_slow_watcher_total",
	"etcd_debugging_lease_granted_total", "etcd_debugging_lease_revoked_total", "etcd_debugging_lease_renewed_total",
	"etcd_server_has_leader", "etcd_server_is_leader", "etcd_server_is_learner", "etcd_server_leader_changes_seen_total",
	"etcd_server_proposals_pending", "etcd_server_proposals_failed_total", "etcd_server_quota_backend_bytes",
	"etcd_server_health_success", "etcd_server_health_failures", "etcd_server_slow_read_indexes_total",
	`etcd_cluster_version{cluster_version="3.7"}`, `etcd_server_version{server_version="3.7.1"}`,
	`grpc_server_handled_total{grpc_code="OK",grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"}`,
	`grpc_server_handled_total{grpc_code="OK",grpc_method="Range",grpc_service="etcdserverpb.KV",grpc_type="unary"}`,
	`grpc_server_handled_total{grpc_code="InvalidArgument",grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"}`,
	`grpc_server_handled_total{grpc_code="DataLoss",grpc_method="Txn",grpc_service="etcdserverpb.KV",grpc_type="unary"}`,
	`grpc_server_started_total{grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"}`,
	`grpc_server_started_total{grpc_method="Watch",grpc_service="etcdserverpb.Watch",grpc_type="bidi_stream"}`,
	`grpc_server_msg_received_total{grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"}`,
}

func TestMetricValues(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	steps := append(seedKV(),
		call("bad", "KV/Put", put("", "x")),
		call("txn", "KV/Txn", txn(nil, ops(opPut(put("a", "1")), opDel(del("b", "")), opRange(rng("a", ""))), nil)),
		call("read-txn", "KV/Txn", txn(nil, ops(opRange(rng("a", ""))), nil)),
		call("range", "KV/Range", rng("a", "z")),
		call("grant", "Lease/LeaseGrant", grant(8, 600)), keepAlive(7),
		call("revoke", "Lease/LeaseRevoke", &pb.LeaseRevokeRequest{ID: 8}),
		call("compact", "KV/Compact", compactTo(9)))
	runSteps(t, p, steps)
	for _, s := range []*Side{p.A, p.B} {
		w := s.openWatch()
		defer w.cancel()
		for range 3 {
			w.create(wreq("a", "", 0))
			w.want(1)
		}
	}
	// Some gauges follow a moment later.
	var a, b map[string]string
	for range 50 {
		_, a = p.A.families(t)
		_, b = p.B.families(t)
		if !slices.ContainsFunc(countedMetrics, func(n string) bool { return a[n] != b[n] }) {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	for _, name := range countedMetrics {
		t.Run(strings.ReplaceAll(name, "/", "|"), func(t *testing.T) {
			if a[name] != b[name] {
				t.Errorf("etcd has %q, etch %q", a[name], b[name])
			}
		})
	}
}

// TestHTTP2 asks over HTTP/2 with prior knowledge, as curl can. etcd takes that
// for gRPC and refuses; etch serves it.
func TestHTTP2(t *testing.T) {
	t.Parallel()
	if testingEtcd() {
		t.Skip("etcd does not serve this")
	}
	s := startServer(t, "etch")
	only := new(http.Protocols)
	only.SetUnencryptedHTTP2(true)
	client := &http.Client{Transport: &http.Transport{Protocols: only}, Timeout: patience}
	for path, want := range map[string]string{"/version": `"etcdserver":"3.7.1"`, "/health": `{"health":"true","reason":""}`, "/metrics": "etcd_server_has_leader 1"} {
		resp, err := client.Get("http://" + s.Endpoint() + path)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != 200 || resp.ProtoMajor != 2 || !strings.Contains(string(body), want) {
			t.Errorf("%s: %s %s %.200q", path, resp.Proto, resp.Status, body)
		}
	}
}

// TestDebugVars: a JSON object.
func TestDebugVars(t *testing.T) {
	t.Parallel()
	s := startServer(t, "etch")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req := ok[*http.Request](t)(http.NewRequestWithContext(ctx, "GET", "http://"+s.Endpoint()+"/debug/vars", nil))
	resp := ok[*http.Response](t)(http.DefaultClient.Do(req))
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	if !strings.HasPrefix(string(body), "{") || !strings.Contains(string(body), `"raft.status"`) {
		t.Errorf("%.300s", body)
	}
}
