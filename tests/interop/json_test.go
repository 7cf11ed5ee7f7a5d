package interop

// The API as JSON: the same requests to etcd and to etch, and the same answers byte for byte, but for ids and
// for blanks that Go's protobuf library puts behind commas in one build and not in another.

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// jsonMask hides what differs between any two servers.
var jsonMask = regexp.MustCompile(`"(cluster_id|member_id|raft_term|leader|dbSize|dbSizeInUse|raftIndex|raftTerm|raftAppliedIndex|hash|token|blob|remaining_bytes)":"?[^",}\]]*"?`)
var jsonMember = regexp.MustCompile(`"(ID)":"[0-9]{12,}"`)
var jsonURLs = regexp.MustCompile(`127\.0\.0\.1:[0-9]+`)

// plainJSON is an answer as it is compared.
func plainJSON(body string) string {
	body = strings.ReplaceAll(body, "\u00a0", " ")
	var out strings.Builder
	quoted := false
	for i := 0; i < len(body); i++ {
		c := body[i]
		if c == '"' && (i == 0 || body[i-1] != '\\') {
			quoted = !quoted
		}
		if c == ' ' && !quoted && i > 0 && body[i-1] == ',' {
			continue
		}
		out.WriteByte(c)
	}
	body = jsonMask.ReplaceAllString(out.String(), `"$1":…`)
	body = jsonMember.ReplaceAllString(body, `"$1":…`)
	return jsonURLs.ReplaceAllString(body, "ADDRESS")
}

