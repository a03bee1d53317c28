#!/usr/bin/env bash
# What it costs to forward a request: nginx, Pingora by itself, and voxgate, in front of the same origin (an nginx
# that answers from memory), all with kept connections to it, with one worker and with two.
# proxy.sh [ROUNDS] [SECONDS] [RATE]
#
# They take turns, round by round, so that what else the machine does hits all of them. In a round each has
# SECONDS of 64 connections of wrk that never wait: µs of CPU a request, of all its processes (/proc/PID/stat),
# the least of the rounds and the median; and as long of hey at RATE requests a second (a tenth of it for what is
# large): p50 and p99, the median. Everything shares the machine: the figure to compare is CPU a request, and its
# ratio to `bare`'s, by the least.
#
# Bodies: an answer of 100 bytes, an answer of 1 MiB, an upload of 1 MiB. nginx and `bare-told` tell the origin where
# a request came from in three headers, voxgate in four, with one for the client, and `bare` not at all.
# `voxgate-quiet` logs no requests, nor do the others but voxgate. `plain`, where PLAIN names a program, is `bare`
# built in another way. LIMIT=1.05 fails where voxgate costs more than that many times what `bare` does.
#
# Wants nginx, wrk and hey (Debian), and: cargo build --release --bins --examples
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
release="${CARGO_TARGET_DIR:-target}/release"
voxgate="${VOXGATE:-$release/voxgate}" bare="${BARE:-$release/examples/bare_proxy}" nginx="${NGINX:-nginx}"
rounds="${1:-5}" seconds="${2:-2}" rate="${3:-1000}"
proxies="${PROXIES:-nginx bare bare-told ${PLAIN:+plain }voxgate voxgate-quiet}" workers="${WORKERS:-1 2}" bodies="${BODIES:-small large upload}"
for program in "$voxgate" "$bare" "$nginx" wrk hey; do
  command -v "$program" >/dev/null || { echo "$program is missing" >&2; exit 2; }
done
origin=9361 connections=20
folder="$(mktemp -d)"
trap 'kill -INT $(jobs -p) 2>/dev/null || true; sleep 1; kill -KILL $(jobs -p) 2>/dev/null || true; rm -rf "$folder"' EXIT
chmod 755 "$folder"
mkdir "$folder/www"
head -c 100 /dev/zero | tr '\0' x >"$folder/www/small"
head -c 1048576 /dev/zero | tr '\0' x >"$folder/www/large"
cat >"$folder/upload.lua" <<'LUA'
wrk.method = "POST"
wrk.body = string.rep("x", 1048576)
LUA

# nginx_conf NAME WORKERS, with the http block on stdin.
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
  client_max_body_size 0;
  $(cat)
}
CONF
}

nginx_conf origin 1 <<CONF
  server {
    listen 127.0.0.1:$origin backlog=1024;
    root $folder/www;
    open_file_cache max=10;
    # The whole body first, and then the answer.
    location = /upload {
      client_body_buffer_size 2m;
      proxy_method GET;
      proxy_pass_request_body off;
      proxy_set_header Content-Length "";
      proxy_pass http://127.0.0.1:$origin/small;
    }
  }
CONF
"$nginx" -p "$folder" -c "$folder/origin.conf" 2>/dev/null &

declare -A process=() port=()
next=$((origin + 1))

# start NAME WORKERS
start() {
  local at="127.0.0.1:$next" level
  port[$1]=$next
  case "$1" in
  nginx)
    # Neither writes a body to disk, as the others do not.
    nginx_conf "$1" "$2" <<CONF
  upstream app { server 127.0.0.1:$origin; keepalive 128; keepalive_requests 1000000000; }
  server {
    listen $at backlog=1024;
    proxy_max_temp_file_size 0;
    proxy_request_buffering off;
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
    "$nginx" -p "$folder" -c "$folder/$1.conf" 2>/dev/null &
    ;;
  bare) "$bare" "$at" "127.0.0.1:$origin" "$2" 2>/dev/null & ;;
  bare-told) "$bare" "$at" "127.0.0.1:$origin" "$2" told 2>/dev/null & ;;
  plain) "$PLAIN" "$at" "127.0.0.1:$origin" "$2" 2>/dev/null & ;;
  voxgate*)
    cat >"$folder/$1.toml" <<TOML
[server]
listen = "$at"
threads = $2
[admin]
listen = "127.0.0.1:$((next + 1))"
[limits]
max_body_mb = 0
[upstreams.app]
servers = ["127.0.0.1:$origin"]
TOML
    case "$1" in *-quiet) level=warn ;; *) level=info,pingora_core=warn,pingora_proxy=error ;; esac
    RUST_LOG="$level" "$voxgate" run --config "$folder/$1.toml" 2>"$folder/$1.log" &
    ;;
  esac
  process[$1]=$!
  next=$((next + 2))
  for _ in $(seq 100); do
    curl -sfo /dev/null "http://$at/small" && return
    sleep 0.1
  done
  echo "$1 does not come up" >&2
  exit 1
}

