#!/usr/bin/env bash
# Fetches promtool for the tests of the alert rules, out of Debian's package, unless it is there; the last line on stdout is
# its path. With --path it only prints that. The package itself is not installed: it would start a server.
set -euo pipefail

cache=${OTEL_AUDIT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/otel-audit}
[[ $cache == /* ]] || cache=$PWD/$cache
readonly tool=$cache/promtool/promtool

die() { printf 'tests/engines/promtool.sh: %s\n' "$*" >&2; exit 1; }

if type -P promtool; then exit; fi
if [[ ${1:-} != --path && ! -x $tool ]]; then
  command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || die "no 'apt-get': install promtool, it comes with Prometheus"
  mkdir -p "$cache"
  work=$(mktemp -d "$cache/tmp.XXXXXXXX")
  trap 'rm -rf "$work"' EXIT
  cd "$work"
  apt-get -q download prometheus >&2 || { apt-get -q update >&2 && apt-get -q download prometheus >&2; }
  dpkg-deb --extract prometheus_*.deb tree
  mkdir -p "$(dirname "$tool")"
  mv -f tree/usr/bin/promtool "$tool"
fi
printf '%s\n' "$tool"
