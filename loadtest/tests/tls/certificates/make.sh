#!/usr/bin/env bash
# Makes the certificates beside this file anew. They are for tests alone, their keys are public, and all but the one
# that has to be expired are valid for 100 years. Needs openssl.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
key=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes)

# authority NAME: a self-signed authority.
authority() {
  openssl req -x509 "${key[@]}" -keyout "$1.key" -out "$1.pem" -days 36500 -subj "/CN=Fantail test $1" \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign
}

# server NAME SUBJECT_NAMES FROM UNTIL: a certificate signed by ca; times as YYYYMMDDHHMMSSZ.
server() {
  openssl req -new "${key[@]}" -keyout "$1.key" -out "$work/$1.csr" -subj "/CN=Fantail test $1"
  printf 'basicConstraints=critical,CA:FALSE\nextendedKeyUsage=serverAuth\nsubjectAltName=%s\n' "$2" >"$work/$1.ext"
  : >"$work/index.txt"
  openssl ca -batch -notext -config <(printf '%s\n' '[ca]' 'default_ca=d' '[d]' "database=$work/index.txt" \
    "new_certs_dir=$work" 'default_md=sha256' 'policy=p' 'rand_serial=yes' '[p]' 'commonName=supplied') \
    -cert ca.pem -keyfile ca.key -in "$work/$1.csr" -out "$1.pem" -extfile "$work/$1.ext" \
    -startdate "$3" -enddate "$4"
}

# own NAME: a server's that has signed itself, with a key of RSA that takes milliseconds to sign with.
own() {
  openssl req -new -newkey rsa:4096 -nodes -keyout "$1.key" -out "$work/$1.csr" -subj "/CN=Fantail test $1"
  printf 'basicConstraints=critical,CA:FALSE\nextendedKeyUsage=serverAuth\nsubjectAltName=%s\n' "$2" >"$work/$1.ext"
  : >"$work/index.txt"
  openssl ca -batch -notext -selfsign -config <(printf '%s\n' '[ca]' 'default_ca=d' '[d]' "database=$work/index.txt" \
    "new_certs_dir=$work" 'default_md=sha256' 'policy=p' 'rand_serial=yes' '[p]' 'commonName=supplied') \
    -keyfile "$1.key" -in "$work/$1.csr" -out "$1.pem" -extfile "$work/$1.ext" \
    -startdate 20200101000000Z -enddate 21200101000000Z
}

authority ca
authority other
server server DNS:localhost,IP:127.0.0.1 20200101000000Z 21200101000000Z
server elsewhere DNS:elsewhere.example 20200101000000Z 21200101000000Z
server expired DNS:localhost,IP:127.0.0.1 20200101000000Z 20210101000000Z
server future DNS:localhost,IP:127.0.0.1 21190101000000Z 21200101000000Z
own rsa4096 DNS:localhost,IP:127.0.0.1
rm other.key ca.key