// ask gives one answer with those headers that the gateway sets itself.
func (s *Side) ask(method, path, body string, headers ...string) string {
	req, err := http.NewRequest(method, "http://"+s.Endpoint()+path, strings.NewReader(body))
	if err != nil {
		return err.Error()
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
		if headers[i] == "Host" {
			req.Host = headers[i+1]
		}
	}
	client := &http.Client{Timeout: patience / 3, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	r, err := client.Do(req)
	if err != nil {
		return err.Error()
	}
	defer r.Body.Close()
	defer s.level()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return err.Error()
	}
	out := fmt.Sprintln(r.StatusCode, plainJSON(string(text)))
	for _, name := range []string{"Content-Type", "Grpc-Metadata-Content-Type", "Www-Authenticate", "Location",
		"Access-Control-Allow-Origin", "Access-Control-Allow-Methods", "Access-Control-Allow-Headers"} {
		if v := r.Header.Get(name); v != "" {
			out += name + ": " + v + "\n"
		}
	}
	return out
}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// jsonRows are requests in an order; each sees what those before it did.
func jsonRows() [][2]string {
	rows := [][2]string{
		{"/v3/kv/put", `{"key":"Zm9v","value":"YmFy"}`},
		{"/v3/kv/range", `{"key":"Zm9v"}`},
		{"/v3/kv/range", `{"key":"AA==","range_end":"AA==","sort_order":"DESCEND","sort_target":"MOD"}`},
		{"/v3/kv/range", `{"key":"AA==","rangeEnd":"AA==","sortOrder":2,"sortTarget":"3","limit":"1"}`},
		{"/v3/kv/range", `{"key":"Zm9v","count_only":true,"serializable":true}`},
		{"/v3/kv/range", `{"key":"Zm9v","sort_order":"NOPE"}`},
		{"/v3/kv/range", `{"key":"Zm9v","sort_order":77}`},
		{"/v3/kv/range", `{"key":"Zm9v","sort_order":1.5}`},
		{"/v3/kv/range", `{"key":"Zm9v","sort_order":{}}`},
		{"/v3/kv/range", `{"key":"Zm9v","revision":"99999"}`},
		{"/v3/kv/range", `{"key":"bm8="}`},
		{"/v3/kv/range", ``},
		{"/v3beta/kv/range", `{"key":"Zm9v"}`},
		{"/v3/kv/txn", `{"compare":[{"target":"CREATE","key":"Zm9v","createRevision":"0"}],"success":[{"requestPut":{"key":"Zm9v"}}],"failure":[{"request_range":{"key":"Zm9v"}},{"request_delete_range":{"key":"eA=="}},{"requestPut":{"key":"Zm9v","prev_kv":true}}]}`},
		{"/v3/kv/txn", `{"compare":[{"target":"VALUE","key":"Zm9v","value":""}],"success":[{"request_txn":{"success":[{"request_range":{"key":"Zm9v"}}]}}]}`},
		{"/v3/kv/txn", `{"compare":[{"target":"CREATE","key":"Zm9v","createRevision":"0","version":1}]}`},
		{"/v3/kv/txn", `{"compare":{"target":"CREATE"}}`},
		{"/v3/kv/txn", `{"compare":[1]}`},
		{"/v3/kv/txn", `{"compare":[null]}`},
		{"/v3/kv/txn", `{"success":[{}]}`},
		{"/v3/kv/txn", `{"success":[{"requestPut":null}]}`},
		{"/v3/kv/deleterange", `{"key":"Zm9v","prev_kv":true}`},
		{"/v3/kv/deleterange", `{"key":"Zm9v"}`},
		{"/v3/kv/compaction", `{"revision":"2"}`},
		{"/v3/kv/compaction", `{"revision":"2"}`},
		{"/v3/kv/compaction", `{"revision":"2000"}`},
		{"/v3/kv/compaction", `{"revision":"3","physical":true}`},
		{"/v3/kv/range", `{"key":"Zm9v","revision":"1"}`},
		{"/v3/lease/grant", `{"TTL":600,"ID":"1234"}`},
		{"/v3/lease/grant", `{"TTL":600,"ID":"1234"}`},
		{"/v3/lease/grant", `{"TTL":"99999999999"}`},
		{"/v3/kv/put", `{"key":"bA==","lease":1234}`},
		{"/v3/kv/put", `{"key":"bA==","lease":"1.234e3","prevKv":true}`},
		{"/v3/lease/timetolive", `{"ID":"777"}`},
		{"/v3/kv/lease/timetolive", `{"ID":777,"keys":true}`},
		{"/v3/lease/leases", `{}`},
		{"/v3/kv/lease/leases", ``},
		{"/v3/lease/keepalive", `{"ID":"1234"}{"ID":"99"}`},
		{"/v3/lease/keepalive", `{"ID":"1234"}{"ID":x}`},
		{"/v3/lease/keepalive", `{"ID":"1234"} {"ID":"x"} {"ID":"1234"}`},
		{"/v3/lease/keepalive", ``},
		{"/v3/lock/lock", `{"name":"bG9jaw==","lease":"1234"}`},
		{"/v3/lock/lock", `{"name":"bG9jaw==","lease":"55"}`},
		{"/v3/lock/unlock", `{"key":"bG9jay80ZDI="}`},
		{"/v3/lock/unlock", `{}`},
		{"/v3/election/leader", `{"name":"ZQ=="}`},
		{"/v3/election/campaign", `{"name":"ZQ==","lease":"1234","value":"dg=="}`},
		{"/v3/election/leader", `{"name":"ZQ=="}`},
		{"/v3/election/proclaim", `{}`},
		{"/v3/election/proclaim", `{"leader":{"name":"ZQ==","key":"ZS80ZDI=","rev":"999","lease":"1234"},"value":"YQ=="}`},
		{"/v3/election/observe", `{"name":1}`},
		{"/v3/election/resign", `{"leader":{"key":"ZS80ZDI="}}`},
		{"/v3/lease/revoke", `{"ID":"1234"}`},
		{"/v3/kv/lease/revoke", `{"ID":"1234"}`},
		{"/v3/cluster/member/list", `{}`},
		{"/v3/cluster/member/list", `{"linearizable":true}`},
		{"/v3/cluster/member/add", `{"peerURLs":["nonsense"]}`},
		{"/v3/cluster/member/remove", `{"ID":"5"}`},
		{"/v3/cluster/member/update", `{"ID":"5","peerURLs":["http://127.0.0.1:1"]}`},
		{"/v3/cluster/member/promote", `{"ID":"5"}`},
		{"/v3/maintenance/alarm", `{}`},
		{"/v3/maintenance/alarm", `{"action":"GET","alarm":"NOSPACE"}`},
		{"/v3/maintenance/status", `{}`},
		{"/v3/maintenance/defragment", `{}`},
		{"/v3/maintenance/hash", `{}`},
		{"/v3/maintenance/hashkv", `{}`},
		{"/v3/maintenance/transfer-leadership", `{"targetID":"5"}`},
		{"/v3/maintenance/downgrade", `{"action":"VALIDATE","version":"3.6"}`},
		{"/v3/maintenance/downgrade", `{"action":"VALIDATE","version":"x"}`},
		{"/v3/auth/status", `{}`},
		{"/v3/auth/authenticate", `{"name":"a","password":"b"}`},
		{"/v3/auth/disable", ``},
		{"/v3/auth/enable", `{}`},
		{"/v3/auth/user/add", `{"name":"root","password":"root"}`},
		{"/v3/auth/user/add", `{"name":"<&>","options":{"no_password":true}}`},
		{"/v3/auth/user/add", `{"name":""}`},
		{"/v3/auth/user/get", `{"name":"nobody"}`},
		{"/v3/auth/user/get", `{"name":"root"}`},
		{"/v3/auth/user/list", `{}`},
		{"/v3/auth/user/changepw", `{"name":"root","password":"other"}`},
		{"/v3/auth/role/add", `{"name":"r"}`},
		{"/v3/auth/role/grant", `{"name":"r","perm":{"permType":"READWRITE","key":"YQ==","range_end":"Yg=="}}`},
		{"/v3/auth/role/get", `{"role":"r"}`},
		{"/v3/auth/role/list", `{}`},
		{"/v3/auth/user/grant", `{"user":"<&>","role":"r"}`},
		{"/v3/auth/user/revoke", `{"name":"<&>","role":"r"}`},
		{"/v3/auth/role/revoke", `{"role":"r","key":"YQ==","rangeEnd":"Yg=="}`},
		{"/v3/auth/role/delete", `{"role":"r"}`},
		{"/v3/auth/user/delete", `{"name":"<&>"}`},
		{"/v3/nothing", `{}`},
		{"/v3/", `{}`},
		{"/v3/kv/range/", `{}`},
		{"/v3/kv/rangestream", `{}`},
	}
	for _, body := range []string{
		"{", "x", "nul", "null", "[]", "1", `"a"`, "tru", "-", "1.", "1e", "\"", "{\"", "{\"a", "[1,", "{}}",
		`{"key":1}`, `{"key":"%%"}`, `{"key":"Zm9"}`, `{"key":"Zm9v","keyy":"a"}`, `{"key":"Zm9v"}{"a"}`,
		`{"key":"Zm9v","key":"Zm9v"}`, `{"key":"Zm9v","lease":"x"}`, `{"key":"Zm9v","lease":1.5}`,
		`{"key":"Zm9v","lease":"1.5"}`, `{"key":"Zm9v","lease":true}`, `{"key":"Zm9v","prev_kv":"x"}`,
		`{"key":"Zm9v","lease":99999999999999999999}`, `{"key":"_-8"}`, `{"key":"/+8"}`, `{"key":"_/8="}`, `{"key":"Zm9v",}`,
		`{'key':1}`, `{"key":null}`, `{"key":"Zm9v", "value": [1]}`, `{"key":"Zm9v","lease":" 1"}`,
		`{"key":"Zm9v","lease":"01"}`, `{"key":"Zm9v","lease":""}`, `{"key":"Zm9v","lease":null}`, `{"key":"\u005am9v"}`, `{"key":"\ud800"}`,
		`{"key":"\ud83d\ude00"}`, `{"key":"\ud83dx12345"}`, `{"key":"\u00zz"}`, `{"key":"\q"}`, "{\"key\":\"\n\"}", "{\"key\":\"\xff\"}",
		`{"key":"Zm9v","prev_kv":true,"prevKv":false}`, `{"key":"Zm9v","unknown":{"a":[1,2,{}],"b":null}}`,
		`{"key":"Zm9v" "value":""}`, `{"key" "Zm9v"}`, `{"key":"Zm9v","value":{}}`, "{\n\"key\":\n  5}", `{"key":"Zg=="} x`,
		`{"key":"Zh=="}`, `{"key":"Zg="}`, `{"key":"Z"}`, `{"key":"Zm9v\n"}`, `{"":1}`, `{"key":"Zm9v","[x]":1}`, `{1:2}`, `[}`,
		"{\"key\":\"Zm9v\",\"value\":\"" + strings.Repeat("A", 2_100_000) + "\"}",
		"{\"key\":\"Zm9v\",\"value\":\"" + strings.Repeat("A", 3_000_000) + "\"}",
	} {
		rows = append(rows, [2]string{"/v3/kv/put", body})
	}
	return rows
}

