# What the client scripts share: a server to talk to, and the tools to build
# with. Sourced, not run. ETCH_BIN names the server (default target/release/etch).

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
etch=${ETCH_BIN:-$target/release/etch}
work=$target/clients
venv=$work/venv
mkdir -p "$work"

# python_tools makes the virtual environment once for each requirements.txt.
python_tools() {
  local want have=""
  want=$(sha256sum <"$root/tests/clients/requirements.txt")
  [ -f "$venv/.made" ] && have=$(cat "$venv/.made")
  [ "$want" = "$have" ] && return
  rm -rf "$venv"
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$root/tests/clients/requirements.txt"
  printf '%s\n' "$want" >"$venv/.made"
}

server_pid=""
server_dir=""

# start_server starts a fresh server and sets $port and $server_pid.
start_server() {
  server_dir=$(mktemp -d)
  port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
  "$etch" --data-dir="$server_dir/data" --listen-client-urls="http://127.0.0.1:$port" \
    --advertise-client-urls="http://127.0.0.1:$port" --listen-peer-urls=http://127.0.0.1:0 \
    >"$server_dir/log" 2>&1 &
  server_pid=$!
  trap stop_server EXIT
  for _ in $(seq 600); do
    grep -q 'ready to serve client requests' "$server_dir/log" && return
    kill -0 "$server_pid" 2>/dev/null || break
    sleep 0.1
  done
  echo "the server does not serve:" >&2
  tail -20 "$server_dir/log" >&2
  return 1
}

stop_server() {
  [ -n "$server_pid" ] || return 0
  kill "$server_pid" 2>/dev/null || true
  wait "$server_pid" 2>/dev/null || true
  server_pid=""
  rm -rf "$server_dir"
}

# judge PASSED FAILED EXPECTED compares two files of test names with the list
# of the failures that are known, prints a sum and fails on any other.
judge() {
  local passed=$1 failed=$2 expected=$3 names unknown
  names=$(awk 'NF && !/^#/ {print $1}' "$expected" | sort -u)
  unknown=$(comm -23 <(sort -u "$failed") <(printf '%s\n' "$names"))
  comm -12 <(sort -u "$failed") <(printf '%s\n' "$names") | sed 's/^/fails as known: /'
  comm -12 <(sort -u "$passed") <(printf '%s\n' "$names") | sed 's/^/passes though listed as failing: /'
  local bad=0
  if [ -n "$unknown" ]; then
    bad=$(printf '%s\n' "$unknown" | wc -l)
    printf '%s\n' "$unknown" | sed 's/^/FAILED: /'
  fi
  echo "$(wc -l <"$passed") passed, $bad failed"
  if [ "$(wc -l <"$passed")" -eq 0 ]; then
    echo "no test ran" >&2
    return 1
  fi
  [ "$bad" -eq 0 ]
}
