package interop

// The page that shows clientv3 and etch-client side by side leaves nothing out:
// every function, method and field of the configuration that clientv3 and its
// packages export is named there.

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// exported gives what a package's files export, by name.
func exported(t testing.TB, dir string) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	take := func(name *ast.Ident) {
		if name.IsExported() {
			names[name.Name] = true
		}
	}
	files := token.NewFileSet()
	ours := func(f fs.FileInfo) bool { return !strings.HasSuffix(f.Name(), "_test.go") }
	packages := ok[map[string]*ast.Package](t)(parser.ParseDir(files, dir, ours, 0))
	for _, p := range packages {
		ast.Inspect(p, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				receiver := ""
				if n.Recv != nil {
					of := n.Recv.List[0].Type
					if star, is := of.(*ast.StarExpr); is {
						of = star.X
					}
					receiver = of.(*ast.Ident).Name
				}
				if receiver == "" || ast.IsExported(receiver) {
					take(n.Name)
				}
				return false
			case *ast.TypeSpec:
				if methods, is := n.Type.(*ast.InterfaceType); is && n.Name.IsExported() {
					for _, m := range methods.Methods.List {
						for _, name := range m.Names {
							take(name)
						}
					}
				}
				if fields, is := n.Type.(*ast.StructType); is && n.Name.Name == "Config" {
					for _, f := range fields.Fields.List {
						for _, name := range f.Names {
							take(name)
						}
					}
				}
			case *ast.ValueSpec:
				for _, name := range n.Names {
					if strings.HasPrefix(name.Name, "Err") {
						take(name)
					}
				}
			}
			return true
		})
	}
	return names
}

func TestClientPage(t *testing.T) {
	t.Parallel()
	page := string(ok[[]byte](t)(os.ReadFile(filepath.Join("..", "..", "docs", "client.md"))))
	said := map[string]bool{}
	for _, word := range regexp.MustCompile(`\w+`).FindAllString(page, -1) {
		said[word] = true
	}
	where := ok[[]byte](t)(exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "go.etcd.io/etcd/client/v3").Output())
	root, count := strings.TrimSpace(string(where)), 0
	for _, dir := range []string{"", "concurrency", "leasing", "mirror", "namespace", "naming/endpoints", "naming/resolver", "ordering", "snapshot", "yaml"} {
		for name := range exported(t, filepath.Join(root, dir)) {
			// What every error and every answer of Go's has.
			if name == "Error" || name == "OpResponse" {
				continue
			}
			count++
			if !said[name] {
				t.Errorf("docs/client.md does not name %s of clientv3/%s", name, dir)
			}
		}
	}
	if count < 200 {
		t.Errorf("only %d names found", count)
	}
}
