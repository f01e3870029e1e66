"""Splitting a refused batch: exactly the records that a working destination refuses are found."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_audit.batch import RecordBatch, StoredRecord
from otel_audit.delivery.splitting import PROBES, REFUSALS_MAX, REQUESTS_MAX, RefusedBatchError, Splitting
from otel_audit.errors import BlockedExportError, ExportError, RejectedExportError, RetryableExportError
from otel_audit.protocols import ExportResult


def batch_of(count: int) -> RecordBatch:
    """Records numbered from 1."""
    return RecordBatch("stream", {}, [StoredRecord(number, "", b"{}") for number in range(1, count + 1)])


class Receiver:
    """Refuses a part that has a bad record in it; counts what it accepts."""

    def __init__(self, bad: set[int]) -> None:
        self.bad = bad
        self.accepted: list[int] = []
        self.requests = 0

    def __call__(self, part: RecordBatch) -> ExportResult | None:
        self.requests += 1
        numbers = [record.sequence for record in part.records]
        assert numbers == sorted(numbers)
        if self.bad.intersection(numbers):
            raise RejectedExportError("bad", status=400)
        self.accepted += numbers
        return None


def refused_of(splitting: Splitting) -> list[int]:
    """Numbers of the records that were refused alone."""
    return [record.sequence for record, _ in splitting.refused]


@given(st.integers(1, 24).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(1, n), max_size=n - 1))))
def test_exactly_the_refused_are_found(case: tuple[int, set[int]]) -> None:
    """Whatever is refused, as long as one is accepted: the bad are refused, the others accepted once, in order."""
    count, bad = case
    receiver = Receiver(bad)
    splitting = Splitting(receiver)
    splitting.run(batch_of(count))
    assert set(refused_of(splitting)) == bad
    assert splitting.accepted == set(range(1, count + 1)) - bad
    assert receiver.accepted == sorted(splitting.accepted)
    assert splitting.has_evidence


@given(st.integers(25, 600), st.randoms(use_true_random=False), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_in_a_large_batch_no_good_record_is_ever_taken_for_a_bad_one(count: int, random: object, share: float) -> None:
    """However many are refused: each attempt either settles records rightly or says that nothing is accepted."""
    rng: Callable[[], float] = random.random  # type: ignore[attr-defined]
    bad = {number for number in range(1, count + 1) if rng() < share}
    receiver = Receiver(bad)
    splitting = Splitting(receiver, choose=random.sample)  # type: ignore[attr-defined]
    try:
        splitting.run(batch_of(count))
    except RefusedBatchError:
        assert not receiver.accepted
        assert receiver.requests <= REFUSALS_MAX + 2 * PROBES
        return
    assert set(refused_of(splitting)) <= bad
    assert splitting.accepted == set(receiver.accepted)
    assert len(receiver.accepted) == len(set(receiver.accepted))
    if receiver.requests < REQUESTS_MAX:
        assert set(refused_of(splitting)) == bad
        assert splitting.accepted == set(range(1, count + 1)) - bad


@pytest.mark.parametrize("count", [1, 2, 7, 48, 500, 16_384])
def test_a_receiver_that_refuses_everything_is_blocked(count: int) -> None:
    """Nothing was accepted, so nothing says that it is the records' fault; and that is found with few requests."""
    receiver = Receiver(set(range(1, count + 1)))
    splitting = Splitting(receiver)
    with pytest.raises(BlockedExportError, match="refuses every record") as caught:
        splitting.run(batch_of(count))
    assert isinstance(caught.value, RefusedBatchError)
    assert caught.value.status == 400
    assert caught.value.repair
    assert not splitting.has_evidence
    assert receiver.requests <= 2 * count + PROBES
    assert receiver.requests <= REFUSALS_MAX + PROBES


def test_a_good_record_behind_a_long_run_of_bad_ones_is_the_evidence() -> None:
    """After many refusals the last record is tried: it is accepted once, and the bad ones are found to be bad."""
    receiver = Receiver(set(range(1, 100)))
    splitting = Splitting(receiver)
    splitting.run(batch_of(100))
    assert receiver.accepted == [100]
    assert refused_of(splitting) == list(range(1, 100))


@pytest.mark.parametrize("heals_after", range(1, 9))
def test_a_destination_that_is_repaired_in_the_middle_gets_what_it_refused_before(heals_after: int) -> None:
    """What is refused before anything was accepted is no record's fault as yet: it is tried once more."""
    receiver = Receiver({1, 2, 3, 4, 6})

    def repaired(part: RecordBatch) -> ExportResult | None:
        if receiver.requests == heals_after:
            receiver.bad = {6}
        return receiver(part)

    splitting = Splitting(repaired)
    splitting.run(batch_of(8))
    assert refused_of(splitting) == [6]
    assert sorted(receiver.accepted) == [1, 2, 3, 4, 5, 7, 8]


