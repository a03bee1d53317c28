#!/usr/bin/env bash
# Makes what is in this folder: an authority that only tests trust, and a certificate of its for
# 127.0.0.1 that expired in 2020, with its key. Run again only to replace them.
set -euo pipefail
cd "$(dirname "$0")"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"; }

key "$work/ca.key"
openssl req -x509 -new -key "$work/ca.key" -days 36500 -subj "/CN=voxgate tests" \
  -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign" -out authority.pem

key expired.key
openssl req -new -key expired.key -subj "/CN=127.0.0.1" -out "$work/expired.csr"
touch "$work/index.txt"
echo 01 > "$work/serial"
cat > "$work/ca.cnf" <<CNF
[ca]
default_ca = tests
[tests]
database = $work/index.txt
serial = $work/serial
new_certs_dir = $work
default_md = sha256
policy = any
x509_extensions = leaf
[any]
commonName = supplied
[leaf]
basicConstraints = critical, CA:FALSE
subjectAltName = IP:127.0.0.1
extendedKeyUsage = serverAuth
CNF
openssl ca -batch -config "$work/ca.cnf" -cert authority.pem -keyfile "$work/ca.key" -notext \
  -startdate 20200101000000Z -enddate 20200201000000Z -in "$work/expired.csr" -out expired.pem
