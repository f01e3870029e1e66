"""However a process ends: what it had emitted is delivered, by itself or by the next one that uses its journal."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from otel_audit import semconv as sc
from otel_audit.journal.layout import Layout
from otel_audit.journal.streams import DEAD, list_streams
from support.program import Place
from support.provider import stored


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A journal and its destination."""
    return Place(tmp_path)


@pytest.mark.parametrize(
    ("ends", "code"),
    [
        ("", 0),
        ("sys.exit(3)", 3),
        ("raise ZeroDivisionError", 1),
        ("signal.raise_signal(signal.SIGINT)", -signal.SIGINT),
    ],
)
def test_a_process_that_ends_in_order_delivers_by_itself(place: Place, ends: str, code: int) -> None:
    """The end of the program, ``sys.exit``, an exception that nobody caught, Ctrl-C: everything arrives before."""
    errors = place.run(f"configure()\nfor n in range(100): emit()\n{ends}", code)
    assert len(place.returned) == 100
    assert place.missing() == set()
    assert "still to be delivered" not in errors


@pytest.mark.parametrize(
    ("ends", "code"),
    [
        ("signal.raise_signal(signal.SIGTERM)", -signal.SIGTERM),
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("os._exit(0)", 0),
        ("os.abort()", -signal.SIGABRT),
    ],
)
def test_a_process_that_just_ends_loses_nothing(place: Place, ends: str, code: int) -> None:
    """No handler runs: what it had not delivered itself, the next one does; each record is in the journal once."""
    place.run(f"configure(Down())\nfor n in range(100): emit()\n{ends}", code)
    assert len(place.returned) == 100
    assert [record.record_id for record in stored(place.journal)] == place.returned
    place.deliver_the_rest()
    assert place.missing() == set()


def test_a_process_that_is_killed_while_it_ships_loses_nothing(place: Place) -> None:
    """Some batches are delivered, some are not, and a cursor is perhaps half written."""
    process = place.start(
        """
        configure()
        emit()
        print("emitted", flush=True)
        while True: emit()
        """
    )
    assert process.stdout is not None
    process.stdout.readline()
    while len(place.arrived) < 100:
        assert process.poll() is None
    process.kill()
    process.communicate(timeout=60)
    place.deliver_the_rest()
    assert len(place.returned) > 100
    assert place.missing() == set()


def test_the_journal_stays_open_at_exit(place: Place) -> None:
    """A handler that was registered earlier runs later: what it emits is journaled, and shipped at the next start."""
    place.run("atexit.register(lambda: emit('late'))\nconfigure()\nemit('early')")
    assert [record.body for record in stored(place.journal)][-1:] == ["late"]
    assert sc.SEQUENCE_END not in stored(place.journal, control=True)[-1].attributes
    [stream] = list_streams(Layout(place.journal))
    assert stream.owner_state() == DEAD
    place.deliver_the_rest()
    assert place.missing() == set()
    assert len(place.returned) == 2


def test_the_first_record_may_come_at_exit(place: Place) -> None:
    """Nothing was emitted before, no thread runs, and none may be started any more."""
    place.run("configure()\natexit.register(lambda: emit('late'))")
    place.deliver_the_rest()
    assert place.missing() == set()
    assert len(place.returned) == 1


def test_the_standard_loggers_shutdown_does_not_end_auditing(place: Place) -> None:
    """``logging.shutdown`` runs at exit and closes our handler; a record that comes after it is journaled."""
    place.run(
        """
        def late(): logging.getLogger("audit").info("user.late", extra={"actor": "u", "outcome": "success"})
        logging.shutdown_before = atexit.unregister(logging.shutdown)
        atexit.register(late)
        atexit.register(logging.shutdown)
        configure(loggers=["audit"])
        late()
        """
    )
    assert [record.event_name for record in stored(place.journal)] == ["user.late", "user.late"]


def test_an_explicit_shutdown_ends_the_stream_in_order(place: Place) -> None:
    """Everything is delivered and nothing is left in the journal; the exit has nothing to do."""
    place.run("configure()\nemit()\nassert otel_audit.shutdown(60)")
    assert place.missing() == set()
    assert list_streams(Layout(place.journal)) == []


