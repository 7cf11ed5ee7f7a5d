#!/usr/bin/env bash
# Runs the tests and the examples of the Rust crate etcd-client, which ship in
# the crate, against etch.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

# Its build script calls protoc; the one in grpcio-tools is at hand everywhere.
python_tools
cat >"$work/protoc" <<SH
#!/bin/sh
exec "$venv/bin/python" -m grpc_tools.protoc "\$@"
SH
chmod +x "$work/protoc"
export PROTOC=$work/protoc

manifest=$(cargo metadata --locked --format-version 1 --manifest-path "$root/tests/clients/etcd-client/Cargo.toml" |
  python3 -c 'import json, sys; print(next(p["manifest_path"] for p in json.load(sys.stdin)["packages"] if p["name"] == "etcd-client"))')
source=$work/etcd-client
rm -rf "$source"
cp -r "$(dirname "$manifest")" "$source"
chmod -R u+w "$source"
printf '\n[workspace]\n' >>"$source/Cargo.toml"

start_server
# The tests name a fixed port; give them this server's.
grep -rl 2379 "$source/tests" "$source/examples" | xargs sed -i "s/localhost:2379/127.0.0.1:$port/g; s/127\.0\.0\.1:2379/127.0.0.1:$port/g; s/\[::1\]:2379/127.0.0.1:$port/g"
cd "$source"
export CARGO_TARGET_DIR=$work/etcd-client-target
# Only what is run, and nothing that only a debugger reads.
export CARGO_PROFILE_DEV_DEBUG=0 CARGO_PROFILE_TEST_DEBUG=0 CARGO_INCREMENTAL=0
cargo test --locked --quiet --no-run --test client --test namespace --examples
: >"$work/etcd-client.log"
# One at a time: alarms and users of one test are seen by the others.
timeout 600 cargo test --locked --test client --test namespace --no-fail-fast -- --include-ignored --skip test_cluster --test-threads=1 \
  >>"$work/etcd-client.log" 2>&1 || true
for example in kv lease lock maintenance namespace watch election auth auth_role auth_user cluster; do
  if timeout 60 cargo run --locked --quiet --example "$example" >>"$work/etcd-client.log" 2>&1; then
    echo "test example_$example ... ok"
  else
    echo "test example_$example ... FAILED"
  fi
done >"$work/etcd-client.examples"
cat "$work/etcd-client.examples" >>"$work/etcd-client.log"
sed -nE 's/^test ([^ ]+) .*\.\.\. ok$/\1/p' "$work/etcd-client.log" >"$work/etcd-client.passed"
sed -nE 's/^test ([^ ]+) .*\.\.\. FAILED$/\1/p' "$work/etcd-client.log" >"$work/etcd-client.failed"
judge "$work/etcd-client.passed" "$work/etcd-client.failed" "$root/tests/clients/etcd-client.expected"