def test_a_good_record_anywhere_is_found_at_last() -> None:
    """Other records are tried at each attempt, so one good record among many bad ones is the evidence some time."""
    bad = set(range(1, 201)) - {120}
    for _ in range(2000):
        receiver = Receiver(bad)
        try:
            Splitting(receiver).run(batch_of(200))
        except RefusedBatchError:
            continue
        assert receiver.accepted == [120]
        return
    pytest.fail("not found")


def test_many_requests_are_made_in_several_runs() -> None:
    """With a thousand refused records a run ends early, and what it found is a beginning of the batch."""
    receiver = Receiver(set(range(2, 2000)))
    splitting = Splitting(receiver)
    splitting.run(batch_of(2000))
    settled = splitting.accepted | set(refused_of(splitting))
    assert receiver.requests <= REQUESTS_MAX
    assert set(range(1, len(settled))) <= settled
    assert len(settled) > REQUESTS_MAX // 4


def test_evidence_from_elsewhere_is_enough() -> None:
    """Where the destination is known to work, a batch of which everything is refused is refused."""
    splitting = Splitting(Receiver({1, 2, 3}), evidence=True)
    splitting.run(batch_of(3))
    assert refused_of(splitting) == [1, 2, 3]


def test_the_newest_is_tried_first_where_the_others_were_refused_before() -> None:
    """One request says that the destination still refuses everything."""
    receiver = Receiver(set(range(1, 101)))
    with pytest.raises(RefusedBatchError):
        Splitting(receiver).run(batch_of(100), newest_first=True)
    assert receiver.requests == 1


def test_the_newest_is_the_evidence_against_the_others() -> None:
    """It is accepted, and sent once; the others are refused."""
    receiver = Receiver({1, 2})
    splitting = Splitting(receiver)
    splitting.run(batch_of(3), newest_first=True)
    assert receiver.accepted == [3]
    assert refused_of(splitting) == [1, 2]


@given(st.data())
def test_different_answers_at_each_try_lose_nothing(data: st.DataObject) -> None:
    """Whatever comes: a record is refused only if its own request was, and accepted only if it was."""
    accepted: set[int] = set()
    refused_alone: set[int] = set()

    def send(part: RecordBatch) -> ExportResult | None:
        numbers = [record.sequence for record in part.records]
        assert not accepted.intersection(numbers), "sent again"
        kinds = [None, RejectedExportError, RetryableExportError, BlockedExportError]
        kind = data.draw(st.sampled_from(kinds))
        if kind is None:
            accepted.update(numbers)
            return ExportResult({str(number): f"r{number}" for number in numbers})
        taken = data.draw(st.integers(0, len(numbers)))
        accepted.update(numbers[:taken])
        if kind is RejectedExportError and len(numbers) - taken == 1:
            refused_alone.add(numbers[-1])
        raise kind("no", accepted=taken)

    splitting = Splitting(send)
    failed: ExportError | None = None
    try:
        splitting.run(batch_of(data.draw(st.integers(1, 20))))
    except (RetryableExportError, BlockedExportError) as error:
        failed = error
    assert splitting.accepted == accepted
    assert set(refused_of(splitting)) <= refused_alone
    if failed is None:
        assert splitting.has_evidence


def test_partial_acceptance_splits_only_the_rest() -> None:
    """What the receiver took of a part before it refused is not sent again."""
    requests: list[list[int]] = []

    def send(part: RecordBatch) -> ExportResult | None:
        requests.append([record.sequence for record in part.records])
        if len(requests) == 1:
            raise RejectedExportError("the fourth is bad", accepted=3)
        if 4 in requests[-1]:
            raise RejectedExportError("bad")
        return None

    splitting = Splitting(send)
    splitting.run(batch_of(6))
    assert requests == [[1, 2, 3, 4, 5, 6], [4], [5, 6]]
    assert splitting.accepted == {1, 2, 3, 5, 6}
    assert refused_of(splitting) == [4]


def test_the_only_one_that_was_not_taken_is_refused() -> None:
    """All but one were accepted: that one need not be sent alone."""
    splitting = Splitting(_raising(RejectedExportError("the last is bad", accepted=2)))
    splitting.run(batch_of(3))
    assert refused_of(splitting) == [3]


