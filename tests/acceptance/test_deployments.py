"""Kubernetes manifests and the Compose file: they fit their schemas, their configurations, and each other."""

from __future__ import annotations

import os
import re
import shutil
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from compose_spec import PyCompose

from support.collector import CONFIGURATIONS, GATEWAY_FILES, Collector, require_collector, validate
from support.journal import needs
from support.otlp import audit_records, post, request

KUBERNETES = sorted((CONFIGURATIONS / "kubernetes").glob("*.yaml"))
COMPOSE = CONFIGURATIONS / "compose" / "compose.yaml"
VERSIONS = ("1.31", "1.37")

# The ConfigMaps that the README has created, and what comes from the Secrets that it has created.
CONFIGMAPS = {
    "otelcol-agent": "agent/forward.yaml",
    "otelcol-gateway": "gateway/config.yaml",
    "otelcol-kafka-gateway": "scale-out/gateway.yaml",
    "otelcol-clickhouse": "scale-out/clickhouse.yaml",
    "otelcol-archive": "scale-out/archive.yaml",
}
SECRETS = {
    "otelcol-gateway": {"OTELCOL_S3_BUCKET": "audit", "OTELCOL_SEARCH_ENDPOINT": "https://search.invalid"},
    "otelcol-clickhouse": {"OTELCOL_CLICKHOUSE_PASSWORD": "secret"},
    "otelcol-archive": {"OTELCOL_S3_BUCKET": "audit"},
}


def _objects() -> list[Any]:
    return [
        pytest.param(each, id=f"{path.stem}-{each['kind']}-{each['metadata']['name']}")
        for path in KUBERNETES
        for each in yaml.safe_load_all(path.read_text(encoding="utf-8"))
    ]


def _pods() -> Iterator[tuple[str, Mapping[str, Any]]]:
    for param in _objects():
        (each,) = param.values
        if "template" in each.get("spec", {}):
            yield f"{each['kind']} {each['metadata']['name']}", each["spec"]["template"]["spec"]


PODS = dict(_pods())


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("thing", _objects())
def test_a_manifest_fits_the_schema_of_kubernetes(thing: dict[str, Any], version: str) -> None:
    """Every object is valid, and is not any more with a misspelt key."""
    kubernetes_validate.validate(thing, version, strict=True)
    broken = {**thing, "spec": {**thing["spec"], "selektor": {}}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, version, strict=True)


@pytest.mark.parametrize("name", PODS)
def test_a_pod_gives_its_collector_what_the_configuration_wants(name: str) -> None:
    """Each variable that a pod sets is one of its configuration, which is valid with exactly those."""
    pod = PODS[name]
    (container,) = (each for each in [*pod["containers"], *pod.get("initContainers", ())] if each["name"] == "otelcol")
    volumes = {each["name"]: each for each in pod["volumes"]}
    config = CONFIGURATIONS / CONFIGMAPS[volumes["config"]["configMap"]["name"]]
    variables = {each["name"]: str(each["value"]) for each in container["env"]}
    for source in container.get("envFrom", ()):
        variables.update(SECRETS[source["secretRef"]["name"]])
    _check_variables(config, variables)
    mounted = {each["mountPath"] for each in container["volumeMounts"]}
    files = [value for variable, value in variables.items() if variable.endswith("_FILE")]
    assert all(any(file.startswith(f"{mount}/") for mount in mounted) for file in files)
    assert ("/var/lib/otelcol-audit" in mounted) == ("OTELCOL_DATA_DIR" in config.read_text(encoding="utf-8"))
    assert container["args"] == ["--config=/etc/otelcol/config.yaml"]


def test_a_service_names_ports_that_its_pods_have() -> None:
    """Every service selects pods of a workload in its file and names ports of their containers."""
    for path in KUBERNETES:
        things = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
        workloads = [each for each in things if "template" in each.get("spec", {})]
        for service in (each for each in things if each["kind"] == "Service"):
            (workload,) = (
                each
                for each in workloads
                if each["spec"]["template"]["metadata"]["labels"] == service["spec"]["selector"]
            )
            pod = workload["spec"]["template"]["spec"]
            containers = [*pod["containers"], *pod.get("initContainers", ())]
            ports = {port["name"] for container in containers for port in container.get("ports", ())}
            assert {port.get("targetPort", port["name"]) for port in service["spec"]["ports"]} <= ports


