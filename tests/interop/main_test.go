package interop

// Where the programs are that the tests start: the official ones, built once
// from the versions that go.mod pins and kept under target/, and etch itself.

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// official maps the name of a program to the Go package that it is built from
// and the variable that names another copy of it.
var official = map[string]struct{ pkg, env string }{
	"etcd":    {"go.etcd.io/etcd/server/v3", "ETCD_BIN"},
	"etcdctl": {"go.etcd.io/etcd/etcdctl/v3", "ETCDCTL_BIN"},
	"etcdutl": {"go.etcd.io/etcd/etcdutl/v3", "ETCDUTL_BIN"},
	"bbolt":   {"go.etcd.io/bbolt/cmd/bbolt", "BBOLT_BIN"},
}

// programs holds the path of every program, by name; "etch" is among them.
var programs = map[string]string{}

func TestMain(m *testing.M) {
	if err := findPrograms(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func findPrograms() error {
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		return err
	}
	target := os.Getenv("CARGO_TARGET_DIR")
	if target == "" {
		target = filepath.Join(root, "target")
	}
	// Programs are built in other directories than this one, too.
	if target, err = filepath.Abs(target); err != nil {
		return err
	}
	programs["etch"] = os.Getenv("ETCH_BIN")
	if programs["etch"] == "" {
		programs["etch"] = filepath.Join(target, "release", "etch")
	}
	if _, err := os.Stat(programs["etch"]); err != nil {
		return fmt.Errorf("no etch to test (cargo build --release makes it, ETCH_BIN names another): %w", err)
	}
	bin := filepath.Join(target, "interop", "bin")
	findOld(bin)
	for name, o := range official {
		programs[name] = os.Getenv(o.env)
		if programs[name] != "" {
			continue
		}
		programs[name] = filepath.Join(bin, name)
		if err := buildIn(".", bin, name, o.pkg); err != nil {
			return err
		}
	}
	return nil
}

// buildIn builds one program in a module's directory, unless the one that
// stands there was built from the same go.sum.
func buildIn(dir, bin, name, pkg string) error {
	sums, err := os.ReadFile(filepath.Join(dir, "go.sum"))
	if err != nil {
		return err
	}
	mods, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil {
		return err
	}
	want := fmt.Sprintf("%x", sha256.Sum256(append(sums, mods...)))
	stamp := filepath.Join(bin, "."+name+".sum")
	if have, err := os.ReadFile(stamp); err == nil && string(have) == want {
		if _, err := os.Stat(filepath.Join(bin, name)); err == nil {
			return nil
		}
	}
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return err
	}
	cmd := exec.Command("go", "build", "-o", filepath.Join(bin, name), pkg)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building %s: %w\n%s", pkg, err, out)
	}
	return os.WriteFile(stamp, []byte(want), 0o644)
}