func TestJSONTable(t *testing.T) {
	t.Parallel()
	p := newPair(t, "--bcrypt-cost=4")
	for _, row := range jsonRows() {
		if inCluster() && ofOne.MatchString(row[0]) {
			continue
		}
		// A proxy has a limit of its own, and says so.
		if between == "grpc-proxy" && len(row[1]) > 1<<20 {
			continue
		}
		p.Both(t, func(s *Side) string {
			return row[0] + " " + row[1][:min(len(row[1]), 60)] + "\n" + s.ask("POST", row[0], row[1])
		})
	}
	for _, row := range [][]string{
		{"GET", "/v3/kv/range", ""}, {"PUT", "/v3/kv/range", "{}"}, {"DELETE", "/v3/nothing", ""}, {"OPTIONS", "/v3/kv/range", ""},
		{"POST", "/v3", "{}"}, {"POST", "/v3/kv//put", "{}"}, {"POST", "/v3/kv/../kv/put", "{}"},
		{"POST", "/v3/kv/range?x=1", `{"key":"Zm9v"}`},
		{"POST", "/v3/kv/range", `{"key":"Zm9v"}`, "Grpc-Timeout", "5x"},
		{"POST", "/v3/kv/range", `{"key":"Zm9v"}`, "Grpc-Timeout", "5S"},
		{"POST", "/v3/watch", `{"create_request":{"key":"Zm9v"}}`, "Grpc-Timeout", "500m"},
		{"POST", "/v3/election/observe", `{"name":"bm9ib2R5"}`, "Grpc-Timeout", "100m"},
		{"POST", "/v3/kv/range", `{"key":"Zm9v"}`, "Content-Type", "text/weird"},
		{"POST", "/v3/kv/range", `{"key":"Zm9v"}`, "Origin", "http://a.example"},
		{"POST", "/v3/kv/range", `{"key":"Zm9v"}`, "Authorization", "nonsense"},
	} {
		// What the server's own port makes of paths is not the gateway's.
		if between == "grpc-proxy" && (row[1] == "/v3" || strings.Contains(row[1], "//") || strings.Contains(row[1], "..")) {
			continue
		}
		p.Both(t, func(s *Side) string {
			return fmt.Sprint(row, "\n", oneDeadline(s.ask(row[0], row[1], row[2], row[3:]...)))
		})
	}
}

