"""Object Lock: what a gateway uploads to a real S3, Ceph, cannot be deleted (`make test-objectlock`)."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from otel_audit.testing import ScriptedReceiver
from support.ceph import ACCESS, SECRET, Ceph
from support.certificates import Authority
from support.collector import GATEWAY, Collector, require_collector
from support.load import until
from support.objects import marks
from support.otlp import audit_records, post, request

pytestmark = pytest.mark.slow

LOCK = {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 1}}}


@pytest.fixture(scope="module")
def ceph() -> Iterator[Ceph]:
    require_collector()
    with Ceph() as ceph:
        yield ceph


@pytest.fixture(scope="module", params=["locked", "open"])
def archive(
    request: pytest.FixtureRequest, ceph: Ceph, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, str, list[dict[str, Any]]]:
    """A client, the bucket, and the object versions that a gateway has written into it."""
    bucket = str(request.param)
    client = ceph.client()
    client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=bucket == "locked")
    if bucket == "locked":
        client.put_object_lock_configuration(Bucket=bucket, ObjectLockConfiguration=LOCK)
    _upload(ceph, bucket, [f"r-{number}" for number in range(50)], tmp_path_factory.mktemp("tls"))
    versions = client.list_object_versions(Bucket=bucket)["Versions"]
    return client, bucket, versions


def _upload(ceph: Ceph, bucket: str, ids: list[str], directory: Path) -> None:
    authority = Authority(directory)
    with ScriptedReceiver() as search:
        environment = {
            "OTELCOL_TLS_DIR": str(authority.directory),
            "OTELCOL_S3_ENDPOINT": ceph.url,
            "OTELCOL_S3_PATH_STYLE": "true",
            "OTELCOL_S3_BUCKET": bucket,
            "OTELCOL_S3_OBJECT_AGE": "200ms",
            "OTELCOL_SEARCH_ENDPOINT": search.url,
            "AWS_ACCESS_KEY_ID": ACCESS,
            "AWS_SECRET_ACCESS_KEY": SECRET,
        }
        with Collector(GATEWAY, environment) as gateway:
            context = authority.context(authority.issue("sender"))
            for name in ids:
                assert post(gateway.audit_endpoint, request(audit_records([name])), context=context) == 200
            until(lambda: _archived(ceph.client(), bucket) >= set(ids), "everything is in the bucket")


def _archived(client: Any, bucket: str) -> set[str]:
    found: set[str] = set()
    for version in client.list_object_versions(Bucket=bucket).get("Versions", []):
        answer = client.get_object(Bucket=bucket, Key=version["Key"], VersionId=version["VersionId"])
        body = answer["Body"].read()
        found.update(marks(json.loads(gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body)))
    return found


def _refused(call: Any, **arguments: Any) -> bool:
    from botocore.exceptions import ClientError

    try:
        call(**arguments)
    except ClientError as error:
        return error.response["ResponseMetadata"]["HTTPStatusCode"] in {400, 403}
    return False


def test_what_is_archived_cannot_be_deleted(archive: tuple[Any, str, list[dict[str, Any]]]) -> None:
    """Under the lock every version stays, whatever is tried; in a bucket without one the same call deletes it."""
    client, bucket, versions = archive
    before = _archived(client, bucket)
    assert len(before) == 50
    if bucket == "open":
        for version in versions:
            client.delete_object(Bucket=bucket, Key=version["Key"], VersionId=version["VersionId"])
        assert _archived(client, bucket) == set()
        return
    soon = {"Mode": "COMPLIANCE", "RetainUntilDate": datetime.now(timezone.utc) + timedelta(minutes=1)}
    weaker = {"Mode": "GOVERNANCE", "RetainUntilDate": datetime.now(timezone.utc) + timedelta(days=2)}
    for version in versions:
        at = {"Bucket": bucket, "Key": version["Key"], "VersionId": version["VersionId"]}
        assert client.get_object_retention(**at)["Retention"]["Mode"] == "COMPLIANCE"
        assert _refused(client.delete_object, **at)
        assert _refused(client.delete_object, **at, BypassGovernanceRetention=True)
        assert _refused(client.put_object_retention, **at, Retention=soon)
        assert _refused(client.put_object_retention, **at, Retention=soon, BypassGovernanceRetention=True)
        assert _refused(client.put_object_retention, **at, Retention=weaker)
        client.delete_object(Bucket=bucket, Key=version["Key"])  # hides it behind a marker
        client.put_object(Bucket=bucket, Key=version["Key"], Body=b'{"resourceLogs":[]}')  # is one more version
    assert _archived(client, bucket) == before
    client.delete_object(Bucket=bucket, Key=versions[0]["Key"])
    assert _archived(client, bucket) == before


@pytest.mark.parametrize("archive", ["locked"], indirect=True)
def test_the_rule_of_the_bucket_is_its_owners(
    archive: tuple[Any, str, list[dict[str, Any]]], tmp_path: Path, ceph: Ceph
) -> None:
    """What the README warns of: the owner can remove the default rule, and what is written then is not locked."""
    client, bucket, versions = archive
    client.put_object_lock_configuration(Bucket=bucket, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled"})
    try:
        _upload(ceph, bucket, ["later"], tmp_path)
    finally:
        client.put_object_lock_configuration(Bucket=bucket, ObjectLockConfiguration=LOCK)
    old = {version["VersionId"] for version in versions}
    removed = 0
    for version in client.list_object_versions(Bucket=bucket)["Versions"]:
        at = {"Bucket": bucket, "Key": version["Key"], "VersionId": version["VersionId"]}
        if _refused(client.delete_object, **at):
            continue
        removed += 1
        assert version["VersionId"] not in old
    assert removed == 1
    assert "later" not in _archived(client, bucket)
