package interop

// The same command lines with the real etcdctl and with ours, each against an
// etch of its own that has seen the same: what is printed where, and the exit
// codes, must be the same but for ids and times.

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// asEtcdctl is etch under the name that makes it etcdctl.
func asEtcdctl(t testing.TB) string {
	t.Helper()
	link := filepath.Join(t.TempDir(), "etcdctl")
	fine(t, os.Symlink(ok[string](t)(filepath.Abs(programs["etch"])), link))
	return link
}

// line is one call: words by spaces (” is an empty one), and its input.
type line struct{ words, stdin string }

func lines(words ...string) []line {
	var out []line
	for _, w := range words {
		out = append(out, line{words: w})
	}
	return out
}

// splitLine cuts a line into words. ~ stands for a space within one.
func splitLine(words string) []string {
	var out []string
	for _, w := range strings.Fields(words) {
		out = append(out, strings.ReplaceAll(strings.ReplaceAll(w, "''", ""), "~", " "))
	}
	return out
}

// what the real etcdctl says besides: its library's log, and gRPC's address of it
var ctlNoise = regexp.MustCompile(`(?m)^\{"level":.*\n`)

// how long a health check took, with what a table makes of its width
var ctlTook = regexp.MustCompile(` *\d+(\.\d+)?(ms|µs|s)\b *|─+[┬┼┴]─+[┬┼┴]─+[┬┼┴]─+| *TOOK *`)

// runTool runs one call in a directory: both outputs, and the exit code.
func runTool(s *Side, tool, dir string, env []string, l line) string {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, tool, splitLine(l.words)...)
	var out, errs bytes.Buffer
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = dir, strings.NewReader(l.stdin), &out, &errs
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, env...)
	cmd.Run()
	text := "stdout:\n" + out.String() + "stderr:\n" + ctlNoise.ReplaceAllString(errs.String(), "") + cmd.ProcessState.String()
	text = strings.ReplaceAll(text, dir, "DIR")
	text = ctlTook.ReplaceAllString(text, "T")
	return s.mask(text)
}

// twins starts two etch that are told the same.
func twins(t testing.TB, args ...string) *Pair {
	t.Helper()
	a, b := newServer(t, "etch", args...), newServer(t, "etch", args...)
	a.Start(t)
	b.Start(t)
	p := &Pair{A: connect(t, a), B: connect(t, b)}
	p.settle(t)
	return p
}

// sameLines runs lines one after another on both sides.
func sameLines(t *testing.T, p *Pair, env []string, list []line) {
	tools := map[*Side]string{p.A: programs["etcdctl"], p.B: asEtcdctl(t)}
	dirs := map[*Side]string{p.A: t.TempDir(), p.B: t.TempDir()}
	for _, l := range list {
		t.Run(strings.ReplaceAll(l.words, "/", "|"), func(t *testing.T) {
			p.Both(t, func(s *Side) string {
				env := append([]string{"ETCDCTL_ENDPOINTS=" + s.Endpoint()}, env...)
				return runTool(s, tools[s], dirs[s], env, l)
			})
		})
	}
}

var ctlForms = []string{"simple", "json", "fields", "protobuf", "table", "nonsense"}

// inEveryForm is a line once in each form of output, and with --hex.
func inEveryForm(words string) []line {
	var out []line
	for _, form := range ctlForms {
		out = append(out, line{words: words + " -w " + form})
	}
	return append(out, lines(words+" --hex", words+" --hex -w json", words+" -w=fields --hex")...)
}

func ctlKeyLines() []line {
	list := lines(
		"put a 1", "put b 2 --prev-kv", "put a again --prev-kv", "put a --ignore-value", "put a x --ignore-value", "put", "put a", "put '' x",
		"put a b c", "put a x --lease=zz", "put a x --lease=123", "put bad", "put d/1 x", "put d/2 y", "put -- -k -v", "put a x --nope", "put --help",
		"get a", "get a b c", "get", "get nothing", "get a --print-value-only", "get d/ --prefix", "get d/ --prefix --keys-only",
		"get d/ --prefix --count-only -w fields", "get d/ --prefix --count-only", "get a d", "get b --from-key --limit=2", "get a b --prefix", "get a --prefix --from-key",
		"get '' --prefix --sort-by=MODIFY --order=DESCEND", "get a --sort-by=NONSENSE", "get a --order=NONSENSE", "get a --rev=2", "get a --rev=999", "get a --consistency=s",
		"get a --consistency=x", "get a -w=json --hex", "get a --limit=x", "get --help", "get a --keys-only --count-only", "get '' --prefix --stream",
		"del nothing", "del a --prev-kv", "del d/ --prefix --prev-kv", "del", "del a b c", "del a b --range", "del --help", "del a --from-key --prefix",
	)
	list = append(list, line{"put piped", "from stdin"}, line{"put empty", ""})
	list = append(list, inEveryForm("get -- -k")...)
	list = append(list, inEveryForm("get '' --prefix")...)
	list = append(list, inEveryForm("get nothing/ --prefix")...)
	list = append(list, lines("get '' --prefix --rev=5 -w json", "get d/ --prefix -w json --keys-only", "get a --from-key --stream -w json", "get a --from-key --rev=999 -w json")...)
	list = append(list, inEveryForm("put x y --prev-kv")...)
	return append(list, inEveryForm("del x --prev-kv")...)
}