@pytest.mark.parametrize("exporter", ["Down()", "Hangs()"])
def test_a_destination_that_is_down_delays_the_exit_by_no_more_than_is_allowed(place: Place, exporter: str) -> None:
    """The process ends although the destination never answers; it says that something is left, and where."""
    errors = place.run(f"configure({exporter}, exit_timeout=0.3)\nfor n in range(10): emit()")
    assert "11 records are still to be delivered" in errors
    assert str(place.journal) in errors
    place.deliver_the_rest()
    assert place.missing() == set()


def test_records_of_daemon_threads_are_kept(place: Place) -> None:
    """They emit until the interpreter stops them, somewhere in the middle."""
    place.run(
        """
        configure()
        def work():
            while True:
                emit()
                time.sleep(0.001)
        for n in range(3): threading.Thread(target=work, daemon=True).start()
        time.sleep(0.3)
        """
    )
    place.deliver_the_rest()
    assert place.missing() == set()
    assert len(place.returned) > 10


@pytest.mark.parametrize("ends", ["os._exit(0)", "sys.exit(0)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_a_forked_child_loses_nothing(place: Place, ends: str) -> None:
    """However it ends, and although its parent goes on and ends in order."""
    place.run(
        f"""
        configure()
        emit("parent")
        if os.fork() == 0:
            for n in range(50): emit("child")
            {ends}
        os.wait()
        emit("parent")
        """
    )
    place.deliver_the_rest()
    assert len(place.returned) == 52
    assert place.missing() == set()


def test_a_parent_that_ends_before_its_child_loses_nothing(place: Place) -> None:
    """As a daemoniser does: the child goes on alone."""
    process = place.start(
        """
        configure()
        emit("parent")
        if os.fork() != 0:
            os._exit(0)
        os.setsid()
        for n in range(50): emit("child")
        """
    )
    process.communicate(timeout=120)  # until the child has closed its standard output, too
    place.deliver_the_rest()
    assert len(place.returned) == 51
    assert place.missing() == set()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_children_of_multiprocessing_lose_nothing(place: Place, method: str) -> None:
    """They skip ``atexit``; a spawned one configures for itself."""
    program = place.path / "program.py"
    program.write_text(
        f"""
import multiprocessing, sys
import otel_audit

def work(name, root, arrived, returned):
    if "{method}" == "spawn":
        otel_audit.configure(journal=root, destinations={{"one": {{"type": "file", "path": arrived}}}})
    audit = otel_audit.get_audit_logger()
    for n in range(20):
        receipt = audit.emit("user.login", actor=name, outcome="success")
        with open(returned, "a") as file:
            file.write(receipt.record_id + "\\n")

def main(root, arrived, returned):
    otel_audit.configure(journal=root, destinations={{"one": {{"type": "file", "path": arrived}}}})
    context = multiprocessing.get_context("{method}")
    workers = [context.Process(target=work, args=(f"w{{n}}", root, arrived, returned)) for n in range(3)]
    for worker in workers: worker.start()
    for worker in workers: worker.join()
    sys.exit(max(worker.exitcode for worker in workers))
"""
    )
    place.run(
        """
        sys.path.insert(0, os.getcwd())
        import program
        program.main(root, arrived, returned)
        """
    )
    place.deliver_the_rest()
    assert len(place.returned) == 60
    assert place.missing() == set()


def test_many_short_processes_lose_nothing(place: Place) -> None:
    """Each emits one record and ends before it was delivered; one that comes later delivers all."""
    place.run(
        """
        configure(Down())
        for n in range(30):
            if os.fork() == 0:
                emit()
                os._exit(0)
        while True:
            try: os.wait()
            except ChildProcessError: break
        os._exit(0)
        """
    )
    assert len(list_streams(Layout(place.journal))) == 30
    place.deliver_the_rest()
    assert len(place.returned) == 30
    assert place.missing() == set()
    assert list_streams(Layout(place.journal)) == []
