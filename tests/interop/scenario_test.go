package interop

// The same list of scenarios (testdata/scenarios.txt), gone through by Go's
// clientv3 and by etch-client, against etch and against three members of a real
// etcd, which are killed, paused, cut off and replaced meanwhile: both clients
// must write down the same. Here: the list is read, both are run, and what they
// wrote is compared. The steps of clientv3 are in scenario_go_test.go, those of
// etch-client in crates/client/tests/scenarios; the servers and what befalls
// them are in scenario_world_test.go.

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

const scenarioFile = "testdata/scenarios.txt"

// scenario is one of the list: its name, whether it needs three members, and
// its steps as they stand there.
type scenario struct {
	name  string
	three bool
	steps []string
}

func scenarios(t testing.TB) []scenario {
	t.Helper()
	text, err := os.ReadFile(scenarioFile)
	fine(t, err)
	var list []scenario
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "== "):
			list = append(list, scenario{name: line[3:]})
		case line == "needs 3":
			list[len(list)-1].three = true
		default:
			list[len(list)-1].steps = append(list[len(list)-1].steps, line)
		}
	}
	return list
}

// deliberate holds the lines in which the two clients are meant to differ, as
// docs/client.md says: clientv3's first, then ours.
var deliberate = map[string][2]string{
	// A client without endpoints can do nothing, so ours keeps those that it has.
	"endpoints: endpoints none on=x": {"ok", "invalid"},
	// A deletion through clientv3's leasing does not count what it deleted.
	"leasing: delete b quiet on=l": {"ok deleted 0", "ok deleted 1"},
	// clientv3 does not look at the cluster's id.
	"another cluster is there instead: get a retry quiet on=far": {"ok []", "another cluster"},
}

// runner goes through a scenario against a world, and gives a line a step:
// the step and what came of it.
type runner func(t testing.TB, w *world, s scenario) []string

func TestScenarios(t *testing.T) {
	t.Parallel()
	rust := rustRunner(t)
	for _, server := range []struct {
		program string
		members int
	}{{"etch", 1}, {"etcd", 3}} {
		t.Run(server.program, func(t *testing.T) {
			t.Parallel()
			var list []scenario
			for _, s := range scenarios(t) {
				if server.members == 3 || !s.three {
					list = append(list, s)
				}
			}
			runBoth(t, server.program, server.members, list, rust)
		})
	}
}

// TestScenariosOfOldEtcd is the same against one etcd of each older version, as
// far as nothing befalls it.
func TestScenariosOfOldEtcd(t *testing.T) {
	t.Parallel()
	rust := rustRunner(t)
	var list []scenario
	for _, s := range scenarios(t) {
		quiet := func(step string) bool { return !strings.HasPrefix(step, "fault ") || step == "fault settle all" }
		if !s.three && !slices.ContainsFunc(s.steps, func(step string) bool { return !quiet(step) }) {
			list = append(list, s)
		}
	}
	for _, version := range []string{"3.4", "3.5", "3.6"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			runBoth(t, oldEtcd(t, version), 1, list, rust)
		})
	}
}

// runBoth goes through the list with both clients at the same time, each in a
// world of its own, and compares what they wrote.
func runBoth(t *testing.T, program string, members int, list []scenario, rust runner) {
	var written [2][][]string
	var wg sync.WaitGroup
	for i, run := range []runner{runGo, rust} {
		// An election is what a fault makes, not a slow machine.
		w := newWorld(t, program, members, 2*time.Second)
		wg.Add(1)
		go func() {
			defer wg.Done()
			for _, s := range list {
				w.reset(t)
				written[i] = append(written[i], run(t, w, s))
			}
		}()
	}
	wg.Wait()
	for i, s := range list {
		t.Run(s.name, func(t *testing.T) {
			compareLines(t, s, written[0][i], written[1][i])
		})
	}
}

// compareLines expects the same line for each step, but for what is meant to
// differ. No step may hang.
func compareLines(t *testing.T, s scenario, clientv3, ours []string) {
	t.Helper()
	for i, step := range s.steps {
		theirs, mine := "no line", "no line"
		if i < len(clientv3) {
			theirs = clientv3[i]
		}
		if i < len(ours) {
			mine = ours[i]
		}
		want := mine
		if pair, is := deliberate[s.name+": "+step]; is {
			if mine != pair[1] {
				t.Errorf("%s\n   should be %s\n   etch-client %s", step, pair[1], mine)
			}
			want = pair[0]
		}
		if theirs != want {
			t.Errorf("%s\n   clientv3    %s\n   etch-client %s", step, theirs, mine)
		}
		if strings.Contains(theirs+mine, "hangs") || strings.Contains(mine, "what is") {
			t.Errorf("%s\n   clientv3    %s\n   etch-client %s", step, theirs, mine)
		}
	}
}

// rustProgram gives the path of etch-client's side, built with the workspace.
func rustProgram(t testing.TB) string {
	t.Helper()
	if path := os.Getenv("SCENARIOS_BIN"); path != "" {
		return path
	}
	root := ok[string](t)(filepath.Abs(filepath.Join("..", "..")))
	target := os.Getenv("CARGO_TARGET_DIR")
	if target == "" {
		target = filepath.Join(root, "target")
	}
	buildScenarios.Do(func() {
		// All of the workspace at once, as the gate builds it: a build of this
		// alone would compile its dependencies anew, for another set of features.
		cmd := exec.Command("cargo", "build", "--quiet", "--workspace", "--all-targets")
		cmd.Dir = root
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("cargo build: %v\n%s", err, out)
		}
	})
	return filepath.Join(target, "debug", "examples", "scenarios")
}

