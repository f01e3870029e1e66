"""The documentation is run: what it shows works, what it names exists, where it points there is something.

Three comments in Markdown steer this, each on the line before a block (an empty line may stand between):

- ``<!-- continues -->``: the Python block goes on where the one before it ended, with its variables;
- ``<!-- not run: reason -->``: the Python block is only compiled; the test run lists it with the reason;
- ``<!-- not checked: reason -->``: the shell block names things that a checkout does not have.
"""

from __future__ import annotations

import ast
import functools
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
BLOCK_TIMEOUT_S = 60

FOREIGN = frozenset({
    "apt-get", "aws", "cat", "cd", "celery", "chmod", "chown", "clickhouse-client", "cp", "curl", "docker",
    "echo", "export", "git", "grep", "gunicorn", "head", "jq", "kafka-topics.sh", "kill", "kubectl", "ls",
    "mkdir", "mv", "otelcol", "otelcol-contrib", "pip", "promtool", "python", "python3", "rm", "sleep", "sudo",
    "systemctl", "tail", "useradd", "uv", "uvicorn", "wc",
})  # fmt: skip
"""Commands of others that the documentation may show."""


# -- reading Markdown ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        line: number of its first line of content, from 1.
        notes: the comments directly before it.
    """

    path: Path
    line: int
    language: str
    text: str = field(repr=False)
    notes: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """File and line, for the name of a test."""
        return f"{self.path.relative_to(ROOT)}:{self.line}"

    def note(self, name: str) -> str | None:
        """What a comment of this name says: its reason, or an empty string; ``None`` where there is none."""
        for note in self.notes:
            head, _, rest = note.partition(":")
            if head.strip() == name:
                return rest.strip()
        return None


_FENCE = re.compile(r"^(?P<indent> *)(?P<marks>`{3,}|~{3,})\s*(?P<language>[\w+-]*)[^`]*$")
_COMMENT = re.compile(r"^\s*<!--\s*(.*?)\s*-->\s*$")


def blocks_of(path: Path, text: str | None = None) -> list[Block]:
    """Every fenced block of a Markdown file."""
    lines = (path.read_text(encoding="utf-8") if text is None else text).splitlines()
    found: list[Block] = []
    notes: list[str] = []
    number = 0
    while number < len(lines):
        line = lines[number]
        number += 1
        if comment := _COMMENT.match(line):
            notes.append(comment[1])
        elif fence := _FENCE.match(line):
            start = number
            closing = re.compile(rf"^ *{fence['marks'][0]}{{{len(fence['marks'])},}}\s*$")
            while number < len(lines) and not closing.match(lines[number]):
                number += 1
            indent = len(fence["indent"])
            content = [each[indent:] if each[:indent].isspace() else each for each in lines[start:number]]
            found.append(Block(path, start + 1, fence["language"], "\n".join(content) + "\n", tuple(notes)))
            number += 1
            notes = []
        elif line.strip():
            notes = []
    return found


def prose_of(path: Path, text: str | None = None) -> str:
    """A Markdown file without its blocks, code spans and comments, line for line."""
    lines = (path.read_text(encoding="utf-8") if text is None else text).splitlines()
    for block in blocks_of(path, "\n".join(lines)):
        for number in range(block.line - 2, min(block.line + block.text.count("\n"), len(lines))):
            lines[number] = ""
    prose = re.sub(r"`[^`\n]+`", "", "\n".join(lines))
    return re.sub(r"<!--.*?-->", lambda comment: "\n" * comment[0].count("\n"), prose, flags=re.DOTALL)


@functools.cache
def documents() -> tuple[Path, ...]:
    """Every document of the repository."""
    found = [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "SECURITY.md"]
    for folder in ("docs", "collector-config", "examples"):
        found.extend(sorted((ROOT / folder).rglob("*.md")))
    return tuple(path for path in found if path == README or path.exists())


def _name(value: object) -> str:
    return value[0].where if isinstance(value, list) else value.where if isinstance(value, Block) else str(value)


# -- Python ---------------------------------------------------------------------------------------------------


def groups_of(blocks: list[Block]) -> list[list[Block]]:
    """Python blocks that share their variables, together; one that is not run stands alone."""
    groups: list[list[Block]] = []
    last: list[Block] = []
    for block in blocks:
        if block.language != "python":
            continue
        if block.note("continues") is not None and last:
            last.append(block)
            continue
        groups.append([block])
        if block.note("not run") is None:
            last = groups[-1]
    return groups


_RUNNER = """
import ast, asyncio, sys

