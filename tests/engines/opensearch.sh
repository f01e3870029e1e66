#!/usr/bin/env bash
# Installs OpenSearch for the tests, from Maven, unless it is there; the last line on stdout is the directory of its jars.
# Needs a JDK, 17 or newer, and Maven. tests/support/opensearch.py runs one node of it.
set -euo pipefail

readonly opensearch=2.19.1 log4j=2.21.0
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly here
cache=${OTEL_AUDIT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/otel-audit}
[[ $cache == /* ]] || cache=$PWD/$cache
readonly jars=$cache/opensearch-$opensearch-$(cksum <"$here/OpenSearch.java" | cut -d' ' -f1)

die() { printf 'tests/engines/opensearch.sh: %s\n' "$*" >&2; exit 1; }

if [[ ! -d $jars ]]; then
  command -v javac >/dev/null || die "no 'javac' on PATH: install a Java development kit, 17 or newer"
  command -v mvn >/dev/null || die "no 'mvn' on PATH: install Apache Maven"
  mkdir -p "$cache"
  work=$(mktemp -d "$cache/tmp.XXXXXXXX")
  trap 'rm -rf "$work"' EXIT
  cat >"$work/pom.xml" <<EOF
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>otel-audit.invalid</groupId><artifactId>opensearch-for-tests</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.opensearch</groupId><artifactId>opensearch</artifactId><version>$opensearch</version></dependency>
    <dependency>
      <groupId>org.opensearch.plugin</groupId><artifactId>transport-netty4-client</artifactId><version>$opensearch</version>
    </dependency>
    <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-core</artifactId><version>$log4j</version></dependency>
  </dependencies>
</project>
EOF
  (cd "$work" && mvn -q -B dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory=jars >&2)
  javac -cp "$work/jars/*" -d "$work/jars" "$here/OpenSearch.java" >&2
  mv -T "$work/jars" "$jars" 2>/dev/null || [[ -d $jars ]] || die "could not write $jars"
fi
printf '%s\n' "$jars"
