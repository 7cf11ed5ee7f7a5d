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
"$venv/bin/python" "$root/tests/clients/junit.py" "$work/aetcd.xml" "$work/aetcd.passed" "$work/aetcd.failed" || { tail -40 "$work/aetcd.log"; exit 1; }
judge "$work/aetcd.passed" "$work/aetcd.failed" "$root/tests/clients/aetcd.expected"