sys.argv = sys.argv[:1]
loop = asyncio.new_event_loop()
namespace = {"__name__": "__main__"}
for where, line, text in BLOCKS:
    code = compile("\\n" * (line - 1) + text, where, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = eval(code, namespace)
    if result is not None:
        loop.run_until_complete(result)
loop.close()
"""


def run_blocks(blocks: list[Block], directory: Path) -> subprocess.CompletedProcess[str]:
    """Run blocks one after the other in one new interpreter; line numbers in a traceback are the document's.

    Its directory, its home and its state are temporary, and nothing of ours or of OpenTelemetry is set.
    """
    script = directory / "blocks.py"
    shown = [(str(block.path), block.line, block.text) for block in blocks]
    script.write_text(f"BLOCKS = {shown!r}\n{_RUNNER}", encoding="utf-8")
    work = directory / "work"
    work.mkdir()
    env = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    env.update(XDG_STATE_HOME=str(directory / "state"), HOME=str(directory), PYTHONWARNINGS="default")
    return subprocess.run(
        [sys.executable, str(script)],
        cwd=work, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        timeout=BLOCK_TIMEOUT_S,
    )  # fmt: skip


@pytest.mark.parametrize("group", [g for d in documents() for g in groups_of(blocks_of(d))], ids=_name)
def test_python_blocks_run(group: list[Block], tmp_path: Path) -> None:
    """Each Python block of every document runs; one that cannot run here says why, and is listed as skipped."""
    reason = group[0].note("not run")
    if reason is not None:
        assert reason, f"{group[0].where}: write <!-- not run: reason -->"
        pytest.skip(f"{group[0].where} is not run: {reason}")
    done = run_blocks(group, tmp_path)
    assert done.returncode == 0, f"{group[0].where}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("block", [b for d in documents() for b in blocks_of(d) if b.language == "python"], ids=_name)
def test_python_blocks_compile(block: Block) -> None:
    """Every Python block of every document is Python; ``await`` may stand at the top of one."""
    compile(
        "\n" * (block.line - 1) + block.text, str(block.path), "exec",
        flags=ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
    )  # fmt: skip


# -- shell ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Command:
    """One command of a shell block: its words, without assignments before and without what it is piped into."""

    where: str
    words: tuple[str, ...]


def commands_of(block: Block) -> Iterator[Command]:
    """The commands of a block: in ``console`` those behind ``$``, in ``sh`` and ``bash`` every line."""
    if block.language not in {"console", "sh", "bash", "shell"} or block.note("not checked") is not None:
        return
    pending, start, here_document = "", block.line, ""
    for number, raw in enumerate(block.text.splitlines(), block.line):
        line = raw.strip()
        if here_document:
            here_document = "" if line == here_document else here_document
            continue
        if block.language == "console" and not pending:
            if not line.startswith("$ "):
                continue
            line = line[2:]
        if not pending:
            start = number
        pending += line
        if pending.endswith("\\"):
            pending = pending[:-1]
            continue
        if marker := re.search(r"<<-?\s*['\"]?(\w+)", pending):
            here_document = marker[1]
            pending = pending[: marker.start()]
        yield from _parse(f"{block.path.relative_to(ROOT)}:{start}", pending)
        pending = ""


def _parse(where: str, line: str) -> Iterator[Command]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;")
    lexer.whitespace_split = True
    words: list[str] = []
    for token in [*lexer, ";"]:
        if token and not token.strip("|&;"):
            while words and re.fullmatch(r"\w+=.*", words[0]):
                words.pop(0)
            if words:
                yield Command(where, tuple(words))
            words = []
        else:
            words.append(token)


@functools.cache
def make_targets() -> frozenset[str]:
    """The targets of the Makefile that a person calls."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return frozenset(name for line in re.findall(r"^\.PHONY:(.*)$", text, re.MULTILINE) for name in line.split())


@functools.cache
def help_of(*words: str) -> str | None:
    """What ``otel-audit WORDS --help`` says; ``None`` where there is no such command."""
    program = "import sys; sys.argv[0] = 'otel-audit'; from otel_audit.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", program, *words, "--help"],
        env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    return done.stdout if done.returncode == 0 else None


