"""What the linter reads is what the Collector reads: YAML, variables, several files; mistakes are one clear line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from otel_audit.collector.configuration import merge
from otel_audit.collector.expansion import Expansion
from otel_audit.collector.files import read_beside, read_source
from otel_audit.collector.lint import Source, lint
from otel_audit.collector.node import UNKNOWN, Node, Place, View
from otel_audit.collector.parsing import parse
from otel_audit.errors import ConfigurationError
from support.corpus import BAD

HERE = Place("config.yaml", 1)


def plain(node: Node) -> Any:
    """A tree as ordinary values."""
    if isinstance(node.value, dict):
        return {key: plain(below) for key, below in node.value.items()}
    if isinstance(node.value, list):
        return [plain(below) for below in node.value]
    return node.value


def read(text: str, environ: dict[str, str] | None = None) -> Any:
    """A document with its variables expanded."""
    expansion = Expansion(environ or {}, read_beside)
    return plain(expansion.expand(parse(text, "config.yaml").root))


def view(text: str) -> View:
    """A document, to be asked."""
    root = parse(text, "config.yaml").root
    return View(root, (), root.place)


def test_scalars_are_those_of_yaml_1_2() -> None:
    """Words that YAML 1.1 takes for truth values or base-60 numbers are words, and quoted things are strings."""
    text = "[yes, on, true, 'true', 12, '12', 1.5, 1e3, 12:30, ~, null, '', 0x10, 1_000, -7]"
    assert read(text) == [
        "yes",
        "on",
        True,
        "true",
        12,
        "12",
        1.5,
        1000.0,
        "12:30",
        None,
        None,
        "",
        "0x10",
        "1_000",
        -7,
    ]


def test_lines_are_those_of_the_keys() -> None:
    """A key's line is where it stands, a list item's its own, and what is absent has the line of what is above it."""
    config = view("a:\n  b:\n    c: 1\n  d:\n  - x\n  - y\n")
    assert config.at("a", "b", "c").place.line == 3
    assert [item.place.line for item in config.at("a", "d").items()] == [5, 6]
    assert config.at("a", "b", "none", "deeper").place.line == 2
    assert config.at("a", "b", "none", "deeper").name == "a.b.none.deeper"


def test_anchors_and_merge_keys() -> None:
    """An alias is its anchor's value; what stands beside a merge key wins over what it merges."""
    text = "a: &one {x: 1, y: 2}\nb: *one\nc:\n  <<: *one\n  y: 3\nd:\n  <<: [{p: 1}, {p: 2, q: 3}]\n"
    config = read(text)
    assert config["b"] == {"x": 1, "y": 2}
    assert config["c"] == {"x": 1, "y": 3}
    assert config["d"] == {"p": 1, "q": 3}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${env:SET}", "here"),
        ("${SET}", "here"),
        ("${env:SET:-other}", "here"),
        ("${env:UNSET:-other}", "other"),
        ("${env:UNSET:-}", None),
        ("${env:NUMBER}", 7),
        ("${env:UNSET:-10}", 10),
        ("${env:UNSET:-true}", True),
        ("${env:UNSET:-${env:SET}}", "here"),
        ("a ${env:SET} b", "a here b"),
        ("${env:UNSET:-127.0.0.1:4317}", "127.0.0.1:4317"),
        ("'${yaml:[1, 2]}'", [1, 2]),
        ("$${env:SET}", "${env:SET}"),
        ("costs $$5", "costs $5"),
        ("${env:UNSET}", UNKNOWN),
        ("a ${env:UNSET} b", UNKNOWN),
        ("${http:elsewhere}", UNKNOWN),
        ("${file:/nonexistent}", UNKNOWN),
        ("${env:LOOP}", UNKNOWN),
    ],
)
def test_variables(text: str, value: Any) -> None:
    """The environment's, else their default, else unknown; what stands alone is YAML, what is embedded is text."""
    environ = {"SET": "here", "NUMBER": "7", "LOOP": "${env:LOOP}"}
    assert read(f"key: {text}\n", environ)["key"] == value


