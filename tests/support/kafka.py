"""A real Apache Kafka for tests: one broker, KRaft, on the loopback interface."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.admin import NewTopic

from support.journal import needs
from support.ports import HOST, free_ports

INSTALL = Path(__file__).resolve().parents[1] / "engines" / "kafka.sh"

_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller}
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller}
advertised.listeners=PLAINTEXT://{host}:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={directory}/data
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
"""
_JAVA = (
    "-Xms128m",
    "-Xmx384m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Dorg.slf4j.simpleLogger.logFile=System.out",
)
_CLUSTER = "b3RlbC1hdWRpdC10ZXN0cw"


class Kafka:
    """A broker with its own directory and free ports.

    Entering the context starts it, leaving it kills it and removes the directory.  Without Java, or where the jars
    cannot be had, the test skips, or fails where ``OTEL_AUDIT_REQUIRE`` names ``kafka``.
    """

    def __init__(self) -> None:
        self._jars = _require_kafka()
        self._cleanup = contextlib.ExitStack()
        self._process: subprocess.Popen[bytes] | None = None
        self._directory = Path()
        self.brokers = ""

    def __enter__(self) -> Kafka:
        self._directory = Path(self._cleanup.enter_context(tempfile.TemporaryDirectory(prefix="kafka-")))
        try:
            port, controller = free_ports(2)
            self.brokers = f"{HOST}:{port}"
            settings = _PROPERTIES.format(host=HOST, port=port, controller=controller, directory=self._directory)
            (self._directory / "server.properties").write_text(settings, encoding="utf-8")
            self._run("kafka.tools.StorageTool", "format", "-t", _CLUSTER, "-c", self._directory / "server.properties")
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()
        self._cleanup.close()

    def start(self) -> None:
        """Start the broker and wait until it answers."""
        with open(self._directory / "kafka.log", "ab") as log:
            command = self._command("kafka.Kafka", self._directory / "server.properties")
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._directory
            )
        deadline = time.monotonic() + 120
        while "Kafka Server started" not in self._log_since_start():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"Kafka did not start\n{self._log()[-4000:]}")
            time.sleep(0.1)

    def kill(self) -> None:
        """End the broker at once, as a crash would; nothing happens if there is none."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def create_topic(self, name: str, partitions: int, **settings: str) -> None:
        """Make a topic with one replica; settings with ``_`` for the dots of their names."""
        configs = {key.replace("_", "."): value for key, value in settings.items()}
        with contextlib.closing(KafkaAdminClient(bootstrap_servers=self.brokers)) as admin:
            admin.create_topics([NewTopic(name, partitions, 1, topic_configs=configs)])

    def messages(self, topic: str) -> int:
        """How many messages were written to a topic."""
        return sum(self._ends(topic).values())

    def lag(self, topic: str, group: str) -> int:
        """How many messages of a topic a group has not committed yet."""
        with contextlib.closing(KafkaAdminClient(bootstrap_servers=self.brokers)) as admin:
            committed = admin.list_group_offsets(group)[group]
        ends = self._ends(topic)
        return sum(end - (committed[part].offset if part in committed else 0) for part, end in ends.items())

    def _ends(self, topic: str) -> dict[TopicPartition, int]:
        with contextlib.closing(KafkaConsumer(bootstrap_servers=self.brokers)) as consumer:
            partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic)]
            ends: dict[TopicPartition, int] = consumer.end_offsets(partitions)
            return ends

    def _run(self, program: str, *arguments: object) -> str:
        done = subprocess.run(self._command(program, *arguments), capture_output=True, text=True, timeout=120)
        if done.returncode:
            raise RuntimeError(f"{program}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        return done.stdout

    def _command(self, program: str, *arguments: object) -> list[str]:
        return ["java", *_JAVA, "-cp", f"{self._jars}/*", program, *map(str, arguments)]

    def _log(self) -> str:
        return (self._directory / "kafka.log").read_text(encoding="utf-8", errors="replace")

    def _log_since_start(self) -> str:
        return self._log().rpartition("Starting KafkaServer")[2] if self._process else ""


def _require_kafka() -> Path:
    needs(shutil.which("java"), "kafka", "there is no Java: install a runtime, 17 or newer")
    found = subprocess.run([INSTALL, "--path"], capture_output=True, text=True, check=True, timeout=30)
    jars = Path(found.stdout.strip())
    needs(jars.is_dir(), "kafka", "there is no Kafka: run tests/engines/kafka.sh")
    return jars