func TestJSONOriginsAndHosts(t *testing.T) {
	t.Parallel()
	p := newPair(t, "--cors=http://a.example:80,http://b.example:80", "--host-whitelist=127.0.0.1,good.example")
	for _, row := range [][]string{
		{"Origin", "http://a.example:80"}, {"Origin", "http://c.example:80"}, {}, {"Host", "good.example:1"},
	} {
		p.Both(t, func(s *Side) string { return s.ask("POST", "/v3/kv/range", `{"key":"Zm9v"}`, row...) })
		p.Both(t, func(s *Side) string { return s.ask("OPTIONS", "/v3/kv/range", "", row...) })
	}
	for _, path := range []string{"/v3/kv/range", "/v3beta/kv/range"} {
		p.Both(t, func(s *Side) string {
			return strings.SplitN(s.ask("POST", path, `{"key":"Zm9v"}`, "Host", "evil.example"), " ", 2)[0]
		})
	}
}

func TestJSONGatewaySwitchedOff(t *testing.T) {
	t.Parallel()
	p := newPair(t, "--enable-grpc-gateway=false")
	p.Both(t, func(s *Side) string { return s.ask("POST", "/v3/kv/range", `{"key":"Zm9v"}`) })
}

// Users, from nothing to a call with a token, as the documentation has it.
func TestJSONAsAUser(t *testing.T) {
	t.Parallel()
	p := newPair(t, "--bcrypt-cost=4")
	p.Both(t, func(s *Side) string {
		out := ""
		for _, row := range [][2]string{
			{"/v3/auth/user/add", `{"name":"root","password":"secret"}`},
			{"/v3/auth/role/add", `{"name":"root"}`},
			{"/v3/auth/user/grant", `{"user":"root","role":"root"}`},
			{"/v3/auth/user/add", `{"name":"ann","password":"ann"}`},
			{"/v3/auth/role/add", `{"name":"a"}`},
			{"/v3/auth/role/grant", `{"name":"a","perm":{"permType":"READ","key":"` + b64("a") + `"}}`},
			{"/v3/auth/user/grant", `{"user":"ann","role":"a"}`},
			{"/v3/auth/enable", `{}`},
			{"/v3/kv/put", `{"key":"Zm9v"}`},
			{"/v3/auth/authenticate", `{"name":"ann","password":"wrong"}`},
		} {
			out += s.ask("POST", row[0], row[1])
		}
		for _, name := range []string{"root", "ann"} {
			password := map[string]string{"root": "secret", "ann": "ann"}[name]
			token := s.jsonToken(name, password)
			for _, head := range []string{token, "Bearer " + token, "nonsense.1"} {
				for _, row := range [][2]string{
					{"/v3/kv/put", `{"key":"YQ=="}`}, {"/v3/kv/range", `{"key":"YQ=="}`}, {"/v3/auth/user/list", `{}`},
					{"/v3/lease/keepalive", `{"ID":"5"}`}, {"/v3/maintenance/snapshot", `{}`}, {"/v3/lock/lock", `{"name":"eA=="}`},
				} {
					if name == "root" && (row[0] == "/v3/maintenance/snapshot" || row[0] == "/v3/lock/lock") {
						continue
					}
					out += name + row[0] + s.ask("POST", row[0], row[1], "Authorization", head)
				}
			}
		}
		return out
	})
}

