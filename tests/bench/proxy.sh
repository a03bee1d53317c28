#!/usr/bin/env bash
# What it costs to forward a request: nginx, Pingora by itself, and voxgate, in front of the same origin (an
# nginx that answers from memory), with one worker and with two. proxy.sh [SECONDS] [RATE]: so long for each
# figure; RATE requests a second for the latency.
#
# For each: µs of CPU a request, user and system (/proc/PID/stat), and requests a second, both under 64
# connections of wrk that never wait; and p50 and p99 at a fixed rate, with hey. Everything shares the machine:
# the figure to compare is CPU a request.
#
# Wants nginx, wrk and hey (Debian), and: cargo build --release --bins --examples
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
release="${CARGO_TARGET_DIR:-target}/release"
voxgate="${VOXGATE:-$release/voxgate}" bare="${BARE:-$release/examples/bare_proxy}" nginx="${NGINX:-nginx}"
seconds="${1:-4}" rate="${2:-1000}"
proxies="${PROXIES:-nginx bare voxgate voxgate-quiet}" workers="${WORKERS:-1 2}" bodies="${BODIES:-small large}"
for program in "$voxgate" "$bare" "$nginx" wrk hey; do
  command -v "$program" >/dev/null || { echo "$program is missing" >&2; exit 2; }
done
origin=9361 port=9362 connections=20
folder="$(mktemp -d)"
trap 'kill -INT $(jobs -p) 2>/dev/null || true; wait; rm -rf "$folder"' EXIT
chmod 755 "$folder"
mkdir "$folder/www"
head -c 1000 /dev/zero | tr '\0' x >"$folder/www/small"
head -c 500000 /dev/zero | tr '\0' x >"$folder/www/large"

# nginx.conf NAME WORKERS, with the http block on stdin.
nginx_conf() {
  mkdir -p "$folder/$1"
  cat >"$folder/$1.conf" <<CONF
worker_processes $2;
daemon off;
pid $folder/$1.pid;
error_log $folder/$1.log warn;
events { worker_connections 1024; }
http {
  access_log off;
  client_body_temp_path $folder/$1/body;
  proxy_temp_path $folder/$1/proxy;
  fastcgi_temp_path $folder/$1/fastcgi;
  uwsgi_temp_path $folder/$1/uwsgi;
  scgi_temp_path $folder/$1/scgi;
  keepalive_requests 1000000000;
  $(cat)
}
CONF
}

nginx_conf origin 1 <<CONF
  server { listen 127.0.0.1:$origin backlog=1024; root $folder/www; open_file_cache max=10; }
CONF
"$nginx" -p "$folder" -c "$folder/origin.conf" 2>/dev/null &

start() {
  case "$1" in
  nginx)
    nginx_conf proxy "$2" <<CONF
  upstream app { server 127.0.0.1:$origin; keepalive 128; keepalive_requests 1000000000; }
  server {
    listen 127.0.0.1:$port backlog=1024;
    location / {
      proxy_pass http://app;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host \$host;
      proxy_set_header X-Forwarded-For \$remote_addr;
      proxy_set_header X-Forwarded-Proto \$scheme;
      proxy_set_header X-Request-Id \$request_id;
    }
  }
CONF
    "$nginx" -p "$folder" -c "$folder/proxy.conf" 2>/dev/null &
    ;;
  bare) "$bare" "127.0.0.1:$port" "127.0.0.1:$origin" "$2" 2>/dev/null & ;;
  voxgate*)
    cat >"$folder/gateway.toml" <<TOML
[server]
listen = "127.0.0.1:$port"
threads = $2
[admin]
listen = "127.0.0.1:$((port + 1))"
[upstreams.app]
servers = ["127.0.0.1:$origin"]
TOML
    # Each request is a line of the log; or, as with nginx here, none is.
    case "$1" in *-quiet) level=warn ;; *) level=info,pingora_core=warn,pingora_proxy=error ;; esac
    RUST_LOG="$level" "$voxgate" run --config "$folder/gateway.toml" 2>"$folder/log" &
    ;;
  esac
  proxy=$!
  for _ in $(seq 100); do
    curl -so /dev/null "http://127.0.0.1:$port/small" && return
    sleep 0.1
  done
  echo "$1 does not come up" >&2
  exit 1
}

# User and system time so far, in ticks, of the proxy and its workers.
ticks() {
  cat "/proc/$proxy/stat" $(for child in $(pgrep -P "$proxy"); do echo "/proc/$child/stat"; done) |
    awk '{ user += $14; kernel += $15 } END { print user, kernel }'
}

hertz="$(getconf CLK_TCK)"
printf '%-14s %-8s %-6s %10s %8s %8s %10s %9s %9s\n' \
  proxy workers body 'µs CPU/req' user system 'req/s' 'p50 ms' 'p99 ms'
for number in $workers; do
  for name in $proxies; do
    start "$name" "$number"
    for body in $bodies; do
      url="http://127.0.0.1:$port/$body"
      wrk -t1 -c64 -d1s "$url" >/dev/null
      before="$(ticks)"
      wrk -t1 -c64 "-d${seconds}s" "$url" >"$folder/wrk"
      after="$(ticks)"
      at="$rate"
      [ "$body" = small ] || at=$((rate / 10))
      hey -z "${seconds}s" -c "$connections" -q $((at / connections)) "$url" >"$folder/hey"
      if grep -q 'Non-2xx\|Socket errors' "$folder/wrk" || grep -q 'Error distribution' "$folder/hey"; then
        cat "$folder/wrk" "$folder/hey" >&2
        exit 1
      fi
      awk -v name="$name" -v workers="$number" -v body="$body" -v hertz="$hertz" \
        -v before="$before" -v after="$after" '
        /requests in/ { requests = $1 }
        /^Requests\/sec:/ && !rps { rps = $2 }
        $1 ~ /^50%%?$/ { p50 = $3 }
        $1 ~ /^99%%?$/ { p99 = $3 }
        END {
          split(before, b); split(after, a)
          user = 1e6 * (a[1] - b[1]) / hertz / requests
          kernel = 1e6 * (a[2] - b[2]) / hertz / requests
          # hey leaves out what so few answers do not tell.
          last = p99 ? sprintf("%.2f", 1000 * p99) : "-"
          printf "%-14s %-8s %-6s %10.1f %8.1f %8.1f %10.0f %9.2f %9s\n", \
            name, workers, body, user + kernel, user, kernel, rps, 1000 * p50, last
        }' "$folder/wrk" "$folder/hey"
    done
    # At once: at SIGTERM Pingora by itself would wait for five minutes.
    kill -INT "$proxy"
    wait "$proxy" 2>/dev/null || true
  done
done
