#!/usr/bin/env bash
# What 10,000 watches and 100,000 leases kept alive cost one process: etch-client
# and Go's clientv3, each against a fresh server. SERVER names it (an etcd, or
# target/release/etch by default); the arguments are those of the example `many`,
# and PROFILE (release by default) is how it is built.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
server=${SERVER:-$target/release/etch}
profile=${PROFILE:-release}
built=$target/${profile/#dev/debug}/examples
work=$(mktemp -d)
pid=""
stop() {
  [ -z "$pid" ] || { kill "$pid" && wait "$pid" || true; }
  pid=""
}
trap 'stop; rm -rf "$work"' EXIT

cargo build --quiet --profile "$profile" -p etch-client --example many --manifest-path "$root/Cargo.toml"
(cd "$root/tests/interop" && go build -o "$work/many-go" ./many)

for client in "$built/many" "$work/many-go"; do
  port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
  rm -rf "$work/data"
  "$server" --data-dir="$work/data" --listen-client-urls="http://127.0.0.1:$port" \
    --advertise-client-urls="http://127.0.0.1:$port" --listen-peer-urls=http://127.0.0.1:0 >"$work/log" 2>&1 &
  pid=$!
  for _ in $(seq 300); do
    grep -q 'ready to serve client requests' "$work/log" && break
    sleep 0.1
  done
  echo "== $(basename "$client")"
  ETCDCTL_ENDPOINTS=127.0.0.1:$port "$client" "$@"
  stop
done