func (s *Side) jsonToken(name, password string) string {
	r, err := http.Post("http://"+s.Endpoint()+"/v3/auth/authenticate", "", strings.NewReader(fmt.Sprintf(`{"name":%q,"password":%q}`, name, password)))
	if err != nil {
		return err.Error()
	}
	defer r.Body.Close()
	var said struct{ Token string }
	if err := json.NewDecoder(r.Body).Decode(&said); err != nil {
		return err.Error()
	}
	return said.Token
}

// A watch stays open and gives each event as it comes; more requests may follow on the same body.
func TestJSONWatch(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.Both(t, func(s *Side) string {
		body, more := io.Pipe()
		defer more.Close()
		go fmt.Fprintf(more, `{"create_request":{"key":%q,"range_end":%q,"prev_kv":true}}`, b64("w"), b64("x"))
		req, _ := http.NewRequest("POST", "http://"+s.Endpoint()+"/v3/watch", body)
		// Without this Go's server reads all of a request before it says a word.
		req.Header.Set("Expect", "100-continue")
		r, err := http.DefaultClient.Do(req)
		if err != nil {
			return err.Error()
		}
		defer r.Body.Close()
		lines := bufio.NewScanner(r.Body)
		out := fmt.Sprintln(r.StatusCode, r.Header.Get("Content-Type"), r.Header.Get("Grpc-Metadata-Content-Type"))
		line := func() { lines.Scan(); out += plainJSON(lines.Text()) + "\n" }
		line()
		for i := range 3 {
			s.ask("POST", "/v3/kv/put", fmt.Sprintf(`{"key":%q,"value":%q}`, b64("w1"), b64(fmt.Sprint(i))))
			line()
		}
		s.ask("POST", "/v3/kv/deleterange", fmt.Sprintf(`{"key":%q}`, b64("w1")))
		line()
		fmt.Fprint(more, `{"cancel_request":{"watch_id":"0"}}`)
		line()
		fmt.Fprint(more, `{"create_request":{"key":"dw==","start_revision":"-1"}}`)
		line()
		return out
	})
}