var buildScenarios sync.Once

// rustRunner starts etch-client's side for each scenario. It writes its lines
// to standard output; what shall befall the servers it asks for with a line that
// begins with "!", and waits for an answer on its standard input.
func rustRunner(t testing.TB) runner {
	program := rustProgram(t)
	return func(t testing.TB, w *world, s scenario) []string {
		return converse(t, w, program, append([]string{"run", scenarioFile, s.name}, w.endpoints()...)...)
	}
}

// converse runs a program that speaks as a runner does, to its end.
func converse(t testing.TB, w *world, program string, args ...string) []string {
	cmd := exec.Command(program, args...)
	in, err := cmd.StdinPipe()
	if err != nil {
		return []string{err.Error()}
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return []string{err.Error()}
	}
	var complaints strings.Builder
	cmd.Stderr = &complaints
	if err := cmd.Start(); err != nil {
		return []string{err.Error()}
	}
	// A program that hangs must not hold the test up for ever.
	timer := time.AfterFunc(10*time.Minute, func() { cmd.Process.Kill() })
	defer timer.Stop()
	var lines []string
	for scanner := bufio.NewScanner(out); scanner.Scan(); {
		line := scanner.Text()
		if fault, asked := strings.CutPrefix(line, "!"); asked {
			fmt.Fprintln(in, w.befall(t, strings.Fields(fault)))
			continue
		}
		lines = append(lines, line)
	}
	in.Close()
	io.Copy(io.Discard, out)
	if err := cmd.Wait(); err != nil {
		lines = append(lines, fmt.Sprintf("%v: %s", err, complaints.String()))
	}
	return lines
}

// words takes a step apart. Options that any step may have are taken out.
type words struct {
	verb                 string
	args                 []string
	opts                 map[string]string
	on                   string
	within               time.Duration
	coarse, retry, quiet bool
}

var flagWords = []string{"prefix", "from", "prev", "serializable", "keysonly", "countonly", "noput", "nodelete", "hasleader", "ignorevalue"}

func parseStep(line string) words {
	w := words{on: "c", opts: map[string]string{}}
	all := strings.Fields(line)
	w.verb, all = all[0], all[1:]
	if w.verb == "later" {
		w.args = []string{all[0], strings.Join(all[1:], " ")}
		return w
	}
	for _, word := range all {
		name, value, _ := strings.Cut(word, "=")
		switch {
		case word == "''":
			w.args = append(w.args, "")
		case word == "coarse":
			w.coarse = true
		case word == "retry":
			w.retry = true
		case word == "quiet":
			w.quiet = true
		case name == "on" && value != "":
			w.on = value
		case name == "within" && value != "":
			w.within, _ = time.ParseDuration(value)
		case w.verb != "txn" && slices.Contains(flagWords, word):
			w.opts[word] = "yes"
		case w.verb != "txn" && name != "" && value != "":
			w.opts[name] = value
		default:
			w.args = append(w.args, word)
		}
	}
	return w
}

// valueOf makes a value: x*900000 is many of x.
func valueOf(word string) string {
	var n int
	if _, err := fmt.Sscanf(word, word[:min(1, len(word))]+"*%d", &n); err == nil && n > 0 {
		return strings.Repeat(word[:1], n)
	}
	return word
}

// shown is the reverse.
func shown(value []byte) string {
	if len(value) > 100 {
		return fmt.Sprintf("%c*%d", value[0], len(value))
	}
	return string(value)
}

// TestLinearizable loads servers through etch-client while they are killed,
// paused and cut off, and has every answer explained by an order of all
// requests. What the client does not know must be unknown, and no write may be
// lost or made twice.
func TestLinearizable(t *testing.T) {
	t.Parallel()
	program := rustProgram(t)
	for _, server := range []struct {
		program string
		members int
	}{{"etch", 1}, {"etcd", 3}} {
		t.Run(server.program, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, server.program, server.members, 500*time.Millisecond)
			seed := time.Now().UnixNano() % 1_000_000
			args := append([]string{"load", strconv.FormatInt(loadLength.Milliseconds(), 10), strconv.FormatInt(seed, 10), strconv.Itoa(enoughAnswers)}, w.endpoints()...)
			said := converse(t, w, program, args...)
			t.Logf("seed %d: %q", seed, said)
			var answered, unknown int
			if len(said) != 1 {
				t.Fatalf("seed %d: %s", seed, strings.Join(said, "\n"))
			}
			if _, err := fmt.Sscanf(said[0], "explained %d answers, %d unknown", &answered, &unknown); err != nil {
				t.Fatalf("seed %d: %s", seed, said[0])
			}
			if answered < enoughAnswers {
				t.Errorf("only %d answers", answered)
			}
		})
	}
}

// enoughAnswers is how many etch-client's side waits for, however long it takes.
const enoughAnswers = 200

var loadLength = flag.Duration("load", 12*time.Second, "how long TestLinearizable loads the servers")
