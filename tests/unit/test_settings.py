"""Configuration: from keywords, environment and file to settings; every mistake is named with its place."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import otel_audit
from otel_audit.errors import ConfigurationError
from otel_audit.journal.layout import Layout
from otel_audit.journal.streams import list_streams
from otel_audit.provider import ProviderSettings
from otel_audit.settings import OPTIONS, ProviderOptions, load_settings

NOWHERE: dict[str, Any] = {"journal": "/j", "destinations": {}}


def load(options: Mapping[str, Any] = NOWHERE, **environ: str) -> ProviderSettings:
    """Settings from keywords and an environment that has nothing else."""
    return load_settings(options, {"HOME": "/home/u", **environ})


def file_with(tmp_path: Path, text: str) -> str:
    """A configuration file."""
    path = tmp_path / "audit.toml"
    path.write_text(text)
    return str(path)


class Adds:
    """A processor."""

    def on_emit(self, record: object) -> None:
        """Add nothing."""


class Clock:
    """A clock."""

    def time_ns(self) -> int:
        """It stands still."""
        return 1


# -- the three sources --------------------------------------------------------------------------------------


def test_keywords_win_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    """Each option comes from the first source that says something of it."""
    file = file_with(tmp_path, 'durability = "disk"\nservice_name = "file"\nmax_bytes = "1GiB"\nstrict = true\n')
    settings = load(
        {**NOWHERE, "durability": "process", "config_file": file},
        OTEL_AUDIT_DURABILITY="delivered",
        OTEL_AUDIT_SERVICE_NAME="environment",
    )
    assert settings.durability == "process"
    assert settings.service_name == "environment"
    assert settings.max_bytes == 1024**3
    assert settings.strict is True


def test_the_environment_names_the_file(tmp_path: Path) -> None:
    """``OTEL_AUDIT_CONFIG``; the keyword wins over it."""
    first = file_with(tmp_path, "strict = true")
    assert load(OTEL_AUDIT_CONFIG=first).strict is True
    other = tmp_path / "other.toml"
    other.write_text("strict = false")
    assert load({**NOWHERE, "config_file": other}, OTEL_AUDIT_CONFIG=first).strict is False


def test_none_and_empty_count_as_not_given() -> None:
    """A caller may hand on what it does not have; an empty variable is as good as none."""
    settings = load({**NOWHERE, "durability": None, "retention": None}, OTEL_AUDIT_DURABILITY=" ", OTEL_AUDIT_STRICT="")
    assert settings.durability == "process"
    assert settings.retention_s is None
    assert settings.strict is False


GIVEN: dict[str, tuple[Any, str, Any]] = {
    # option: as a keyword, as text, the setting
    "journal": ("/var/audit", "/var/audit", ("journal", Path("/var/audit"))),
    "destinations": ({}, "none", ("destinations", ())),
    "service_name": ("billing", "billing", ("service_name", "billing")),
    "resource_attributes": ({"a": "1"}, "a=1", ("resource_attributes", {"a": "1"})),
    "durability": ("disk", "disk", ("durability", "disk")),
    "strict": (True, "true", ("strict", True)),
    "event_name": ("app.event", "app.event", ("default_event_name", "app.event")),
    "max_record_bytes": (65536, "64KiB", ("size_bytes_max", 65536)),
    "max_bytes": (2**30, "1GiB", ("max_bytes", 2**30)),
    "segment_bytes": (8192, "8KiB", ("segment_bytes", 8192)),
    "full_timeout": (0.25, "250ms", ("full_timeout_s", 0.25)),
    "retention": (86400, "1d", ("retention_s", 86400.0)),
    "exit_timeout": (2, "2s", ("exit_timeout_s", 2.0)),
    "allow_volatile": (True, "yes", ("allow_volatile", True)),
    "allow_network": (True, "1", ("allow_network", True)),
    "adopt": (False, "off", ("adopt", False)),
    "mode": (0o640, "0640", ("mode", 0o640)),
    "group": (0, "root", ("group", 0)),
}
OBJECTS = ("processors", "clock")


def test_every_option_is_tried_here() -> None:
    """A new option gets a row; and the keywords that type checkers know are the options."""
    assert {option.name for option in OPTIONS} == {*GIVEN, *OBJECTS}
    hints = set(ProviderOptions.__annotations__)
    assert hints == {*GIVEN, *OBJECTS, "config_file"}
    assert get_type_hints(ProviderSettings)


@pytest.mark.parametrize("name", GIVEN)
def test_each_option_works_from_each_source(tmp_path: Path, name: str) -> None:
    """As a keyword, as a variable and in the file it means the same."""
    value, text, (setting, expected) = GIVEN[name]
    rest = {key: given for key, given in NOWHERE.items() if key != name}
    quoted = f'"{text}"'
    for settings in (
        load({**rest, name: value}),
        load(rest, **{f"OTEL_AUDIT_{name.upper()}": text}),
        load({**rest, "config_file": file_with(tmp_path, f"{name} = {quoted}")}),
    ):
        assert getattr(settings, setting) == expected


def test_objects_are_given_as_keywords_only() -> None:
    """Processors (one or several) and the clock; the environment cannot hold them."""
    processor, clock = Adds(), Clock()
    settings = load(
        {**NOWHERE, "processors": [processor], "clock": clock}, OTEL_AUDIT_PROCESSORS="x", OTEL_AUDIT_CLOCK=""
    )
    assert settings.processors == (processor,)
    assert settings.clock is clock
    assert load({**NOWHERE, "processors": processor}).processors == (processor,)


def test_the_file_has_destinations_as_tables(tmp_path: Path) -> None:
    """A string or a table each."""
    file = file_with(
        tmp_path,
        '[destinations]\nlocal = "file:/var/log/audit.jsonl"\n[destinations.archive]\ntype = "http"\n'
        'url = "https://audit.example.com/v1"\nrequired = false\nstart = "now"\n',
    )
    local, archive = load({"journal": "/j", "config_file": file}).destinations
    assert (local.name, local.required, local.from_now) == ("local", True, False)
    assert (archive.name, archive.required, archive.from_now) == ("archive", False, True)


# -- mistakes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "environ", "says"),
    [
        ({"durabilty": "disk"}, {}, ["configure()", "'durabilty'", "'durability'"]),
        ({"durability": "disc"}, {}, ["configure().durability", "process, disk, delivered", "'disc'"]),
        ({"strict": "perhaps"}, {}, ["configure().strict", "true or false"]),
        ({"max_bytes": "lots"}, {}, ["configure().max_bytes", "'lots'", "MiB"]),
        ({"max_bytes": 7}, {}, ["configure().max_bytes", "1048576", "7"]),
        ({"max_record_bytes": 7}, {}, ["configure().max_record_bytes", "4096"]),
        ({"segment_bytes": 7}, {}, ["configure().segment_bytes", "4096"]),
        ({"segment_bytes": "8MiB", "max_bytes": "16MiB"}, {}, ["segment_bytes", "a quarter of max_bytes"]),
        ({"full_timeout": -1}, {}, ["configure().full_timeout"]),
        ({"event_name": "Login"}, {}, ["configure().event_name", "'Login'", "lower-case"]),
        ({"mode": 0o666 | 0o111}, {}, ["configure().mode", "octal"]),
        ({"mode": "0440"}, {}, ["configure().mode", "'0440'"]),
        ({"group": "no-such-group"}, {}, ["configure().group", "no-such-group"]),
        ({"group": True}, {}, ["configure().group"]),
        ({"processors": [object()]}, {}, ["configure().processors", "on_emit()"]),
        ({"processors": Adds}, {}, ["configure().processors", "on_emit()"]),
        ({"clock": Clock}, {}, ["configure().clock", "time_ns()"]),
        ({"resource_attributes": 7}, {}, ["configure().resource_attributes", "mapping"]),
        ({"journal": 7}, {}, ["configure().journal", "a path"]),
        ({"config_file": "/no/such.toml"}, {}, ["config_file", "/no/such.toml"]),
        ({}, {"OTEL_AUDIT_DURABILTY": "disk"}, ["OTEL_AUDIT_DURABILTY", "OTEL_AUDIT_DURABILITY"]),
        ({}, {"OTEL_AUDIT_CONFG": "x"}, ["OTEL_AUDIT_CONFG", "OTEL_AUDIT_CONFIG"]),
        ({}, {"OTEL_AUDIT_DURABILITY": "disc"}, ["OTEL_AUDIT_DURABILITY", "'disc'"]),
        ({}, {"OTEL_AUDIT_MAX_BYTES": "7"}, ["OTEL_AUDIT_MAX_BYTES", "1048576"]),
        ({}, {"OTEL_AUDIT_MODE": "rw"}, ["OTEL_AUDIT_MODE", "'rw'"]),
        ({}, {"OTEL_AUDIT_RESOURCE_ATTRIBUTES": "a"}, ["OTEL_AUDIT_RESOURCE_ATTRIBUTES"]),
    ],
)
def test_a_mistake_is_named_with_its_place(options: dict[str, Any], environ: dict[str, str], says: list[str]) -> None:
    """The option, where it was written, and what it should be."""
    with pytest.raises(ConfigurationError) as caught:
        load({**NOWHERE, **options}, **environ)
    for text in says:
        assert text in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('durabilty = "disk"', ["'durabilty'", "'durability'"]),
        ('durability = "disc"', ["audit.toml.durability", "'disc'"]),
        ("mode = 640", ["audit.toml.mode"]),
        ("durability = ", ["audit.toml is not TOML"]),
        ("[destinations.archive]\ntype = 'http'", ["audit.toml.destinations.archive.url"]),
    ],
)
def test_a_mistake_in_the_file_is_named_with_the_file(tmp_path: Path, text: str, says: list[str]) -> None:
    """Which file, and which key in it."""
    with pytest.raises(ConfigurationError) as caught:
        load({"journal": "/j", "config_file": file_with(tmp_path, text)})
    for part in [str(tmp_path / "audit.toml"), *says]:
        assert part in str(caught.value)


def test_a_file_that_is_not_text_is_a_mistake(tmp_path: Path) -> None:
    """Not a traceback of the decoder."""
    path = tmp_path / "audit.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="is not TOML"):
        load({**NOWHERE, "config_file": path})


def test_variables_of_others_are_left_alone() -> None:
    """Only what looks like a misspelt variable of ours is a mistake."""
    assert load(OTEL_AUDIT_REQUIRE="collector", OTEL_AUDIT_TEAM="payments").durability == "process"


# -- the journal's place ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "environ", "path"),
    [
        ({}, {}, "~/.local/state/otel-audit/unknown_service"),
        ({"service_name": "billing"}, {}, "~/.local/state/otel-audit/billing"),
        ({"service_name": "billing"}, {"XDG_STATE_HOME": "/state"}, "/state/otel-audit/billing"),
        ({"service_name": "billing"}, {"XDG_STATE_HOME": "relative"}, "~/.local/state/otel-audit/billing"),
        ({}, {"OTEL_SERVICE_NAME": "orders", "XDG_STATE_HOME": "/state"}, "/state/otel-audit/orders"),
        ({}, {"OTEL_RESOURCE_ATTRIBUTES": "a=b,service.name=orders", "XDG_STATE_HOME": "/s"}, "/s/otel-audit/orders"),
        ({"resource_attributes": {"service.name": "x"}}, {"XDG_STATE_HOME": "/s"}, "/s/otel-audit/x"),
        ({"service_name": "../../etc"}, {"XDG_STATE_HOME": "/s"}, "/s/otel-audit/-..-etc"),
        ({"service_name": ".."}, {"XDG_STATE_HOME": "/s"}, "/s/otel-audit/unknown_service"),
        ({"journal": "~/audit"}, {}, "~/audit"),
    ],
)
def test_the_journal_is_in_the_state_directory_of_the_service(
    options: dict[str, Any], environ: dict[str, str], path: str
) -> None:
    """As the XDG specification has it; the service's name cannot lead out of it."""
    assert load({"destinations": {}, **options}, **environ).journal == Path(path).expanduser()


def test_a_later_change_of_directory_does_not_move_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path is made absolute at once; a daemon changes to / later."""
    monkeypatch.chdir(tmp_path)
    with otel_audit.AuditProvider(load({"journal": "audit", "destinations": {}})) as provider:
        monkeypatch.chdir("/")
        provider.get_audit_logger().emit("user.login", actor="u", outcome="success")
        assert provider.settings.journal == tmp_path / "audit"
        assert len(list_streams(Layout(tmp_path / "audit"))) == 1


def test_a_user_without_a_home_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a traceback of pathlib."""
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda _: (_ for _ in ()).throw(KeyError()))
    with pytest.raises(ConfigurationError, match="home directory"):
        load_settings({"destinations": {}}, {})


def test_a_small_journal_has_small_segments() -> None:
    """A segment is removed as a whole: several must fit, or what is delivered would make no room."""
    assert load({**NOWHERE, "max_bytes": "4MiB"}).segment_bytes == 1024 * 1024
