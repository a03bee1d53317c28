#!/usr/bin/env bash
# Installs what the integration tests start as child processes: system packages, the Python
# environment .venv in the project root, and the Node packages of tests/node. Safe to run before
# every test run: when nothing has changed it only looks, and is done in well under a second.
set -euo pipefail

tests="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$(dirname "$tests")"
venv="$root/.venv"
stamp="$venv/.installed-from"

as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi; }

# --- System packages: a name is wanted only when the command it brings is missing.
wanted=()
need() { command -v "$1" >/dev/null || wanted+=("${@:2}"); }
need cc build-essential
need make build-essential
need cmake cmake
need espeak-ng espeak-ng
need flite flite
need sox sox
need curl curl
need openssl openssl
need valgrind valgrind
need node nodejs npm
need npm npm
need python3 python3 python3-venv
if command -v python3 >/dev/null && ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
  wanted+=(python3-venv)
fi
# sox knows MP3 only by a package of its own.
grep -qw mp3 <<<"$(sox --help 2>/dev/null)" || wanted+=(libsox-fmt-mp3)
if [ "${#wanted[@]}" -gt 0 ]; then
  export DEBIAN_FRONTEND=noninteractive
  install() { as_root apt-get install -y --no-install-recommends "${wanted[@]}"; }
  install || { as_root apt-get update && install; }
fi

# --- Python and Node packages: again only when what they are made from has changed.
recipe() {
  python3 --version
  node --version
  (cd "$tests" && sha256sum setup.sh requirements.txt node/package.json node/package-lock.json)
}
recipe="$(recipe)"
if [ -d "$tests/node/node_modules/ws" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$recipe" ] &&
  "$venv/bin/python" -c '' 2>/dev/null; then
  exit 0
fi

python3 -m venv --clear "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
  -r "$tests/requirements.txt"
# Pipecat also asks for what runs its speech models: 300 MB that the tests' bot never imports.
left_out='^pipecat-ai .* requires (markdown|num2words|numba|onnxruntime|python-dotenv|pyyaml|resampy|soundfile), which is not installed'
broken="$("$venv/bin/python" -m pip --disable-pip-version-check check | grep -Ev "$left_out|^No broken" || true)"
[ -z "$broken" ] || { printf '%s\n' "$broken" >&2; exit 1; }
npm --prefix "$tests/node" ci --silent
# Programs only, not installed: as packages they would be services, one of them at the gateway's own port.
(
  cd "$venv"
  for package in prometheus pebble; do
    apt-get download -qq "$package" 2>/dev/null ||
      { as_root apt-get update && apt-get download -qq "$package"; }
    dpkg -x "$package"_*.deb "$package"
  done
)
printf '%s\n' "$recipe" >"$stamp"
