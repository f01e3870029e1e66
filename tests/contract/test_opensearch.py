"""The preset ``opensearch`` against a real OpenSearch: every record once, each with its own answer."""

from __future__ import annotations

import json
import re
import urllib.error
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from otel_audit.delivery.deadletters import read_dead_letters
from otel_audit.delivery.shipper import Shipper, drain
from otel_audit.destinations import make_destination
from otel_audit.errors import BlockedExportError, RejectedExportError
from otel_audit.exporters import exporter_class
from support.delivery import append, make_journal
from support.opensearch import OpenSearch
from support.records import batch_of

PAGE = Path(__file__).resolve().parents[2] / "docs" / "destinations.md"


@pytest.fixture(scope="module")
def node() -> Iterator[OpenSearch]:
    """One node for all tests; each uses an index of its own."""
    with OpenSearch() as running:
        yield running


@pytest.fixture
def index(node: OpenSearch) -> str:
    """The name of an index that is not there yet."""
    return f"audit-{uuid.uuid4().hex[:8]}"


def exporter(node: OpenSearch, index: str, **options: Any) -> Any:
    """The exporter for that index."""
    made: Any = exporter_class("opensearch")
    return made.from_options({"url": node.url, "index": index, **options}, {}, where="destinations.search")


def ids(node: OpenSearch, index: str) -> list[str]:
    """The ids of what is stored."""
    return sorted(document["_id"] for document in node.documents(index))


def test_a_batch_is_stored_and_stored_once(node: OpenSearch, index: str) -> None:
    """Sent again, in whole or in part, every id is taken already: delivered, and no double."""
    made = exporter(node, index)
    made.export(batch_of("r-1", "r-2", "r-3"), 30.0)
    made.export(batch_of("r-1", "r-2", "r-3"), 30.0)
    made.export(batch_of("r-3", "r-4", start=3), 30.0)
    assert ids(node, index) == ["r-1", "r-2", "r-3", "r-4"]
    source = next(each["_source"] for each in node.documents(index) if each["_id"] == "r-2")
    assert source["@timestamp"] == source["timestamp"]
    assert source["record_id"] == "r-2"
    made.close()


def test_an_id_that_another_record_has_is_not_taken_for_ours(node: OpenSearch, index: str) -> None:
    """The hash of what is stored differs: the record is refused by name, the one beside it is taken."""
    made = exporter(node, index)
    made.export(batch_of("r-1"), 30.0)
    with pytest.raises(RejectedExportError) as caught:
        made.export(batch_of("r-2", "r-1", start=2), 30.0)
    assert caught.value.taken == {2}
    assert list(caught.value.refused) == [3]
    assert caught.value.refused[3].details["reason"] == "conflict"
    assert ids(node, index) == ["r-1", "r-2"]
    made.close()


def test_records_that_the_index_refuses_are_dead_letters_and_the_others_arrive(
    node: OpenSearch, index: str, tmp_path: Path
) -> None:
    """The whole way from the journal; one request is enough, and the reason shows no value of the record."""
    node.ask("PUT", f"/{index}", {"mappings": {"properties": {"attributes": {"properties": {"n": {"type": "long"}}}}}})
    journal = make_journal(tmp_path / "journal", required=["search"])
    good = append(journal, 5)
    bad = append(journal, 1, n="s3cret-value")
    good += append(journal, 5)
    spec = {"type": "opensearch", "url": node.url, "index": index, "timeout": 60}
    shipper = Shipper(journal, make_destination("search", spec, {}))
    assert drain(shipper, timeout_s=60)
    shipper.close()
    stored = [each["_source"]["record_id"] for each in node.documents(index)]
    assert set(good) <= set(stored)
    assert len(stored) == len(set(stored)) == 11  # with the journal's own first record
    [letter] = read_dead_letters(journal.layout, "search")
    assert json.loads(bytes(letter.record))["attributes"]["audit.record.id"]["stringValue"] == bad[0]
    assert letter.status == 400
    assert "mapper_parsing_exception" in letter.reason
    assert "s3cret" not in letter.reason
    journal.close()


def test_an_index_that_cannot_be_written_blocks(node: OpenSearch, index: str) -> None:
    """Read-only, or closed: nothing is refused, and it is said what to repair; then the batch goes through."""
    made = exporter(node, index)
    made.export(batch_of("r-1"), 30.0)
    node.ask("PUT", f"/{index}/_settings", {"index.blocks.write": True})
    with pytest.raises(BlockedExportError) as caught:
        made.export(batch_of("r-2", "r-3", start=2), 30.0)
    assert caught.value.status == 403
    assert caught.value.repair
    assert not caught.value.refused
    node.ask("PUT", f"/{index}/_settings", {"index.blocks.write": False})
    made.export(batch_of("r-2", "r-3", start=2), 30.0)
    assert ids(node, index) == ["r-1", "r-2", "r-3"]
    made.close()


def test_a_missing_index_that_is_not_created_blocks(node: OpenSearch, index: str) -> None:
    """A typing error in its name loses nothing."""
    node.ask("PUT", "/_cluster/settings", {"persistent": {"action.auto_create_index": "-missing*,+*"}})
    made = exporter(node, f"missing-{index}")
    with pytest.raises(BlockedExportError, match="index_not_found") as caught:
        made.export(batch_of("r-1"), 30.0)
    assert "create" in str(caught.value.repair)
    made.close()


def test_a_long_id_and_odd_bodies(node: OpenSearch, index: str) -> None:
    """An id over 512 bytes is stored under its hash; bodies of different types do not get into each other's way."""
    made = exporter(node, index)
    long_id = "ü" * 300
    made.export(batch_of(long_id, body={"a": [1, None]}), 30.0)
    made.export(batch_of("r-2", start=2, body="text"), 30.0)
    made.export(batch_of("r-3", start=3, body=7), 30.0)
    made.export(batch_of(long_id, body={"a": [1, None]}), 30.0)
    stored = {each["_source"]["record_id"]: each for each in node.documents(index)}
    assert set(stored) == {long_id, "r-2", "r-3"}
    assert stored[long_id]["_id"].startswith("sha256:")
    assert stored[long_id]["_source"]["body"] == '{"a":[1,null]}'
    made.close()


def test_the_index_template_of_the_page(node: OpenSearch) -> None:
    """It can be used as it stands, and with it attributes of any shape are taken, whatever came before."""
    [text] = re.findall(r"```json\n(\{\s*\"index_patterns\".*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    node.ask("PUT", "/_index_template/audit", json.loads(text))
    name = f"audit-records-{uuid.uuid4().hex[:8]}"
    made = exporter(node, name)
    shapes: list[Any] = [1, "text", {"b": 1}, [1, 2], None, True, 1.5]
    for start, value in enumerate(shapes, 1):
        made.export(batch_of(f"r-{start}", start=start, n=value), 30.0)
    made.export(batch_of("dotted", start=50, **{"n": 1, "n.a": 2, "n.a.b": "x"}), 30.0)
    assert len(ids(node, name)) == len(shapes) + 1
    found = node.ask("POST", f"/{name}/_search", {"query": {"term": {"attributes.audit.actor.id": "u-1"}}})
    assert found["hits"]["total"]["value"] == len(shapes) + 1
    made.close()


def test_what_is_asked_of_the_node_is_really_checked(node: OpenSearch) -> None:
    """The control: a request that is not one for ``_bulk`` is refused by it."""
    with pytest.raises(urllib.error.HTTPError):
        node.ask("POST", "/_bulk", {"no": "action"})