// What people type wrong, or rarely.
func ctlRareLines() []line {
	list := lines(
		"lease", "lease grant", "lease grant x", "lease grant 1 2", "lease grant 0", "lease grant 100 -w nonsense", "lease revoke", "lease revoke zz", "lease revoke 1 2", "lease revoke 77 -w json",
		"lease timetolive", "lease timetolive zz", "lease timetolive 77 --keys -w json", "lease timetolive 77 -w fields", "lease timetolive 77 -w table", "lease timetolive 1 2",
		"lease keep-alive", "lease keep-alive zz", "lease keep-alive 77", "lease keep-alive 77 --once -w json", "lease keep-alive 1 2", "lease nosuch", "lease grant --help", "lease timetolive --help",
		"put a 1", "put b 2", "compaction", "compaction x", "compaction 1 2", "compaction -5", "compaction 0", "compaction 2 -w json", "compaction 999 -w json", "compact 2", "compaction --help",
		"watch", "watch a b c", "watch a b --prefix", "watch --rev=x a", "watch -- echo", "watch --help", "txn x", "txn -w nonsense", "lock", "lock l --ttl=x", "lock '' true", "lock l -- false",
		"elect", "elect e", "elect -l", "elect -l e x", "elect e v x", "make-mirror", "make-mirror a b", "make-mirror 127.0.0.1:1 --rev=x", "check", "check perf --load=nonsense", "check datascale --load=nonsense",
		"check nosuch", "version -w json", "help --help", "get a --limit=1_0", "get a --limit=_1", "get a --limit=1e3", "get a --limit=0x10", "get a --limit=1 --limit=2", "get a --rev=99999999999999999999", "get a --prefix=false",
		"get a --prefix=maybe", "get a -w json -w simple", "-wjson get a", "get --keys-only=0 a", "get -w", "get a -w=JSON", "get a --rev=-1", "get a --limit=-1", "get '' --prefix --sort-by=VERSION --order=DESCEND",
		"get '' --prefix --sort-by=CREATE --limit=1", "get '' --prefix --stream --limit~1", "get '' --prefix --stream --sort-by=VALUE", "get '' --prefix --stream -w table", "get '' --prefix --stream --keys-only",
		"get a --command-timeout=-1s", "get a --command-timeout=1ns", "get a --dial-timeout=5", "get a --keepalive-time=x", "get a --cert=nofile", "get a --key=nofile", "get a --cacert=nofile", "get a --user=:x", "get a --password=x",
		"put big xxxxxxxxxxxxxxxxxxxxxxxxxxx --max-request-bytes=10", "snapshot save ''", "snapshot save a b", "snapshot save s.db -w nope", "endpoint hashkv --rev=-1", "move-leader 1 2", "member remove 1 2", "member promote 1 2",
		"member add n2 --peer-urls=", "downgrade validate 2.3", "downgrade validate 3.7.1", "role grant-permission x read ''", "role add ''", "user add x --new-user-password=p --no-password",
		"__complete get --", "__complete get a --or", "__complete -", "__complete --", "__complete get -", "__complete help ''", "__complete help member ''", "__complete role gr", "__complete lease ''", "__complete help me", "__complete nosuch ''", "__completeNoDesc member ''", "__complete", "get help", "member help list",
		"get nothing --endpoints=127.0.0.1:1 --command-timeout=1s", "endpoint health --endpoints=127.0.0.1:1 --command-timeout=1s", "snapshot save x.db --endpoints=127.0.0.1:1,127.0.0.1:2",
	)
	for _, typed := range []string{
		"\n", "value(\"a\") = \"1\"", "value(\"a\") = \"1\"\n\nget a\n\nget b\n\n", "ver(\"a\") = \"1\"\n\nget a\n\nget b\n\n", "c(\"a\") > \"0\"\n\nget a\n\nget b\n\n", "create(\"a\") != \"0\"\n\nget a\n\nget b\n\n",
		"mod(\"a\") < \"x\"\n\nget a\n\n\n", "val(\"a\") < \"5\"\n\nget a\n\nget b\n\n", "value(a) = \"1\"\n\nget a\n\n\n", "value(\"a) = \"1\"\n\nget a\n\n\n", "value(\"a\") = 1\n\nget a\n\n\n", "value(\"a\")=\"1\"\n\nget a\n\n\n",
		"\nput\n\n\n", "\nput a b c\n\n\n", "\nput a \"x\\ty\"\nget a\n\n\n", "\nput a 'x y'\n\n\n", "\ndel\n\n\n", "\ndel a b --prefix\n\n\n", "\nget --prefix a\n\n\n", "\nwatch a\n\n\n", "\nput a 1 --lease=77\n\n\n", "\nput a 1\nput a 2\n\n\n",
	} {
		list = append(list, line{"txn", typed})
	}
	for _, form := range ctlForms {
		list = append(list, line{"txn -w " + form, "\nput a 1 --prev-kv\nget a\ndel b --prev-kv\n\n\n"})
	}
	return append(list, line{"txn --hex", "\nput a 1 --prev-kv\nget a\n\n\n"}, line{"watch -i", "foo\n"}, line{"watch -i", "watch a b --prefix\n"})
}

