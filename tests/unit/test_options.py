"""Options that people write: every kind, every mistake, and what its message says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from otel_audit.errors import ConfigurationError
from otel_audit.options import REQUIRED, Option, read_options, read_value, suggestion

TABLE = (
    Option("endpoint", "url", REQUIRED, "where the receiver is"),
    Option("timeout", "duration", 10.0, minimum=0.001),
    Option("headers", "map", {}),
    Option("compression", "enum", "none", choices=("none", "gzip")),
)


def read(kind: Any, value: Any, **options: Any) -> Any:
    """One value of a kind."""
    return read_value(Option("key", kind, **options), "somewhere.key", value)


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("str", " as it is ", " as it is "),
        ("int", 5, 5), ("int", " 5 ", 5), ("int", "-7", -7),
        ("float", 5, 5.0), ("float", "0.5", 0.5), ("float", "1e3", 1000.0),
        ("bool", True, True), ("bool", "true", True), ("bool", " ON ", True), ("bool", "yes", True),
        ("bool", False, False), ("bool", "False", False), ("bool", "0", False), ("bool", "off", False),
        ("duration", 5, 5.0), ("duration", 0.25, 0.25), ("duration", "5", 5.0), ("duration", "5s", 5.0),
        ("duration", "200ms", 0.2), ("duration", "1.5 m", 90.0), ("duration", "1h", 3600.0),
        ("duration", "2d", 172_800.0), ("duration", "250us", 25e-5), ("duration", "250µs", 25e-5), ("duration", 0, 0.0),
        ("size", 5, 5), ("size", "5", 5), ("size", "4MiB", 4 * 1024**2), ("size", "4 mib", 4 * 1024**2),
        ("size", "1kB", 1000), ("size", "1.5KiB", 1536), ("size", "2GB", 2 * 10**9), ("size", "10B", 10),
        ("list", ["a", "b"], ["a", "b"]), ("list", ("a",), ["a"]),
        ("list", "a, b,,c ", ["a", "b", "c"]), ("list", "", []),
        ("map", {"a": "1"}, {"a": "1"}), ("map", "a=1, b = x%20y%2Cz", {"a": "1", "b": "x y,z"}), ("map", "", {}),
        ("map", "a=b=c", {"a": "b=c"}),
        ("url", "https://h:8443/p?q=1", "https://h:8443/p?q=1"), ("url", " http://[::1]:4318 ", "http://[::1]:4318"),
        ("path", "/a/b", Path("/a/b")), ("path", Path("c"), Path.cwd() / "c"), ("path", "~/x", Path.home() / "x"),
        ("any", [1, {}], [1, {}]),
    ],
)  # fmt: skip
def test_a_value_is_read(kind: str, value: Any, expected: Any) -> None:
    """From Python and from text, in every way of writing it."""
    result = read(kind, value)
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("str", 5, "a string"),
        ("int", True, "an integer"), ("int", 5.0, "an integer"), ("int", "5.5", "an integer"),
        ("float", "nan", "a number"), ("float", float("inf"), "a number"), ("float", True, "a number"),
        ("bool", 1, "true or false"), ("bool", "maybe", "true or false"), ("bool", "", "true or false"),
        ("duration", -1, "a duration"), ("duration", "5 parsecs", "a duration"), ("duration", "", "a duration"),
        ("duration", "1.2.3s", "a duration"), ("duration", float("nan"), "a duration"),
        ("size", "4 M", "a size"), ("size", -1, "a size"), ("size", "0.5B", "a size"), ("size", None, "a size"),
        ("list", ["a", 1], "a list of strings"), ("list", 7, "a list of strings"), ("list", b"ab", "a list of strings"),
        ("map", "a", "a mapping"), ("map", "=1", "a mapping"), ("map", {"a": 1}, "a mapping"),
        ("url", "localhost:4318", "a URL"), ("url", "ftp://h", "a URL"), ("url", "http://", "a URL"),
        ("url", "http://h:99999", "a URL"), ("url", "http://a b", "a URL"), ("url", "http://h\r\nX: y", "a URL"),
        ("url", 5, "a URL"), ("url", "http://[::1", "a URL"), ("url", "http://h:0", "a URL"),
        ("path", "", "a path"), ("path", 7, "a path"), ("path", "a\0b", "a path"), ("path", "~nobody-here/x", "a path"),
    ],
)  # fmt: skip
def test_a_value_of_another_kind_is_refused(kind: str, value: Any, expected: str) -> None:
    """The message says where and what was expected."""
    with pytest.raises(ConfigurationError, match=rf"^somewhere\.key: expected {expected}"):
        read(kind, value)


def test_words_of_an_enum() -> None:
    """In any case of letters; another word is answered with the words that there are."""
    assert read("enum", " GZIP", choices=("none", "gzip")) == "gzip"
    with pytest.raises(ConfigurationError, match="expected one of none, gzip, got 'zstd'"):
        read("enum", "zstd", choices=("none", "gzip"))


def test_the_smallest_value() -> None:
    """What is below the minimum of its row is refused."""
    assert read("size", 1, minimum=1) == 1
    with pytest.raises(ConfigurationError, match="expected at least 1, got 0"):
        read("size", 0, minimum=1)


def test_a_table_gives_every_option() -> None:
    """Given ones parsed, absent ones and ``None`` by their default."""
    options = read_options(TABLE, "here", {"endpoint": "http://h", "timeout": "200ms", "headers": None})
    assert options == {"endpoint": "http://h", "timeout": 0.2, "headers": {}, "compression": "none"}


def test_an_unknown_key_is_answered_with_the_nearest() -> None:
    """Or with all that there are, where none is near."""
    with pytest.raises(ConfigurationError, match=r"^here: there is no option 'endpont'; did you mean 'endpoint'\?"):
        read_options(TABLE, "here", {"endpont": "http://h"})
    with pytest.raises(ConfigurationError, match="there are: endpoint, timeout, headers, compression"):
        read_options(TABLE, "here", {"zzz": 1})
    assert suggestion("x", ()) == "there are none"


def test_a_required_option_is_missed() -> None:
    """The message says what it is for."""
    with pytest.raises(ConfigurationError, match=r"^here\.endpoint: has to be given; where the receiver is"):
        read_options(TABLE, "here", {})


@pytest.mark.parametrize(
    ("kind", "value", "options"),
    [
        ("url", "http://user:s3cret@host/", {}),
        ("url", "http:// host/?token=s3cret", {}),
        ("url", "ftp://user:s3cret@host", {}),
        ("map", "s3cret", {}),
        ("map", {"Authorization": 5, "x": "s3cret"}, {}),
        ("int", "s3cret", {"secret": True}),
        ("list", [1, "s3cret"], {}),
    ],
)
def test_a_message_shows_no_secret(kind: str, value: Any, options: dict[str, Any]) -> None:
    """Neither credentials in a URL nor its query, nor values of a mapping, nor what the table calls secret."""
    with pytest.raises(ConfigurationError) as caught:
        read(kind, value, **options)
    assert "s3cret" not in str(caught.value)


def test_a_long_value_is_cut_in_the_message() -> None:
    """A whole file that was pasted into an option does not fill the log."""
    with pytest.raises(ConfigurationError) as caught:
        read("int", "x" * 10_000)
    assert len(str(caught.value)) < 200
