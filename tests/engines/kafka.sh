#!/usr/bin/env bash
# Installs Apache Kafka for the tests, from Maven, unless it is there; the last line on stdout is the directory of its jars.
# With --path it only prints that. Needs Java 17 or newer and Maven. tests/support/kafka.py runs one broker of it.
set -euo pipefail

readonly kafka=4.1.1 slf4j=1.7.36
cache=${OTEL_AUDIT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/otel-audit}
[[ $cache == /* ]] || cache=$PWD/$cache
readonly jars=$cache/kafka-$kafka

die() { printf 'tests/engines/kafka.sh: %s\n' "$*" >&2; exit 1; }

if [[ ${1:-} != --path && ! -d $jars ]]; then
  command -v java >/dev/null || die "no 'java' on PATH: install a Java runtime, 17 or newer"
  command -v mvn >/dev/null || die "no 'mvn' on PATH: install Apache Maven"
  mkdir -p "$cache"
  work=$(mktemp -d "$cache/tmp.XXXXXXXX")
  trap 'rm -rf "$work"' EXIT
  cat >"$work/pom.xml" <<EOF
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>otel-audit.invalid</groupId><artifactId>kafka-for-tests</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$kafka</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>$slf4j</version></dependency>
  </dependencies>
</project>
EOF
  (cd "$work" && mvn -q -B dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory=jars >&2)
  mv -T "$work/jars" "$jars" 2>/dev/null || [[ -d $jars ]] || die "could not write $jars"
fi
printf '%s\n' "$jars"