@pytest.mark.parametrize("kind", [RetryableExportError, BlockedExportError])
def test_a_failure_in_the_middle_keeps_what_was_accepted(kind: type[ExportError]) -> None:
    """The rest is neither accepted nor refused; the next attempt does not send again what was accepted."""
    requests: list[list[int]] = []

    def send(part: RecordBatch) -> ExportResult | None:
        numbers = [record.sequence for record in part.records]
        requests.append(numbers)
        if len(numbers) == 4:
            raise RejectedExportError("bad")
        if numbers == [1, 2]:
            return None
        raise kind("not now", accepted=1)

    splitting = Splitting(send)
    with pytest.raises(kind):
        splitting.run(batch_of(4))
    assert splitting.accepted == {1, 2, 3}
    assert splitting.refused == []
    again = Splitting(send, accepted=splitting.accepted)
    with pytest.raises(kind):
        again.run(batch_of(4))
    assert requests[-1] == [4]


def test_ids_that_the_receiver_gave_are_kept() -> None:
    """Those of every part that was accepted."""

    def send(part: RecordBatch) -> ExportResult | None:
        if len(part.records) > 1:
            raise RejectedExportError("one at a time")
        return ExportResult({str(part.records[0].sequence): "x"})

    splitting = Splitting(send)
    splitting.run(batch_of(3))
    assert splitting.response_ids == {"1": "x", "2": "x", "3": "x"}


def _naming(refused: set[int], retried: set[int], requests: list[list[int]]) -> Callable[[RecordBatch], None]:
    """A receiver that answers for each record: these it refuses, those it does not take for now."""

    def send(part: RecordBatch) -> None:
        numbers = [record.sequence for record in part.records]
        requests.append(numbers)
        kind = RetryableExportError if retried.intersection(numbers) else RejectedExportError
        named = {number: RejectedExportError(f"bad {number}", status=400) for number in refused.intersection(numbers)}
        if named or kind is RetryableExportError:
            taken = [number for number in numbers if number not in refused | retried]
            raise kind("some", taken=taken, refused=named, response_ids={str(n): f"their-{n}" for n in taken})

    return send


def test_records_that_the_receiver_names_are_refused_without_another_request() -> None:
    """It answered for each: what it took is taken, what it refused is refused for its own reason."""
    requests: list[list[int]] = []
    splitting = Splitting(_naming({2, 5}, set(), requests))
    splitting.run(batch_of(6))
    assert requests == [[1, 2, 3, 4, 5, 6]]
    assert splitting.accepted == {1, 3, 4, 6}
    assert [(record.sequence, str(error)) for record, error in splitting.refused] == [(2, "bad 2"), (5, "bad 5")]
    assert splitting.response_ids == {str(n): f"their-{n}" for n in (1, 3, 4, 6)}


def test_named_refusals_beside_a_failure_are_noted() -> None:
    """Some it does not take for now: the others are settled all the same, and the next attempt sends only those."""
    requests: list[list[int]] = []
    splitting = Splitting(_naming({2}, {4}, requests))
    with pytest.raises(RetryableExportError):
        splitting.run(batch_of(5))
    assert splitting.accepted == {1, 3, 5}
    assert refused_of(splitting) == [2]


@pytest.mark.parametrize("count", [1, 3, 500])
def test_a_receiver_that_names_every_record_is_blocked(count: int) -> None:
    """A wrong schema refuses each record by name: still nothing says that it is the records' fault."""
    requests: list[list[int]] = []
    with pytest.raises(RefusedBatchError, match="bad 1"):
        Splitting(_naming(set(range(1, count + 1)), set(), requests)).run(batch_of(count))
    assert len(requests) == 1


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(1, n), max_size=n - 1))))
def test_a_receiver_that_names_only_the_first(case: tuple[int, set[int]]) -> None:
    """It says which is the first bad one and takes nothing: the rest is sent whole again, without the named one."""
    count, bad = case
    accepted: list[int] = []

    def send(part: RecordBatch) -> None:
        numbers = [record.sequence for record in part.records]
        if found := sorted(bad.intersection(numbers)):
            raise RejectedExportError("bad", refused={found[0]: RejectedExportError("this one")})
        accepted.extend(numbers)

    splitting = Splitting(send)
    splitting.run(batch_of(count))
    assert set(refused_of(splitting)) == bad
    assert splitting.accepted == set(accepted) == set(range(1, count + 1)) - bad
    assert len(accepted) == len(set(accepted))


def test_a_name_that_is_not_of_the_batch_is_passed_over() -> None:
    """Nothing is settled by it, and the batch is split as if nothing had been named."""

    def send(part: RecordBatch) -> None:
        if len(part.records) > 1:
            raise RejectedExportError("bad", taken=[77], refused={99: RejectedExportError("which?")})

    splitting = Splitting(send)
    splitting.run(batch_of(3))
    assert splitting.accepted == {1, 2, 3}
    assert splitting.refused == []


def _raising(error: ExportError) -> Callable[[RecordBatch], ExportResult | None]:
    def send(_: RecordBatch) -> ExportResult | None:
        raise error

    return send
