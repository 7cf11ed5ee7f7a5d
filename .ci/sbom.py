#!/usr/bin/env python3
"""The bill of materials of the etch program, as CycloneDX 1.5 JSON on stdout:
every crate that is linked into it, with version, licence, source and hash.
Taken from `cargo metadata` and Cargo.lock; needs no network."""
import json
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def linked(meta, root):
    """The packages that `root` needs to run, without those for tests and builds alone."""
    nodes = {n["id"]: n for n in meta["resolve"]["nodes"]}
    seen, todo = set(), [root]
    while todo:
        at = todo.pop()
        if at in seen:
            continue
        seen.add(at)
        for dep in nodes[at]["deps"]:
            if any(kind["kind"] is None for kind in dep["dep_kinds"]):
                todo.append(dep["pkg"])
    return seen


def component(package, sums):
    name, version = package["name"], package["version"]
    out = {
        "type": "library",
        "name": name,
        "version": version,
        "purl": f"pkg:cargo/{name}@{version}",
        "bom-ref": f"{name}@{version}",
        "licenses": [{"expression": (package["license"] or "NOASSERTION").replace("/", " OR ")}],
    }
    if package.get("repository"):
        out["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    if (name, version) in sums:
        out["hashes"] = [{"alg": "SHA-256", "content": sums[name, version]}]
    return out


def main():
    meta = json.loads(
        subprocess.check_output(
            ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", "x86_64-unknown-linux-gnu"],
            cwd=ROOT,
        )
    )
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())
    sums = {(p["name"], p["version"]): p["checksum"] for p in lock["package"] if "checksum" in p}
    packages = {p["id"]: p for p in meta["packages"]}
    root = next(p for p in meta["packages"] if p["name"] == "etch" and p["source"] is None)
    used = linked(meta, root["id"]) - {root["id"]}
    parts = sorted((component(packages[i], sums) for i in used), key=lambda c: c["bom-ref"])
    bare = [c["bom-ref"] for c in parts if "hashes" not in c and not c["name"].startswith("etch-")]
    if bare or not parts:
        sys.exit(f"no hash for {bare}")
    json.dump(
        {
            "bomFormat": "CycloneDX",
            "specVersion": "1.5",
            "version": 1,
            "metadata": {"component": {"type": "application", "name": "etch", "version": root["version"]}},
            "components": parts,
        },
        sys.stdout,
        indent=1,
    )
    print()


if __name__ == "__main__":
    main()
