"""The house rules that a machine can check: floors, circles, attribute names, docstrings, sizes, cost of an import.

The floors are drawn in CONTRIBUTING.md.  Each rule is a function over source text, and is itself tested on made-up
sources below, so that a rule that stopped finding anything would be noticed.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from otel_audit import semconv

PACKAGE = "otel_audit"
ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / PACKAGE

FILE_LINES_MAX = 450
FUNCTION_LINES_MAX = 80


@dataclass(frozen=True)
class Floor:
    """One floor of the house.

    Attributes:
        number: an import goes to a smaller number, or stays in its own folder.
        places: the files and folders that stand here.
        ordered: whether a place may import the places that are listed before it; else none of its neighbours.
    """

    number: int
    places: tuple[str, ...]
    ordered: bool = False


FLOORS = (
    Floor(1, ("_version", "semconv", "receipt", "errors", "forks", "lazy", "own_log"), ordered=True),
    Floor(2, ("rules", "record", "canonical", "encoding", "lanes", "conversion", "preparation"), ordered=True),
    Floor(3, ("batch", "options", "protocols"), ordered=True),
    Floor(4, ("context", "protect", "proof", "formats", "query")),
    Floor(5, ("journal",)),
    Floor(6, ("exporters",)),
    Floor(7, ("stores",)),
    Floor(8, ("delivery",)),
    Floor(9, ("sealing",)),
    Floor(
        10,
        (
            "telemetry",
            "resource",
            "retries",
            "offloop",
            "sidecars",
            "health",
            "flushing",
            "observation",
            "metrics",
            "checkup",
            "durability",
            "provider_settings",
            "receipts",
            "logger",
            "processing",
            "unserved",
            "provider",
        ),
        ordered=True,
    ),
    Floor(11, ("destinations", "settings", "default"), ordered=True),
    Floor(12, ("capture",)),
    Floor(13, ("server", "client", "collector", "testing")),
    Floor(14, ("cli",)),
    Floor(15, ("__init__",)),
)

FLOOR_OF = {place: floor for floor in FLOORS for place in floor.places}

HEAVY = (
    "fastapi", "google.protobuf", "grpc", "httpx", "opentelemetry.sdk", "rich", "sqlalchemy", "structlog", "typer",
)  # fmt: skip
"""What ``import otel_audit`` must not load: each costs tens of milliseconds, and not everybody needs it."""


# -- reading ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Module:
    """One source file.

    Attributes:
        name: dotted, without the package: ``journal.stream``; ``journal.__init__`` for a folder's own file.
    """

    name: str
    text: str
    tree: ast.Module = field(repr=False)

    @property
    def place(self) -> str:
        """The file or folder, directly under the package, that it belongs to."""
        return self.name.partition(".")[0]

    @property
    def path(self) -> str:
        """Where it stands, for messages."""
        return f"src/{PACKAGE}/{self.name.replace('.', '/')}.py"


def modules_of(sources: Mapping[str, str]) -> dict[str, Module]:
    """Parsed modules by name."""
    return {name: Module(name, text, ast.parse(text)) for name, text in sources.items()}


@pytest.fixture(scope="module")
def house() -> dict[str, Module]:
    """Every module of the package."""
    return modules_of(
        {
            ".".join(path.relative_to(SOURCE).with_suffix("").parts): path.read_text(encoding="utf-8")
            for path in sorted(SOURCE.rglob("*.py"))
        }
    )


def imports_of(module: Module, names: Mapping[str, object]) -> Iterator[tuple[int, str]]:
    """Line and name of every module of this package that a module imports: inside functions and for types too."""

    def resolve(parts: list[str]) -> str | None:
        for end in range(len(parts), 0, -1):
            name = ".".join(parts[:end])
            if name in names:
                return name
            if f"{name}.__init__" in names:
                return f"{name}.__init__"
        return "__init__"

    folder = module.name.split(".")[:-1]
    for node in ast.walk(module.tree):
        found: list[list[str]] = []
        if isinstance(node, ast.Import):
            dotted = [alias.name.split(".") for alias in node.names]
            found = [parts[1:] for parts in dotted if parts[0] == PACKAGE]
        elif isinstance(node, ast.ImportFrom):
            base = node.module.split(".") if node.module else []
            if node.level:
                base = folder[: len(folder) - node.level + 1] + base
            elif base[:1] == [PACKAGE]:
                base = base[1:]
            else:
                continue
            found = [[*base, alias.name] for alias in node.names]
        for parts in found:
            target = resolve(parts)
            if target != module.name:
                yield node.lineno, str(target)


# -- the rules ------------------------------------------------------------------------------------------------


def upward_imports(modules: Mapping[str, Module]) -> list[str]:
    """Modules that stand on no floor, and imports that do not go down."""
    broken = []
    for module in modules.values():
        here = FLOOR_OF.get(module.place)
        if here is None:
            broken.append(f"{module.path}: stands on no floor; give '{module.place}' one in FLOORS and CONTRIBUTING.md")
            continue
        for line, target in imports_of(module, modules):
            place = target.partition(".")[0]
            there = FLOOR_OF.get(place)
            if place == module.place or there is None or there.number < here.number:
                continue
            if there is here and here.ordered and here.places.index(place) < here.places.index(module.place):
                continue
            broken.append(
                f"{module.path}:{line}: floor {here.number} imports '{target}' of floor {there.number}; "
                "move what is needed to a lower floor, or hand it in as an argument"
            )
    return broken


def circles(modules: Mapping[str, Module]) -> list[str]:
    """Chains of imports that end where they began."""
    edges = {name: sorted({target for _, target in imports_of(module, modules)}) for name, module in modules.items()}
    found: list[str] = []
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> None:
        if name in path:
            found.append(" -> ".join([*path[path.index(name) :], name]))
        elif name not in done:
            for target in edges[name]:
                visit(target, [*path, name])
            done.add(name)

    for name in edges:
        visit(name, [])
    return found


_DOTTED = re.compile(r"[a-z_]+(?:\.[a-z_]+)+\.?|[a-z_]+\.")
_ATTRIBUTE = re.compile(r"(?:otel_)?audit\.[a-z0-9_.]*")
_FILE = re.compile(r"\w+\.(?:csv|db|json|jsonl|toml)")
_JSON_KEY = re.compile(r'"((?:otel_)?audit\.[a-z0-9_.]*)"')

ATTRIBUTES = frozenset(
    value
    for key, value in vars(semconv).items()
    if key.isupper() and isinstance(value, str) and _DOTTED.fullmatch(value)
)


def literals_of(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Strings and bytes, without docstrings and without the names of loggers."""
    skipped: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr):
            skipped.add(id(node.value))
        elif isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in {"getLogger", "get_logger"}:
                skipped.update(id(argument) for argument in node.args)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in skipped:
            if isinstance(node.value, str):
                yield node.lineno, node.value
            elif isinstance(node.value, bytes):
                yield node.lineno, node.value.decode("latin-1")