func ctlClusterLines() []line {
	list := lines(
		"member", "member --help", "member list --help", "member add --help", "member nosuch", "member list --consistency=s", "member list --consistency=x",
		"member add", "member add x", "member add x y", "member add x http://127.0.0.1:1", "member add x --peer-urls=nonsense", "member remove", "member remove zz",
		"member remove 1234", "member remove 11112222333344445", "member update zz --peer-urls=http://127.0.0.1:5", "member update 1234", "member update 1234 --peer-urls=http://127.0.0.1:5",
		"member promote", "member promote 1234", "member promote zz",
		"endpoint", "endpoint --help", "endpoint health --help", "endpoint status --help", "endpoint hashkv --help", "endpoint hashkv --rev=2", "endpoint hashkv --rev=99999",
		"endpoint hashkv --rev=x", "endpoint health --cluster", "endpoint status --cluster -w json", "endpoint hashkv --cluster", "endpoint nosuch",
		"alarm", "alarm --help", "alarm list", "alarm list x", "alarm disarm", "alarm disarm x", "alarm list --help", "alarm disarm --help",
		"defrag", "defrag --cluster", "defrag --help", "defrag --nope",
		"move-leader", "move-leader zz", "move-leader 1234", "move-leader --help",
		"downgrade", "downgrade --help", "downgrade validate", "downgrade validate 3.6", "downgrade validate 3.5", "downgrade validate x", "downgrade validate 3.6 3.5",
		"downgrade validate ''", "downgrade enable", "downgrade enable 9.9", "downgrade cancel", "downgrade cancel -w json", "downgrade validate 3.6 -w fields",
		"downgrade validate 3.6 -w json", "downgrade enable --help", "downgrade cancel --help",
		"snapshot", "snapshot --help", "snapshot save", "snapshot save --help", "snapshot save s.db", "snapshot save nosuchdir/s.db", "snapshot nosuch",
		"snapshot save t.db --command-timeout=30s",
		"version", "version --help", "version x", "options", "options --help", "completion", "completion --help", "completion nosh", "help", "help member", "help nosuch",
		"nosuch", "membr", "memb list", "--nope", "-z", "", "--help", "-h",
		"__complete ''", "__complete member ''", "__complete member l", "__complete member list --", "__complete -w ''",
	)
	for _, words := range []string{"member list", "endpoint health", "endpoint status", "endpoint hashkv", "alarm list"} {
		list = append(list, inEveryForm(words)...)
	}
	return list
}

