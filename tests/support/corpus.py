"""The linter's bad configurations, what is said of them in their first lines, and how they are made to run here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

DIRECTORY = Path(__file__).parents[1] / "unit" / "collector" / "bad"
BAD = sorted(DIRECTORY.glob("*.yaml"))


@dataclass(frozen=True)
class Case:
    """A bad configuration.

    Attributes:
        rule: the rule that it is there for.
        finds: what is found in it, as rule and path.
        repairs: replacements of text after which its rule finds nothing.
        collector: what the Collector of the tests makes of it: ``accepts``, ``refuses``, or ``lacks`` a component.
        body: the configuration without the comments that say so.
    """

    rule: str
    finds: list[tuple[str, str]]
    repairs: list[tuple[str, str]]
    collector: str
    body: str

    def repaired(self, number: int = 0) -> str:
        """The configuration after one of its repairs."""
        old, new = self.repairs[number]
        assert old in self.body, old
        return self.body.replace(old, new)


def read_case(path: Path) -> Case:
    """A file of the corpus."""
    text = path.read_text(encoding="utf-8")
    finds = re.findall(r"^# finds: (\S+)(?: at (\S+))?$", text, re.MULTILINE)
    repairs = re.findall(r"^# silent with: (.*) => (.*)$", text, re.MULTILINE)
    collector = re.search(r"^# collector: (refuses|lacks)", text, re.MULTILINE)
    body = re.sub(r"^# (finds|silent with|collector): .*\n", "", text, flags=re.MULTILINE)
    return Case(
        path.stem,
        finds,
        [(old.replace(r"\n", "\n"), new.replace(r"\n", "\n")) for old, new in repairs],
        collector[1] if collector else "accepts",
        body,
    )


def case_of(rule: str) -> Case:
    """The bad configuration of a rule."""
    return read_case(DIRECTORY / f"{rule}.yaml")


def runnable(text: str, peer: str = "http://127.0.0.1:9", *, brokers: str = "", topic: str = "") -> str:
    """The same configuration with the addresses and directories of ``support.collector.Collector``.

    Args:
        text: of the configuration.
        peer: where its OTLP/HTTP exporters send to.
        brokers: its Kafka.
        topic: and its topic there.
    """
    config: dict[str, Any] = yaml.safe_load(text)
    for name, receiver in config["receivers"].items():
        if "protocols" not in receiver:
            receiver |= {
                "brokers": [brokers],
                "logs": {"topics": [topic]},
                "group_id": topic,
                "tls": {"insecure": True},
            }
            continue
        variable = "AUDIT" if "audit" in name else "HTTP"
        receiver["protocols"]["http"]["endpoint"] = f"${{env:OTELCOL_{variable}_ENDPOINT}}"
    for name, exporter in config["exporters"].items():
        kind, _, label = name.partition("/")
        if kind == "file":
            exporter["path"] = f"${{env:OTELCOL_DATA_DIR}}/{label}.jsonl"
            exporter["create_directory"] = True
        if kind == "kafka":
            exporter |= {"brokers": [brokers], "logs": {"topic": topic}, "tls": {"insecure": True}}
        if kind == "otlp_http":
            exporter["endpoint"] = peer
            exporter.setdefault("retry_on_failure", {}).update(initial_interval="50ms", max_interval="100ms")
    extensions = config.setdefault("extensions", {})
    for name, extension in extensions.items():
        if name.startswith("file_storage"):
            extension["directory"] = "${env:OTELCOL_DATA_DIR}/queue"
    extensions["health_check"] = {"endpoint": "${env:OTELCOL_HEALTH_ENDPOINT}"}
    service = config["service"]
    service["extensions"] = [*service.get("extensions", ()), "health_check"]
    service["telemetry"] = {"metrics": {"level": "none"}}
    return yaml.safe_dump(config, sort_keys=False)