def spelt_attributes(modules: Mapping[str, Module]) -> list[str]:
    """Attribute names that stand outside semconv.

    A literal is an attribute name if semconv defines it, or if it looks like one of the draft's or of ours
    (``audit.…``, ``otel_audit.…``) and is no module of this package, no file's name and, in ``telemetry``, no metric's.
    Names in JSON text (``b'{"audit.record.id":'``) count.
    """
    dotted = {f"{PACKAGE}.{name.removesuffix('.__init__')}" for name in modules}
    broken = []
    for module in modules.values():
        if module.name == "semconv":
            continue
        for line, text in literals_of(module.tree):
            for name in (text, *_JSON_KEY.findall(text)):
                if name in ATTRIBUTES:
                    broken.append(f"{module.path}:{line}: spells {name!r}; use the constant of semconv")
                elif name in dotted or _FILE.fullmatch(name) or module.place == "telemetry":
                    continue
                elif _ATTRIBUTE.fullmatch(name):
                    broken.append(f"{module.path}:{line}: spells {name!r}; define it in semconv and use that")
    return broken


def bare_names(modules: Mapping[str, Module]) -> list[str]:
    """Public modules, classes, functions and methods without a docstring."""
    broken = []

    def visit(module: Module, body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                continue
            if node.name.startswith("_") or any(_is_exempt(decorator) for decorator in node.decorator_list):
                continue
            if not ast.get_docstring(node):
                broken.append(f"{module.path}:{node.lineno}: {prefix}{node.name} has no docstring")
            if isinstance(node, ast.ClassDef):
                visit(module, node.body, f"{prefix}{node.name}.")

    for module in modules.values():
        if not ast.get_docstring(module.tree):
            broken.append(f"{module.path}:1: the file does not say what its job is")
        visit(module, module.tree.body, "")
    return broken


def _is_exempt(decorator: ast.expr) -> bool:
    """``@overload``, and the setter of a property whose getter has the docstring."""
    name = decorator.attr if isinstance(decorator, ast.Attribute) else getattr(decorator, "id", "")
    return name in {"overload", "setter", "deleter"}


def too_long(modules: Mapping[str, Module]) -> list[str]:
    """Files and functions over the house's size."""
    broken = []
    for module in modules.values():
        lines = len(module.text.splitlines())
        if lines > FILE_LINES_MAX:
            broken.append(f"{module.path}: {lines} lines (at most {FILE_LINES_MAX}); give its second job its own file")
        for node in ast.walk(module.tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > FUNCTION_LINES_MAX:
                    broken.append(
                        f"{module.path}:{node.lineno}: {node.name} has {lines} lines (at most {FUNCTION_LINES_MAX}); "
                        "name its parts"
                    )
    return broken


def _report(broken: list[str]) -> str:
    return "\n".join(["", *broken])


# -- the house keeps them -------------------------------------------------------------------------------------


def test_imports_run_downward_only(house: dict[str, Module]) -> None:
    """A file imports only from its own folder or a lower floor, imports for type checking included."""
    broken = upward_imports(house)
    assert not broken, _report(broken)


def test_the_table_for_people_says_the_same() -> None:
    """The table of floors in CONTRIBUTING.md has the places of FLOORS, in their order."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (.*?) \|", text, re.MULTILINE)
    table = {int(number): re.findall(r"`(\w+)(?:\.py|/)`", places) for number, places in rows}
    assert table == {floor.number: list(floor.places) for floor in FLOORS}


def test_no_import_circles(house: dict[str, Module]) -> None:
    """No chain of imports comes back to where it began."""
    broken = circles(house)
    assert not broken, _report(broken)


def test_attribute_names_stand_once(house: dict[str, Module]) -> None:
    """Only semconv spells an attribute name."""
    broken = spelt_attributes(house)
    assert not broken, _report(broken)


def test_public_names_have_docstrings(house: dict[str, Module]) -> None:
    """Every file says what its job is, and every public class, function and method what it promises."""
    broken = bare_names(house)
    assert not broken, _report(broken)


def test_files_and_functions_stay_readable(house: dict[str, Module]) -> None:
    """No file over 450 lines, no function over 80."""
    broken = too_long(house)
    assert not broken, _report(broken)


def test_no_attribute_takes_the_lock_of_the_standard_library() -> None:
    """``functools.cached_property`` may hang in a forked child before Python 3.12; ``lazy.py`` has one without."""
    users = [
        str(path.relative_to(ROOT)) for path in SOURCE.rglob("*.py") if "import cached_property" in path.read_text()
    ]
    assert not users, f"use 'from ..lazy import lazy' in {users}"


def test_importing_the_package_is_cheap() -> None:
    """``import otel_audit`` loads none of the heavy libraries."""
    script = (
        "import sys, json; before = set(sys.modules); import otel_audit; "
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stdout)
    assert PACKAGE in loaded
    heavy = [name for name in loaded if any(name == lib or name.startswith(f"{lib}.") for lib in HEAVY)]
    assert not heavy, heavy


# -- the rules find what they are for ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("errors", "from .provider import AuditProvider"),
        ("errors", "if TYPE_CHECKING:\n    from .provider import AuditProvider"),
        ("journal.stream", "def f():\n    from ..provider import AuditProvider"),
        ("journal.stream", "import otel_audit.provider"),
        ("journal.stream", "from otel_audit import provider"),
        ("journal.stream", "from .. import AuditProvider"),
        ("proof.chain", "from ..formats import otlp"),
        ("health", "from .provider import AuditProvider"),
        ("novelty", ""),
    ],
)
def test_an_import_that_goes_up_is_found(name: str, line: str) -> None:
    """Upward, sideways, through the package itself, in a function, for types only; and a file without a floor."""
    house = {"__init__": "", "provider": "", "formats.__init__": "", "formats.otlp": "", name: line}
    assert len(upward_imports(modules_of(house))) == 1


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("journal.stream", "from .line import Line"),
        ("journal.stream", "from . import line"),
        ("journal.stream", "from ..errors import AuditError\nfrom .. import semconv as sc"),
        ("provider", "from .health import status\nimport otel_audit.journal.line"),
        ("capture.structlog", "import structlog\nfrom structlog import get_logger"),
    ],
)
def test_an_import_that_goes_down_is_allowed(name: str, line: str) -> None:
    """Its own folder, lower floors, what is listed before it on an ordered floor, and other packages."""
    house = {"__init__": "", "errors": "", "semconv": "", "health": "", "journal.__init__": "", "journal.line": ""}
    assert upward_imports(modules_of({**house, name: line})) == []


def test_a_circle_is_found() -> None:
    """Three files of one folder that import each other in a ring, one of them inside a function."""
    house = {
        "journal.a": "from .b import x",
        "journal.b": "from . import c",
        "journal.c": "def f():\n    from .a import y",
    }
    assert circles(modules_of(house)) == ["journal.a -> journal.b -> journal.c -> journal.a"]


@pytest.mark.parametrize(
    "line",
    [
        'key = "audit.record.id"',
        'key = "session.id"',
        'key = "audit.of_a_newer_draft"',
        'key = f"otel_audit.{name}"',
        'template = b\'{"audit.record.id":{"stringValue":\'',
    ],
)
def test_a_spelt_attribute_name_is_found(line: str) -> None:
    """Known names, names that look like one, prefixes in f-strings, and keys in JSON text."""
    assert len(spelt_attributes(modules_of({"journal.line": line}))) == 1


@pytest.mark.parametrize(
    "line",
    [
        '"""Writes audit.record.id."""',
        'log = logging.getLogger("otel_audit.journal")',
        'lazy = "otel_audit.journal.line"',
        'name = "otel_audit"',
        'file = "audit.jsonl"',
        'message = "audit.record.id must not be empty"',
        'version = "0.1"',
    ],
)
def test_what_is_no_attribute_name_is_left_alone(line: str) -> None:
    """Docstrings, loggers, modules, files, prose."""
    assert spelt_attributes(modules_of({"journal.line": line})) == []


def test_a_bare_public_name_is_found() -> None:
    """Classes, functions and methods; what is private, nested, overloaded or a setter needs no docstring."""
    text = '"""Job."""\nclass A:\n    def m(self): ...\n    def _p(self): ...\n    @m.setter\n    def m(self, v): ...\n'
    assert len(bare_names(modules_of({"record": text, "errors": ""}))) == 3


def test_what_is_too_long_is_found() -> None:
    """Both a file and a function in it."""
    text = "def f():\n" + "    x = 1\n" * FILE_LINES_MAX
    assert len(too_long(modules_of({"record": text}))) == 2