func ctlAuthLines() []line {
	list := lines(
		"auth", "auth --help", "auth status", "auth status x", "auth enable x", "auth disable x", "auth enable --help", "auth status -w json", "auth status -w fields",
		"auth status -w table", "auth status -w protobuf", "auth disable", "auth enable", "user", "user --help", "user add --help", "user get --help", "user passwd --help",
		"role", "role --help", "role grant-permission --help", "role revoke-permission --help", "role list --help",
		"user add", "user add root:pw", "user add root:pw", "user add :pw", "user add nopw --no-password", "user add flag --new-user-password=x", "user add a b",
		"user list", "user list x", "user get", "user get root", "user get nosuch", "user get root --detail", "user delete", "user delete nosuch", "user grant-role", "user grant-role root nosuch",
		"user revoke-role root", "user revoke-role root nosuch", "user delete flag",
		"role add", "role add r", "role add r", "role add root", "role get", "role get nosuch", "role get root", "role list", "role list x", "role delete nosuch", "role delete",
		"role grant-permission r", "role grant-permission r read", "role grant-permission r reed a", "role grant-permission r read a", "role grant-permission r write a c",
		"role grant-permission r readwrite p/ --prefix", "role grant-permission r READ z --from-key", "role grant-permission r read x y --prefix", "role grant-permission r read x y --from-key",
		"role grant-permission r read x --prefix --from-key", "role grant-permission r read '' --prefix", "role grant-permission r read '' --prefix --from-key", "role grant-permission nosuch read a",
		"role grant-permission r write 'sp~ace'", "role get r", "role revoke-permission r", "role revoke-permission r a", "role revoke-permission r a c", "role revoke-permission r nosuch",
		"role revoke-permission r p/ --prefix", "role revoke-permission r z --from-key", "role get r", "user grant-role root root", "user grant-role nopw r", "user get nopw",
		"user get nopw --detail", "user get root --detail -w fields",
	)
	list = append(list, line{"user add in --interactive=false", "secret\n"}, line{"user passwd in --interactive=false", "other words\n"}, line{"user passwd nosuch --interactive=false", "x\n"})
	for _, words := range []string{"role get r", "role list", "user list", "user get nopw"} {
		list = append(list, inEveryForm(words)...)
	}
	for _, form := range ctlForms {
		list = append(list, lines("role add r-"+form+" -w "+form, "user add u-"+form+":x -w "+form, "user grant-role u-"+form+" r-"+form+" -w "+form,
			"role grant-permission r-"+form+" read k -w "+form, "role revoke-permission r-"+form+" k -w "+form, "user revoke-role u-"+form+" r-"+form+" -w "+form,
			"user delete u-"+form+" -w "+form, "role delete r-"+form+" -w "+form)...)
	}
	return append(list, lines(
		"auth enable", "auth status", "get a", "get a --user=root:pw", "get a --user=root --password=pw", "get a --user=root:wrong", "get a --user=nosuch:x",
		"user list --user=in:other", "get p/x --user=in:other", "member list", "endpoint status -w fields", "endpoint health", "endpoint health --user=root:pw", "endpoint health --user=in:other",
		"--user=root:pw snapshot save s.db", "snapshot save s.db", "alarm list", "user get in --user=in:other", "auth disable --user=in:other", "auth disable --user=root:pw", "auth status",
	)...)
}

func ctlMemberChanges() []line {
	return lines("member add new --peer-urls=http://127.0.0.1:9 --learner", "member add other --peer-urls=http://127.0.0.1:9,http://127.0.0.1:10", "member list", "member list -w table", "member list -w fields",
		"member add third --peer-urls=http://127.0.0.1:11 --learner -w fields", "endpoint status -w json")
}

func TestCtlLines(t *testing.T) {
	t.Parallel()
	lists := map[string][]line{"keys": ctlKeyLines(), "cluster": ctlClusterLines(), "auth": ctlAuthLines(), "members": ctlMemberChanges(), "rare": ctlRareLines()}
	count := 0
	for _, list := range lists {
		count += len(list)
	}
	if t.Logf("%d command lines", count); count < 400 {
		t.Errorf("only %d command lines", count)
	}
	for name, list := range lists {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sameLines(t, twins(t), nil, list)
		})
	}
}

// TestCtlVariables: flags as variables, and what is said of those that make no
// sense. The messages about them are log lines, so exit codes and results count.
func TestCtlVariables(t *testing.T) {
	t.Parallel()
	p := twins(t)
	sameLines(t, p, []string{"ETCDCTL_API=3"}, lines("put a 1", "get a"))
	sameLines(t, p, []string{"ETCDCTL_API=2", "ETCDCTL_WRITE_OUT=json"}, lines("get a", "member list"))
	sameLines(t, p, []string{"ETCDCTL_WRITE_OUT=json"}, lines("get a -w simple", "get a"))
	sameLines(t, p, []string{"ETCDCTL_NONSENSE=json", "ETCDCTL_USER="}, lines("get a"))
	sameLines(t, p, nil, lines("get a --endpoints=127.0.0.1:1"))
}
