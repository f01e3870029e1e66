#!/usr/bin/env bash
# Builds the OpenTelemetry Collector that the configurations and the tests of this repository run on.
#
#   build.sh            build it unless it is in the cache; the last line on stdout is the binary's path
#   build.sh --path     print the path that the binary has or would have, and build nothing
#   build.sh --update   after a change to manifest.yaml: rewrite modules/go.mod and modules/go.sum
#
# The Collector Builder only generates the sources. Compiling is done here, against the committed module files:
# the builder would run `go mod tidy`, which wants every module of every dependency's tests and picks versions anew.
# modules/go.sum pins the content of every module, which is why the checksum data base is not asked again; it does
# not know all of them. Nothing is written into the checkout, except by --update.
#
# OTEL_AUDIT_CACHE is where the result is kept (default: otel-audit in the user's cache directory).
set -euo pipefail

readonly builder_version=v0.152.0
readonly name=otelcol-audit
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly here
readonly manifest=$here/manifest.yaml modules=$here/modules
cache=${OTEL_AUDIT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/otel-audit}
[[ $cache == /* ]] || cache=$PWD/$cache
readonly cache

say() { printf '%s\n' "$*" >&2; }
die() { say "collector-config/build.sh: $*"; exit 1; }

sha256() { if command -v sha256sum >/dev/null; then sha256sum; else shasum -a 256; fi; }

binary_path() {
  local key
  key=$(cat "$manifest" "$modules/go.mod" "$modules/go.sum" | sha256 | cut -c1-12)
  printf '%s/collector-%s/%s\n' "$cache" "$key" "$name"
}

# at_least 1.26.3 1.25.0: whether the first version is not older than the second.
at_least() {
  local -a have want
  IFS=. read -r -a have <<<"$1"
  IFS=. read -r -a want <<<"$2"
  local i
  for i in 0 1 2; do
    local h=${have[i]:-0} w=${want[i]:-0}
    h=${h%%[!0-9]*}
    w=${w%%[!0-9]*}
    if (( ${h:-0} != ${w:-0} )); then (( ${h:-0} > ${w:-0} )); return; fi
  done
}

check_go() {
  command -v go >/dev/null || die "no 'go' on PATH: install Go (https://go.dev/dl/), or set OTELCOL_BIN to a Collector"
  local need have
  need=$(sed -n 's/^go //p' "$modules/go.mod")
  # Asked inside the module, so that a go command that may fetch a newer toolchain answers with that one.
  have=$(cd "$modules" && go env GOVERSION 2>&1) || die "go $need or newer is needed: ${have##*$'\n'}"
  at_least "${have#go}" "$need" || die "${have} is too old: modules/go.mod needs go $need or newer"
}

# The versions that the manifest names must be the ones that are pinned, or the binary is not what it says.
check_modules() {
  local module version
  while read -r module version; do
    grep -qF "$module $version" "$modules/go.mod" ||
      die "modules/go.mod does not have $module $version of manifest.yaml: run build.sh --update"
  done < <(sed -n 's/^ *- gomod: *//p' "$manifest")
}

# step WHAT COMMAND...: run it with its output on stderr; say in one line why it failed.
step() {
  local what=$1 line
  shift
  say "$what ..."
  if "$@" 2>&1 | tee "$work/step.log" >&2; then return; fi
  if line=$(grep -m1 -E '(401|403|404|407|410|451) [A-Z]' "$work/step.log"); then
    die "$what: the Go module proxy (GOPROXY) does not serve a module that is needed: $line"
  fi
  if line=$(grep -m1 -E 'requires go ?>=' "$work/step.log"); then
    die "$what: Go is too old: $line"
  fi
  if line=$(grep -m1 -E 'missing go.sum entry|updates to go.mod needed|no required module provides' "$work/step.log"); then
    die "$what: modules/ does not fit manifest.yaml, run build.sh --update: $line"
  fi
  die "$what failed: $(tail -n 1 "$work/step.log")"
}

# The sources in $work/generated, and a go.mod that lists the manifest's modules only.
generate() {
  local builder=$cache/builder-$builder_version/builder
  if [[ ! -x $builder ]]; then
    step "Installing the Collector Builder $builder_version" \
      env GOBIN="$work/bin" GOWORK=off CGO_ENABLED=0 go install "go.opentelemetry.io/collector/cmd/builder@$builder_version"
    mkdir -p "$(dirname "$builder")"
    mv -f "$work/bin/builder" "$builder"
  fi
  # `output_path` in the manifest is relative to where the builder runs.
  cd "$work"
  # The builder makes a directory in TMPDIR even so, and leaves it behind.
  step "Generating the sources" env TMPDIR="$work" "$builder" --config="$manifest" --skip-get-modules --skip-compilation
  cd generated
}

# go_modules MOD COMMAND...: a go command on the generated sources, with -mod=MOD.
go_modules() {
  local mod=$1
  shift
  env GOWORK=off GOFLAGS="-buildvcs=false -mod=$mod" GOSUMDB=off CGO_ENABLED=0 "$@"
}

# Sums are collected for each platform, because each compiles other packages.
update() {
  local silent='{{/* only the effect on go.mod and go.sum is wanted */}}'
  generate
  step "Resolving the modules" go_modules mod go list -deps -f "$silent" .
  local platform
  for platform in linux/amd64 linux/arm64 darwin/amd64 darwin/arm64; do
    step "Collecting sums for $platform" \
      go_modules mod env GOOS="${platform%/*}" GOARCH="${platform#*/}" go list -deps -f "$silent" .
  done
  mkdir -p "$modules"
  cp go.mod go.sum "$modules/"
}

build() {
  generate
  cp "$modules/go.mod" "$modules/go.sum" .
  step "Compiling (some minutes the first time)" \
    go_modules readonly go build -trimpath -ldflags='-s -w' -o "$work/$name" .
}

case ${1:-} in
  --path)
    binary_path
    exit
    ;;
  '' | --update) ;;
  *) die "unknown argument '$1' (known: --path, --update)" ;;
esac

if [[ -z ${1:-} ]]; then
  binary=$(binary_path)
  if [[ -x $binary ]]; then
    printf '%s\n' "$binary"
    exit
  fi
  check_modules
fi
check_go

mkdir -p "$cache"
work=$(mktemp -d "$cache/tmp.XXXXXXXX")
readonly work
trap 'cd / && rm -rf "$work"' EXIT

if [[ ${1:-} == --update ]]; then
  update
  say "Rewritten: collector-config/modules/go.mod and go.sum. Now run build.sh, test, and commit them with the manifest."
  exit
fi
build
mkdir -p "$(dirname "$binary")"
mv -f "$work/$name" "$binary"
printf '%s\n' "$binary"