# User and system time so far, in ticks, of a proxy and its workers.
ticks() {
  cat "/proc/$1/stat" $(for child in $(pgrep -P "$1"); do echo "/proc/$child/stat"; done) |
    awk '{ user += $14; kernel += $15 } END { print user, kernel }'
}

# load SECONDS NAME BODY
load() {
  local script=()
  [ "$3" != upload ] || script=(-s "$folder/upload.lua")
  wrk -t1 -c64 "-d$1s" "${script[@]}" "http://127.0.0.1:${port[$2]}/$3"
}

# pace NAME BODY
pace() {
  local at="$rate" what=()
  [ "$2" = small ] || at=$((rate / 10))
  [ "$2" != upload ] || what=(-m POST -D "$folder/www/large")
  hey -z "${seconds}s" -c "$connections" -q $((at / connections)) "${what[@]}" "http://127.0.0.1:${port[$1]}/$2"
}

hertz="$(getconf CLK_TCK)"
measure() {
  local before after
  before="$(ticks "${process[$1]}")"
  load "$seconds" "$1" "$2" >"$folder/wrk"
  after="$(ticks "${process[$1]}")"
  pace "$1" "$2" >"$folder/hey"
  if grep -q 'Non-2xx\|Socket errors' "$folder/wrk" || grep -q 'Error distribution' "$folder/hey"; then
    cat "$folder/wrk" "$folder/hey" >&2
    exit 1
  fi
  awk -v name="$1" -v hertz="$hertz" -v before="$before" -v after="$after" '
    /requests in/ { requests = $1 }
    /^Requests\/sec:/ && !rps { rps = $2 }
    $1 ~ /^50%%?$/ { p50 = $3 }
    $1 ~ /^99%%?$/ { p99 = $3 }
    END {
      split(before, b); split(after, a)
      user = 1e6 * (a[1] - b[1]) / hertz / requests
      kernel = 1e6 * (a[2] - b[2]) / hertz / requests
      print name, user + kernel, user, kernel, rps, 1000 * p50, 1000 * p99
    }' "$folder/wrk" "$folder/hey"
}

# Of CPU the least of the rounds and their median: what else runs only ever adds to it. Of the rest the median.
summary='
  function sorted(name, column,   i, j, swap) {
    for (i = 1; i <= n[name]; i++) {
      list[i] = value[name, i, column]
      for (j = i; j > 1 && list[j - 1] > list[j]; j--) { swap = list[j]; list[j] = list[j - 1]; list[j - 1] = swap }
    }
    return n[name]
  }
  function median(name, column,   of) {
    of = sorted(name, column)
    return of % 2 ? list[(of + 1) / 2] : (list[of / 2] + list[of / 2 + 1]) / 2
  }
  function least(name, column) { sorted(name, column); return list[1] }
  { n[$1]++; for (c = 2; c <= 7; c++) value[$1, n[$1], c] = $c }
  END {
    of = split(proxies, names, " ")
    for (p = 1; p <= of; p++) {
      name = names[p]
      ratio = n["bare"] ? least(name, 2) / least("bare", 2) : 0
      printf "%-14s %-8s %-6s %7.1f/%7.1f %7.2f %8.1f %8.1f %9.0f %8.2f %8.2f\n", name, workers, body, least(name, 2), \
        median(name, 2), ratio, least(name, 3), least(name, 4), median(name, 5), median(name, 6), median(name, 7)
      if (limit && name == "voxgate" && ratio > limit) over = 1
    }
    exit over
  }'

over=0
printf '%-14s %-8s %-6s %15s %7s %8s %8s %9s %8s %8s\n' \
  proxy workers body 'CPU/req µs' '× bare' user system 'req/s' 'p50 ms' 'p99 ms'
for number in $workers; do
  for name in $proxies; do start "$name" "$number"; done
  for body in $bodies; do
    for name in $proxies; do load 1 "$name" "$body" >/dev/null; done
    for _ in $(seq "$rounds"); do
      for name in $proxies; do measure "$name" "$body"; done
    done >"$folder/rounds"
    awk -v proxies="$proxies" -v workers="$number" -v body="$body" -v limit="${LIMIT:-0}" "$summary" \
      "$folder/rounds" || over=1
  done
  # At once: at SIGTERM Pingora by itself would wait for five minutes.
  for name in $proxies; do
    kill -INT "${process[$name]}"
    wait "${process[$name]}" 2>/dev/null || true
  done
done
exit "$over"
