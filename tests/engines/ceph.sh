#!/usr/bin/env bash
# Installs Ceph with its S3 gateway for the tests of Object Lock, from Debian's packages, unless it is there; the last line on
# stdout is the path of radosgw. Needs root. tests/support/ceph.py runs one of each daemon, in memory.
set -euo pipefail

readonly programs=(ceph ceph-mon ceph-mgr ceph-osd radosgw radosgw-admin ceph-authtool monmaptool)

die() { printf 'tests/engines/ceph.sh: %s\n' "$*" >&2; exit 1; }

if ! type -P "${programs[@]}" >/dev/null || [[ $(type -P "${programs[@]}" | wc -l) != "${#programs[@]}" ]]; then
  command -v apt-get >/dev/null || die "no 'apt-get': install ${programs[*]}"
  [[ $EUID == 0 ]] || die "not root: install ceph-mon, ceph-mgr, ceph-osd and radosgw, then run this again"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q >&2
  apt-get install -q -y --no-install-recommends ceph-mon ceph-mgr ceph-osd radosgw >&2
fi
type -P radosgw
