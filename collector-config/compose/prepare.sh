#!/bin/sh
# Makes an authority and two certificates in /tls, unless they are there, and gives /data to the Collectors' user.
set -eu
cd "${TLS_DIR:-/tls}"

certificate() { # NAME ALTERNATIVE_NAMES
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$1.key" -out "$1.csr" -subj "/CN=$1"
  printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth,clientAuth\n' "$2" >"$1.ext"
  openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 825 -extfile "$1.ext" -out "$1.crt"
  rm "$1.csr" "$1.ext"
}

if [ ! -f done ]; then
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -keyout ca.key -out ca.crt \
    -subj "/CN=otel-audit compose" -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign
  certificate tls DNS:gateway,DNS:localhost,IP:127.0.0.1
  certificate agent DNS:agent
  touch done
fi

user=${COLLECTOR_USER:-10001}
chown "$user" ./*.crt ./*.key
chmod 0400 ./*.key
for directory in ${DATA_DIRECTORIES:-/data/agent /data/files}; do
  chown "$user" "$directory"
  chmod 0750 "$directory"
done