def test_a_file_in_a_value(tmp_path: Path) -> None:
    """``${file:…}`` is looked for from the current directory, then beside the file that names it."""
    (tmp_path / "queue.yaml").write_text("storage: file_storage\n")
    expansion = Expansion({}, read_beside)
    root = parse("q: ${file:queue.yaml}\n", str(tmp_path / "config.yaml")).root
    assert plain(expansion.expand(root)) == {"q": {"storage": "file_storage"}}
    assert expansion.unknown == {}


def test_what_is_below_the_unknown_is_unknown() -> None:
    """No rule can hold anything against a section that cannot be seen."""
    root = Expansion({}, read_beside).expand(parse("exporters: ${env:EXPORTERS}\n", "config.yaml").root)
    below = View(root, (), HERE).at("exporters", "otlp", "retry_on_failure", "enabled")
    assert below.boolean(True) is UNKNOWN
    assert below.number(1) is UNKNOWN
    assert below.duration_s(1) is UNKNOWN
    assert below.text("x") is UNKNOWN


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0s", 0), ("0", 0), ("300ms", 0.3), ("5m", 300), ("1h5m10s", 3910), ("1.5s", 1.5), ("1000000000", 1), ("", 9)],
)
def test_durations(text: str, seconds: float) -> None:
    """As Go writes them."""
    assert view(f"key: {text}\n").at("key").duration_s(9) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["soon", "5", "'5'", "5 m", "true", "[]", "1d"])
def test_no_durations(text: str) -> None:
    """What the Collector does not take for a duration is unknown; a bare number is nanoseconds."""
    seconds = view(f"key: {text}\n").at("key").duration_s(9)
    assert seconds is UNKNOWN or (isinstance(seconds, float) and seconds < 1e-6)


def test_files_are_merged_as_the_collector_does() -> None:
    """Mappings key by key, everything else, lists too, by the last file; and each value knows its file."""
    first = parse("a: {b: 1, c: [1, 2]}\nd: 1\n", "first.yaml").root
    second = parse("a: {c: [3]}\ne:\n", "second.yaml").root
    merged = merge([first, second])
    assert plain(merged) == {"a": {"b": 1, "c": [3]}, "d": 1, "e": None}
    config = View(merged, (), merged.place)
    assert config.at("a", "b").place.file == "first.yaml"
    assert config.at("a", "c").place.file == "second.yaml"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "nothing in it"),
        ("# only a comment\n", "nothing in it"),
        ("a: [1\n", ":2: not YAML"),
        ("a: 1\na: 2\n", ":2: 'a' stands twice, first in line 1"),
        ("a: 1\n---\nb: 2\n", "not YAML"),
        ("[1, 2]\n", "has to be a mapping, and is a list"),
        ("just words\n", "has to be a mapping, and is a single value"),
        ("? [1]\n: 2\n", "a key has to be a word"),
        ("a: &a [*a]\n", "an alias of itself"),
        ("a: \x07\n", "not YAML"),
        ("receivers: [otlp]\nservice: {pipelines: {logs: {}}}\n", ":1: receivers has to be a mapping, and is a list"),
        ("service: {pipelines: [logs]}\n", "service.pipelines has to be a mapping"),
        ("service: {pipelines: {logs: x}}\n", "service.pipelines.logs has to be a mapping"),
        ("exporters: {debug: }\n", "service.pipelines is empty"),
        ("[" * 100 + "]" * 100, "nested more than"),
        ("[" * 5000 + "]" * 5000, "config.yaml"),
        ("x: !!python/object:os.system {}\nservice: 1\n", "service has to be a mapping"),
    ],
)
def test_a_mistake_is_said_with_its_line(text: str, says: str) -> None:
    """Whatever is no Collector configuration is a ConfigurationError that names file and line."""
    with pytest.raises(ConfigurationError) as raised:
        lint([[Source("config.yaml", text)]], {})
    assert says in str(raised.value)
    assert "config.yaml" in str(raised.value)