def what_is_wrong(command: Command) -> str | None:
    """Why a reader could not run a command, or ``None``."""
    name, *rest = command.words
    if name.startswith("#"):
        return None
    if name == "make":
        unknown = [word for word in rest if not word.startswith("-") and "=" not in word and word not in make_targets()]
        return f"the Makefile has no target {unknown}" if unknown else None
    if name in {"otel-audit", ".venv/bin/otel-audit"}:
        return _wrong_with_ours(rest)
    if "/" in name and not name.startswith("/"):
        made_by_make = name.startswith((".venv/", "./.venv/"))
        return None if made_by_make or os.access(ROOT / name, os.X_OK) else f"{name} is not an executable file here"
    return None if name in FOREIGN else f"{name} is neither ours nor in FOREIGN"


def _wrong_with_ours(words: list[str]) -> str | None:
    path: list[str] = []
    shown = help_of()
    if shown is None:
        return "otel-audit --help fails"
    for word in words:
        if word.startswith("-") or not re.search(r"\bCOMMAND\b", shown):
            break
        path.append(word)
        deeper = help_of(*path)
        if deeper is None:
            return f"there is no command 'otel-audit {' '.join(path)}'"
        shown = deeper
    for word in words:
        option = word.partition("=")[0]
        if option.startswith("--") and option not in {"--", "--help"} and option not in shown:
            return f"'otel-audit {' '.join(path)}' has no option {option}"
    return None


@pytest.mark.parametrize(
    "block", [b for d in documents() for b in blocks_of(d) if next(commands_of(b), None) is not None], ids=_name
)
def test_commands_exist(block: Block) -> None:
    """Every command that a document shows is there: make targets, our own commands with their options, scripts."""
    wrong = [f"{command.where}: {why}" for command in commands_of(block) if (why := what_is_wrong(command))]
    assert not wrong, "\n".join(["", *wrong])


@pytest.mark.parametrize("block", [b for d in documents() for b in blocks_of(d)], ids=_name)
def test_comments_that_steer_are_known(block: Block) -> None:
    """A comment before a block that looks like one of ours and is misspelt would silently do nothing."""
    for note in block.notes:
        head = note.partition(":")[0].strip()
        if head.split(" ")[0] in {"not", "continue", "continues", "skip", "run"}:
            assert head in {"continues", "not run", "not checked"}, f"{block.where}: <!-- {note} -->"


# -- links ----------------------------------------------------------------------------------------------------

_LINK = re.compile(r"\[(?:[^\[\]]|\[[^\[\]]*\])*\]\((?P<inline>[^()\s]*(?:\([^()\s]*\)[^()\s]*)*)(?:\s+\"[^\"]*\")?\)")
_REFERENCE = re.compile(r"^ {0,3}\[[^\]]+\]:\s*(?P<reference>\S+)", re.MULTILINE)
_HTML = re.compile(r"<[^>]*\b(?:href|src)=[\"'](?P<html>[^\"']+)[\"']")


def links_of(path: Path, text: str | None = None) -> Iterator[tuple[int, str]]:
    """Line and target of every link that does not leave the repository."""
    prose = prose_of(path, text)
    for pattern in (_LINK, _REFERENCE, _HTML):
        for match in pattern.finditer(prose):
            target = next(group for group in match.groups() if group is not None).strip("<>")
            if target and not re.match(r"[a-z][a-z0-9+.-]*:|//", target):
                yield prose.count("\n", 0, match.start()) + 1, target