// Who has not said Expect is answered all the same before its request ends; etcd waits for the end.
func TestJSONWatchAnswersWhileItIsAsked(t *testing.T) {
	t.Parallel()
	if between == "gateway" && behind == "etcd" {
		t.Skip("it is etcd that answers here")
	}
	s := startServer(t, "etch")
	body, more := io.Pipe()
	defer more.Close()
	go fmt.Fprint(more, `{"create_request":{"key":"dw=="}}`)
	client := &http.Client{Timeout: patience}
	r := ok[*http.Response](t)(client.Post("http://"+s.Endpoint()+"/v3/watch", "", body))
	defer r.Body.Close()
	if line := ok[string](t)(bufio.NewReader(r.Body).ReadString('\n')); !strings.Contains(line, `"created":true`) {
		t.Error(line)
	}
}

// A snapshot in pieces, whole in the end; an observer of an election.
func TestJSONStreams(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.Both(t, func(s *Side) string {
		r, err := http.Post("http://"+s.Endpoint()+"/v3/maintenance/snapshot", "", strings.NewReader("{}"))
		if err != nil {
			return err.Error()
		}
		defer r.Body.Close()
		var whole bytes.Buffer
		last := ""
		for d := json.NewDecoder(r.Body); ; {
			var line struct {
				Result struct {
					Blob           []byte
					RemainingBytes string `json:"remaining_bytes"`
					Version        string
				}
			}
			if err := d.Decode(&line); err == io.EOF {
				break
			} else if err != nil {
				return err.Error()
			}
			whole.Write(line.Result.Blob)
			last = line.Result.RemainingBytes + line.Result.Version
		}
		return fmt.Sprint(whole.Len()%512, last)
	})
	p.Both(t, func(s *Side) string {
		s.ask("POST", "/v3/lease/grant", `{"TTL":600,"ID":"7"}`)
		out := s.ask("POST", "/v3/election/campaign", `{"name":"ZQ==","lease":"7","value":"b25l"}`)
		r, err := http.Post("http://"+s.Endpoint()+"/v3/election/observe", "", strings.NewReader(`{"name":"ZQ=="}`))
		if err != nil {
			return err.Error()
		}
		defer r.Body.Close()
		lines := bufio.NewScanner(r.Body)
		lines.Scan()
		out += plainJSON(lines.Text())
		s.ask("POST", "/v3/election/campaign", `{"name":"ZQ==","lease":"7","value":"dHdv"}`)
		lines.Scan()
		return out + plainJSON(lines.Text())
	})
}