def test_aliases_that_multiply_are_refused() -> None:
    """A small file cannot become a large tree."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(ConfigurationError, match="more than 200,000 values"):
        lint([[Source("config.yaml", "\n".join(lines))]], {})


def test_without_libyaml_it_reads_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyYAML has two parsers; which one is there changes neither values nor lines nor comments."""
    texts = [path.read_text(encoding="utf-8") for path in BAD]
    texts.append("a: 'x # no'\nb: |\n  # no\nc: \"y\" # yes\n? d\n: <<\n# ä yes\n'<<': 1\n")
    assert hasattr(yaml, "CSafeLoader")
    with_it = [parse(text, "config.yaml") for text in texts]
    assert [comment.text for comment in with_it[-1].comments] == ["yes", "ä yes"]
    monkeypatch.delattr(yaml, "CSafeLoader")
    assert [parse(text, "config.yaml") for text in texts] == with_it


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """A file that is no text, or far too large, is refused by name."""
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "large.yaml").write_bytes(b"#" * (5 * 1024 * 1024))
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        read_source(str(tmp_path / "binary.yaml"))
    with pytest.raises(ConfigurationError, match="larger than 4 MiB"):
        read_source(str(tmp_path / "large.yaml"))


# -- any document -----------------------------------------------------------------------------------------------------

_VOCABULARY = """
receivers processors exporters connectors extensions service pipelines logs logs/audit otlp otlp/audit
otlp_http file kafka clickhouse awss3 batch filter transform resource memory_limiter routing table condition
statement context default_pipelines error_mode sending_queue storage sizer bytes queue_size batch max_size
enabled retry_on_failure max_elapsed_time 0s 5m file_storage fsync recreate directory path /tmp rotation
max_backups append protocols grpc http endpoint 0.0.0.0:1 tls headers auth authenticator headers_setter
from_context log_statements statements attributes action upsert log_record logs_url_path topics producer
required_acks message_marking after ${env:X} ${env:X:-1} ${file:x} $ ${ audit true 1 ~
"""
_WORDS = st.sampled_from(_VOCABULARY.split())
_SCALARS = st.one_of(_WORDS, st.integers(), st.booleans(), st.none(), st.floats(allow_nan=False), st.text(max_size=8))
_TREES = st.recursive(
    _SCALARS,
    lambda below: st.one_of(
        st.lists(below, max_size=4), st.dictionaries(st.one_of(_WORDS, st.text(max_size=5)), below, max_size=5)
    ),
    max_leaves=25,
)
_PIPELINES = st.fixed_dictionaries(
    {name: st.one_of(st.lists(_WORDS, max_size=4), _TREES) for name in ("receivers", "processors", "exporters")}
)
_SECTION = st.dictionaries(_WORDS, _TREES, max_size=6)
_CONFIGURATIONS = st.fixed_dictionaries(
    {
        **dict.fromkeys(("receivers", "processors", "exporters", "connectors", "extensions"), _SECTION),
        "service": st.fixed_dictionaries(
            {"pipelines": st.dictionaries(st.sampled_from(["logs", "logs/audit", "logs/x", "traces"]), _PIPELINES)}
        ),
    }
)


def findings_or_an_error(text: str) -> None:
    """Findings, or an error that names the file; nothing else."""
    try:
        found = lint([[Source("config.yaml", text)], [Source("config.yaml", text)]], {"X": "y"}, chain=True)
    except ConfigurationError as error:
        assert "config.yaml" in str(error)
    else:
        for linted in found:
            assert all(finding.place.line >= 1 and finding.reason for finding in linted.findings)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(_CONFIGURATIONS)
def test_any_configuration_gives_findings_or_an_error(config: dict[str, Any]) -> None:
    """Whatever stands where something else should, the linter says something or nothing, and never fails."""
    findings_or_an_error(yaml.safe_dump(config, allow_unicode=True))


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.one_of(st.text(max_size=200), st.text(alphabet="abc:-[]{}&*#!|>'\"%@`?,\n \t<", max_size=60)))
@example("&a : *a")
@example("a: !!binary x")
@example("<<: [1]")
@example("<<: {<<: {a: 1}}")
@example("%YAML 9.9\n---\na: 1")
@example("\ufeffa: 1")
@example("# otel-audit: ignore")
def test_any_text_gives_findings_or_an_error(text: str) -> None:
    """So for text that is no configuration, or no YAML."""
    findings_or_an_error(text)
    findings_or_an_error(f"service: {{pipelines: {{logs: {{receivers: [a]}}}}}}\nreceivers:\n  a:\n    {text}\n")