def anchors_of(path: Path) -> frozenset[str]:
    """The anchors that GitHub gives to the headings of a document, and those written as HTML."""
    text = path.read_text(encoding="utf-8")
    fenced = {n for b in blocks_of(path) for n in range(b.line - 1, b.line + b.text.count("\n") + 1)}
    lines = (line for number, line in enumerate(text.splitlines(), 1) if number not in fenced)
    anchors: dict[str, None] = {}
    for line in lines:
        if heading := re.match(r"#{1,6}\s+(.*?)\s*#*$", line):
            title = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[1])
            slug = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
            count = sum(1 for known in anchors if re.fullmatch(rf"{re.escape(slug)}(-\d+)?", known))
            anchors[slug if slug not in anchors else f"{slug}-{count}"] = None
    return frozenset(anchors) | frozenset(re.findall(r"<[^>]*\b(?:id|name)=[\"']([^\"']+)[\"']", text))


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    """Every link within the repository leads to a file, and to a heading in it."""
    wrong = []
    for line, target in links_of(path):
        name, _, anchor = target.partition("#")
        aim = (path.parent / name).resolve() if name else path
        if not aim.is_relative_to(ROOT) or not aim.exists():
            wrong.append(f"{path.relative_to(ROOT)}:{line}: there is no {name}")
        elif anchor and aim.suffix == ".md" and anchor not in anchors_of(aim):
            wrong.append(f"{path.relative_to(ROOT)}:{line}: {aim.relative_to(ROOT)} has no heading #{anchor}")
    assert not wrong, "\n".join(["", *wrong])


def test_the_index_leads_to_every_document() -> None:
    """From docs/README.md one reaches every document under docs/, at most by way of another index."""
    reached: set[Path] = set()
    to_read = [ROOT / "docs" / "README.md"]
    while to_read:
        path = to_read.pop()
        if path in reached:
            continue
        reached.add(path)
        for _, target in links_of(path):
            aim = (path.parent / target.partition("#")[0]).resolve()
            aim = aim / "README.md" if aim.is_dir() else aim
            if aim.suffix == ".md" and aim.exists() and aim.is_relative_to(ROOT / "docs"):
                to_read.append(aim)
    missing = sorted(str(path.relative_to(ROOT)) for path in set((ROOT / "docs").rglob("*.md")) - reached)
    assert not missing, f"docs/README.md does not lead to {missing}"


# -- the reader reads right -------------------------------------------------------------------------------------

_EXAMPLE = """\
# A title: `code`, and more

<!-- not run: needs a Collector -->

```python
raise SystemExit(1)
```

[a](#a-title-code-and-more) [b](b.md "B") ![c](d/e.png) [f](https://example.com) `[g](h.md)` <a href="i.md">

```python
x = 1
```
between
<!-- continues -->
```python
assert x == 1
```
   ```console
   $ OTEL_X=1 otel-audit demo \\
         --fast | tail -n 1 && make test
   output
   $ cat > file <<EOF
   not a command
   EOF
   ```
"""


def test_reading_a_document() -> None:
    """Blocks with their notes and lines, groups, commands, links."""
    path = ROOT / "example.md"
    blocks = blocks_of(path, _EXAMPLE)
    assert [(block.line, block.language) for block in blocks] == [
        (6, "python"), (12, "python"), (17, "python"), (20, "console"),
    ]  # fmt: skip
    assert blocks[0].note("not run") == "needs a Collector"
    assert blocks[2].note("continues") == ""
    assert [[block.line for block in group] for group in groups_of(blocks)] == [[6], [12, 17]]
    assert [command.words for command in commands_of(blocks[3])] == [
        ("otel-audit", "demo", "--fast"), ("tail", "-n", "1"), ("make", "test"), ("cat", ">", "file"),
    ]  # fmt: skip
    assert sorted(links_of(path, _EXAMPLE)) == [
        (9, "#a-title-code-and-more"), (9, "b.md"), (9, "d/e.png"), (9, "i.md"),
    ]  # fmt: skip


def test_a_failing_block_is_seen(tmp_path: Path) -> None:
    """The traceback names the document's line; variables go from block to block; ``await`` works."""
    first = "```python\nimport asyncio\nx = await asyncio.sleep(0, 7)\n```\n"
    text = f"{first}<!-- continues -->\n```python\nassert x == 8\n```\n"
    done = run_blocks(groups_of(blocks_of(README, text))[0], tmp_path)
    assert done.returncode == 1
    assert 'README.md", line 7' in done.stderr
    assert "AssertionError" in done.stderr


@pytest.mark.parametrize(
    "line", ["make nonsense", "otel-audit nonsense", "otel-audit --nonsense", "nonsense", "docs/nonsense.sh --now"]
)
def test_a_command_that_is_not_there_is_seen(line: str) -> None:
    """Targets, commands, options, programs, scripts."""
    block = Block(README, 1, "sh", line + "\n")
    assert [what_is_wrong(command) for command in commands_of(block)] != [None]
