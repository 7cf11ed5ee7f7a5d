#!/usr/bin/env bash
# Runs the suite of PyPI's aetcd, which ships in its sdist, against etch.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
version=1.0.0

python_tools
if [ ! -d "$work/aetcd-$version" ]; then
  "$venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --no-binary aetcd -d "$work" "aetcd==$version"
  tar -C "$work" -xzf "$work/aetcd-$version.tar.gz"
fi
# Its fixtures call etcdctl by name.
mkdir -p "$work/bin"
ln -sf "${ETCDCTL_BIN:-$target/interop/bin/etcdctl}" "$work/bin/etcdctl"

start_server
cd "$work/aetcd-$version"
rm -f "$work/aetcd.xml"
PATH="$work/bin:$PATH" TEST_ETCD_HTTP_URL="http://127.0.0.1:$port" PYTHONPATH="$PWD" \
  timeout 600 "$venv/bin/python" -m pytest -q -p no:cacheprovider --no-cov -o addopts= --junitxml="$work/aetcd.xml" tests \
  >"$work/aetcd.log" 2>&1 || true
"$venv/bin/python" - "$work/aetcd.xml" "$work/aetcd.passed" "$work/aetcd.failed" <<'PY' || { tail -40 "$work/aetcd.log"; exit 1; }
import sys
import xml.etree.ElementTree as ElementTree

report, passed, failed = sys.argv[1:]
good, bad = set(), set()
for case in ElementTree.parse(report).iter('testcase'):
    name = (case.get('classname') + '.' + case.get('name')).replace(' ', '_')
    if case.find('failure') is not None or case.find('error') is not None:
        bad.add(name)
    elif case.find('skipped') is None:
        good.add(name)
# A test whose clean-up failed is listed twice; it failed.
for path, names in ((passed, good - bad), (failed, bad)):
    with open(path, 'w') as out:
        out.writelines(name + '\n' for name in sorted(names))
PY
judge "$work/aetcd.passed" "$work/aetcd.failed" "$root/tests/clients/aetcd.expected"