def test_no_two_pods_can_work_on_one_queue() -> None:
    """Volumes of queues are for one pod at a time and are kept; a DaemonSet never runs two on a node."""
    seen = 0
    for param in _objects():
        (each,) = param.values
        for claim in each.get("spec", {}).get("volumeClaimTemplates", ()):
            seen += 1
            assert claim["spec"]["accessModes"] == ["ReadWriteOncePod"]
            kept = each["spec"]["persistentVolumeClaimRetentionPolicy"]
            assert kept == {"whenDeleted": "Retain", "whenScaled": "Retain"}
        if each["kind"] == "DaemonSet":
            seen += 1
            assert each["spec"]["updateStrategy"]["rollingUpdate"] == {"maxUnavailable": 1}
    assert seen == 3


# -- Compose ----------------------------------------------------------------------------------------------------


def _compose() -> dict[str, Any]:
    parsed: dict[str, Any] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
    return parsed


def test_the_compose_file_fits_the_specification() -> None:
    """It is valid, and is not any more with a misspelt key, or with a volume that nobody defines."""
    PyCompose.from_yaml(yaml.safe_dump(_compose())).validate()
    misspelt, undefined = _compose(), _compose()
    misspelt["services"]["kafka"]["restrat"] = misspelt["services"]["kafka"].pop("restart")
    del undefined["volumes"]["tls"]
    for broken in (misspelt, undefined):
        with pytest.raises(ValueError, match=r"restrat|not defined"):
            PyCompose.from_yaml(yaml.safe_dump(broken)).validate()


def test_the_services_fit_their_configurations_and_each_other() -> None:
    """Each Collector's variables are those of the file that it mounts; hosts that it names are services."""
    services = _compose()["services"]
    checked = 0
    for service in services.values():
        mounts = dict(each.split(":")[:2] for each in service.get("volumes", ()))
        for source in (each for each in mounts if each.startswith(".")):
            assert (COMPOSE.parent / source).is_file(), source
        config = next((source for source, to in mounts.items() if to == "/etc/otelcol/config.yaml"), None)
        if config is None:
            continue
        checked += 1
        path = (COMPOSE.parent / config).resolve()
        _check_variables(path, service["environment"])
        hosts = re.findall(r"(?:^|//)([a-z]+):\d+", "\n".join(service["environment"].values()), re.MULTILINE)
        assert set(hosts) <= services.keys()
        assert ("/var/lib/otelcol-audit" in mounts.values()) == ("OTELCOL_DATA_DIR" in path.read_text(encoding="utf-8"))
    assert checked == 4


def test_what_prepare_makes_lets_the_agent_in(tmp_path: Path) -> None:
    """The script's certificates work between a real gateway and a client with the agent's; run again it keeps them."""
    require_collector()
    needs(shutil.which("openssl"), "openssl", "there is no openssl")
    data = tmp_path / "data"
    data.mkdir()
    variables = {"TLS_DIR": str(tmp_path), "DATA_DIRECTORIES": str(data), "COLLECTOR_USER": str(os.getuid())}
    script = COMPOSE.parent / "prepare.sh"
    made = []
    for _ in range(2):
        done = subprocess.run(
            ["sh", script], env={**os.environ, **variables}, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        made.append({path.name: path.read_bytes() for path in tmp_path.glob("*.crt")})
    assert made[0] == made[1]
    assert made[0].keys() == {"ca.crt", "tls.crt", "agent.crt"}
    context = ssl.create_default_context(cafile=tmp_path / "ca.crt")
    context.load_cert_chain(tmp_path / "agent.crt", tmp_path / "agent.key")
    with Collector(GATEWAY_FILES, {"OTELCOL_TLS_DIR": str(tmp_path)}) as gateway:
        assert post(gateway.audit_endpoint, request(audit_records(["r-1"])), context=context) == 200


def _check_variables(config: Path, variables: Mapping[str, str]) -> None:
    """Each variable for the Collector is one that the configuration reads, and the Collector accepts it with them."""
    known = set(re.findall(r"\$\{env:(OTELCOL_\w+)", config.read_text(encoding="utf-8")))
    ours = {name: value for name, value in variables.items() if name.startswith("OTELCOL_")}
    assert ours.keys() <= known
    checked = validate(config, ours)
    assert checked.returncode == 0, checked.stderr
