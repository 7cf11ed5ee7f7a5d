#!/usr/bin/env bash
# Runs the suite of PyPI's etcd3gw, a client of the JSON gateway, which ships in its sdist, against etch.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
version=2.7.0

python_tools
if [ ! -d "$work/etcd3gw-$version" ]; then
  "$venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --no-binary etcd3gw -d "$work" "etcd3gw==$version"
  tar -C "$work" -xzf "$work/etcd3gw-$version.tar.gz"
fi

start_server
cd "$work/etcd3gw-$version"
rm -f "$work/etcd3gw.xml"
TOOZ_TEST_HTTP_URL="http://127.0.0.1:$port" TOOZ_TEST_ETCD_PORT="$port" PYTHONPATH="$PWD" \
  timeout 600 "$venv/bin/python" -m pytest -q -p no:cacheprovider --no-cov -o addopts= --junitxml="$work/etcd3gw.xml" etcd3gw/tests \
  >"$work/etcd3gw.log" 2>&1 || true
"$venv/bin/python" "$root/tests/clients/junit.py" "$work/etcd3gw.xml" "$work/etcd3gw.passed" "$work/etcd3gw.failed" || { tail -40 "$work/etcd3gw.log"; exit 1; }
judge "$work/etcd3gw.passed" "$work/etcd3gw.failed" "$root/tests/clients/etcd3gw.expected"