// The same over WebSocket: each message a request, each line of the answer a message.
func TestJSONWebSocket(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.Both(t, func(s *Side) string {
		ws, r, err := websocket.DefaultDialer.Dial("ws://"+s.Endpoint()+"/v3/watch", nil)
		if err != nil {
			return err.Error()
		}
		defer ws.Close()
		out := fmt.Sprintln(r.StatusCode, r.Header.Get("Upgrade"), r.Header.Get("Connection"))
		read := func() {
			ws.SetReadDeadline(time.Now().Add(patience / 3))
			kind, text, err := ws.ReadMessage()
			out += fmt.Sprintln(kind, plainJSON(string(text)), err)
		}
		say := func(kind int, text string) {
			if err := ws.WriteMessage(kind, []byte(text)); err != nil {
				out += err.Error()
			}
		}
		say(websocket.TextMessage, `{"create_request":{"key":"dw==","range_end":"eA=="}}`)
		read()
		s.ask("POST", "/v3/kv/put", `{"key":"dzE=","value":"YQ=="}`)
		read()
		say(websocket.BinaryMessage, `{"create_request":{"key":"eA=="}}`)
		read()
		// In two messages, for the stream is one of values, not of messages.
		say(websocket.TextMessage, `{"cancel_request":`)
		say(websocket.TextMessage, `{"watch_id":"1"}}`)
		read()
		s.ask("POST", "/v3/kv/put", `{"key":"dzE=","value":"`+b64(strings.Repeat("long", 50_000))+`"}`)
		read()
		return out
	})
	// What etcd answers to an upgrade that is none.
	for _, headers := range [][]string{
		{"Connection", "Upgrade", "Upgrade", "websocket"},
		{"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "short"},
		{"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "12", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="},
	} {
		p.Both(t, func(s *Side) string { return s.ask("GET", "/v3/watch", "", headers...) })
	}
}

// With users, a browser's token comes as a protocol or as a cookie.
func TestJSONWebSocketAsAUser(t *testing.T) {
	t.Parallel()
	p := newPair(t, "--bcrypt-cost=4")
	p.Both(t, func(s *Side) string {
		root := s.enableAuth(t)
		out := ""
		for _, headers := range []http.Header{
			{"Sec-Websocket-Protocol": {"Bearer, " + root}}, {"Cookie": {"token=" + root}}, {},
		} {
			ws, r, err := websocket.DefaultDialer.Dial("ws://"+s.Endpoint()+"/v3/watch", headers)
			if err != nil {
				return err.Error()
			}
			out += fmt.Sprintln(r.StatusCode, r.Header.Get("Sec-Websocket-Protocol"))
			if err := ws.WriteMessage(websocket.TextMessage, []byte(`{"create_request":{"key":"dw=="}}`)); err != nil {
				return err.Error()
			}
			ws.SetReadDeadline(time.Now().Add(patience / 3))
			_, text, err := ws.ReadMessage()
			out += fmt.Sprintln(plainJSON(string(text)), err)
			ws.Close()
		}
		return out
	})
}

// Bodies of every kind of damage: the server lives, and says no.
func TestJSONHostile(t *testing.T) {
	t.Parallel()
	s := startServer(t, "etch")
	side := connect(t, s)
	deep := strings.Repeat(`{"success":[{"request_txn":`, 3000)
	for _, body := range []string{
		deep, deep + strings.Repeat("}]}", 3000), strings.Repeat("[", 100_000), strings.Repeat(`{"a":`, 9_000) + "1" + strings.Repeat("}", 9_000),
		strings.Repeat(" ", 20<<20), `{"key":"` + strings.Repeat("A", 20<<20),
	} {
		if got := side.ask("POST", "/v3/kv/txn", body); !strings.HasPrefix(got, "4") && !strings.HasPrefix(got, "200") && !strings.Contains(got, "write") && !strings.Contains(got, "EOF") {
			t.Errorf("%.40s… %.200s", body, got)
		}
	}
	if got := side.ask("POST", "/v3/kv/put", `{"key":"YQ=="}`); !strings.HasPrefix(got, "200") {
		t.Error(got)
	}
	got := side.ask("GET", "/openapi.json", "")
	if !strings.HasPrefix(got, "200") || !strings.Contains(got, `"/v3/kv/range"`) {
		t.Errorf("%.300s", got)
	}
}

// A watch over JSON ends when the server does, and does not hold it up.
func TestJSONStreamsEndWithTheServer(t *testing.T) {
	t.Parallel()
	s := startServer(t, "etch")
	r, err := http.Post("http://"+s.Endpoint()+"/v3/watch", "", strings.NewReader(`{"create_request":{"key":"YQ=="}}`))
	fine(t, err)
	defer r.Body.Close()
	ws, _, err := websocket.DefaultDialer.Dial("ws://"+s.Endpoint()+"/v3/watch", nil)
	fine(t, err)
	defer ws.Close()
	fine(t, ws.WriteMessage(websocket.TextMessage, []byte(`{"create_request":{"key":"YQ=="}}`)))
	_, _, err = ws.ReadMessage()
	fine(t, err)
	s.Stop(t, 15)
	if _, err := io.ReadAll(r.Body); err != nil {
		t.Errorf("the stream was cut: %v", err)
	}
}
