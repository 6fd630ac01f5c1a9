"""What every exchange must do, ours or a third party's.

    from sharing.exchange.testing import check_exchange

    def test_my_exchange_conforms():
        check_exchange(MyExchange)

`make_exchange` makes a fresh, empty exchange each time it is called.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from threading import Thread
from typing import Any, TypeAlias

import numpy as np

from mutual_env.errors import ConformanceError
from mutual_env.types import Completion
from sharing.exchange.protocol import Exchange, Reading
from sharing.records import KINDS, Kind, Origin, Record, Rollout, Statistics, Success

MakeExchange: TypeAlias = Callable[[], Exchange]

JOIN_SECONDS = 60.0
"""How long the threads of one check may take together."""

_require = ConformanceError.unless


def gives_back_what_was_published(exchange: Exchange) -> None:
    """A record of each kind comes back equal, and has an id."""
    published: list[Record] = [_rollout("t"), _statistics("t"), _success("t")]
    ids = exchange.publish(published)
    _require(len(set(ids)) == 3, f"publish must return an id of its own for each record, got {ids}")
    reading = exchange.read("me", ["t"], KINDS, round=0)
    _same(published, reading, "what was published must be read back equal")
    read = tuple(stored.id for stored in reading.records)
    _require(read == tuple(ids), f"a record must be read under the id that publish returned, got {read} and {ids}")


def leaves_the_readers_own_out(exchange: Exchange) -> None:
    """A reader does not read itself."""
    exchange.publish([_success("t", "me"), _success("t", "you")])
    _same([_success("t", "you")], _read(exchange), "a reader must not read its own records")


def filters_by_task_kind_and_author(exchange: Exchange) -> None:
    """Nothing is returned that was not asked for."""
    exchange.publish([r for t in "tu" for a in "ab" for r in (_rollout(t, a), _statistics(t, a), _success(t, a))])
    on_u: list[Record] = [r for make in (_rollout, _statistics, _success) for r in (make("u", "a"), make("u", "b"))]
    _same(on_u, _read(exchange, "u"), "a read must return the records on the tasks asked for")
    statistics = [_statistics("t", "a"), _statistics("t", "b")]
    _same(statistics, _read(exchange, kinds=("statistics",)), "a read must return the kinds asked for")
    by_b: list[Record] = [_rollout("t", "b"), _statistics("t", "b"), _success("t", "b")]
    _same(by_b, _read(exchange, authors=["b"]), "a read must return the authors asked for")
    _same([], _read(exchange, authors=[]), "a read of no authors must return nothing")
    _same([], _read(exchange, "unknown"), "a read of an unknown task must return nothing")


def answers_in_the_order_of_the_question(exchange: Exchange) -> None:
    """Tasks as asked, then kinds as asked, then authors and indices ascending, whatever the order of publishing."""
    for author, index in (("b", 1), ("a", 1), ("b", 0), ("a", 0)):
        exchange.publish([_success("u", author, index), _success("t", author, index)])
    ordered = [_success("t", author, index) for author in "ab" for index in (0, 1)]
    others = [_success("u", author, index) for author in "ab" for index in (0, 1)]
    _same(ordered + others, _read(exchange, "t", "u"), "records must come in the order of the question")
    _same(others + ordered, _read(exchange, "u", "t"), "records must come in the order of the question")


def reads_the_latest_accepted_round(exchange: Exchange) -> None:
    """Of several rounds the latest that is accepted; with any staleness, the earliest after it where none is before."""
    exchange.publish([_success("t", round=r) for r in (2, 5, 9)])
    for round_, staleness, expected in (
        (6, 0, []),
        (6, 1, [5]),
        (6, 100, [5]),
        (6, None, [5]),
        (100, None, [9]),
        (0, None, [2]),
        (0, 100, []),
    ):
        reading = _read(exchange, round=round_, max_staleness=staleness)
        got = [stored.record.origin.round for stored in reading.records]
        asked = f"at round {round_} with max_staleness {staleness}"
        _require(got == expected, f"of rounds 2, 5 and 9 a read {asked} must return {expected}, got {got}")


def counts_what_is_too_old(exchange: Exchange) -> None:
    """`outside` counts authors, task by task and kind by kind, of whom only older records are there."""
    exchange.publish([_success("t", "a", round=1), _success("t", "b", round=5), _success("t", "b", 1, round=5)])
    reading = _read(exchange, kinds=("success",), round=5, max_staleness=2)
    found = (len(reading.records), reading.outside)
    _require(found == (2, 1), f"two records are accepted and one author's are too old, got {found}")


def does_not_see_who_is_ahead(exchange: Exchange) -> None:
    """What a peer has published of later rounds changes no answer: it depends on who is fast."""

    def answers() -> list[tuple[list[Record], int]]:
        readings = [
            _read(exchange, "t", "u", round=5, max_staleness=1, authors=authors) for authors in (None, ["a", "b", "d"])
        ]
        return [([stored.record for stored in reading.records], reading.outside) for reading in readings]

    exchange.publish([_success("t", "a", round=1), _success("t", "b", round=5), _success("u", "c", round=5)])
    before = answers()
    counts = [(len(records), outside) for records, outside in before]
    _require(counts == [(2, 1), (1, 1)], f"expected (records, outside) of [(2, 1), (1, 1)], got {counts}")
    exchange.publish([_success("t", author, round=round_) for author in "abd" for round_ in (6, 7, 8)])
    _require(answers() == before, "what a peer that is ahead has published must change no answer")


def replaces_what_has_the_same_key(exchange: Exchange) -> None:
    """The same key published again takes the place of the first, under another id."""
    first = exchange.publish([_success("t", text="yes 1")])
    second = exchange.publish([_success("t", text="yes 2")])
    _require(first != second, f"a record that is published again must get an id of its own, got {first} twice")
    _same([_success("t", text="yes 2")], _read(exchange), "the same key published again must replace the first")
    scanned = list(exchange.scan())
    _require(scanned == [_success("t", text="yes 2")], f"a scan must not see what was replaced, got {scanned!r:.200}")


def scans_in_the_order_of_publishing(exchange: Exchange) -> None:
    """Every record, however many there are."""
    published: list[Record] = [_success(f"t{i % 7}", index=i) for i in range(2500)]
    for start in range(0, 2500, 500):
        exchange.publish(published[start : start + 500])
    _require(list(exchange.scan()) == published, "a scan must go through everything in the order of publishing")


def takes_nothing_as_nothing(exchange: Exchange) -> None:
    """Publishing nothing, and reading from an empty exchange."""
    _require(tuple(exchange.publish([])) == (), "publishing nothing must return no ids")
    _require(list(exchange.scan()) == [], "an empty exchange must scan as nothing")
    _same([], _read(exchange), "an empty exchange must read as nothing")


def serves_several_threads(exchange: Exchange) -> None:
    """Threads that publish and read at once lose nothing."""
    failed: list[BaseException] = []

    def work(author: str) -> None:
        try:
            for index in range(50):
                exchange.publish([_success("t", author, index)])
                exchange.read(author, ["t"], KINDS, round=0)
        except Exception as error:  # a thread's error would be printed and lost
            failed.append(error)

    threads = [Thread(target=work, args=(f"a{n}",), daemon=True) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=JOIN_SECONDS)
    _require(not any(thread.is_alive() for thread in threads), f"threads were not done after {JOIN_SECONDS} s each")
    _require(not failed, f"a thread that publishes and reads must not fail: {failed[:1]}")
    found = len(_read(exchange).records)
    _require(found == 200, f"of 200 records that four threads published {found} are there")


def closes_twice(exchange: Exchange) -> None:
    """Closing is safe to repeat."""
    exchange.close()
    exchange.close()


CONTRACT: tuple[Callable[[Exchange], None], ...] = (
    gives_back_what_was_published,
    leaves_the_readers_own_out,
    filters_by_task_kind_and_author,
    answers_in_the_order_of_the_question,
    reads_the_latest_accepted_round,
    counts_what_is_too_old,
    does_not_see_who_is_ahead,
    replaces_what_has_the_same_key,
    scans_in_the_order_of_publishing,
    takes_nothing_as_nothing,
    serves_several_threads,
    closes_twice,
)
"""Each check takes a fresh exchange; its docstring says what it asks."""


def check_exchange(make_exchange: MakeExchange) -> None:
    """Raise a ConformanceError that says what an exchange broke."""
    for check in CONTRACT:
        with closing(make_exchange()) as exchange:
            check(exchange)


def _read(exchange: Exchange, *task_ids: str, kinds: Sequence[Kind] = KINDS, round: int = 0, **how: Any) -> Reading:
    return exchange.read("me", task_ids or ("t",), kinds, round=round, **how)


def _same(expected: Sequence[Record], reading: Reading, sentence: str) -> None:
    got = [stored.record for stored in reading.records]
    _require(got == list(expected), f"{sentence}: expected {list(expected)!r:.300}, got {got!r:.300}")


def _origin(task_id: str, author: str, round_: int) -> Origin:
    return Origin(task_id, author, round_, 3, "some tokenizer", "some verifier")


def _rollout(task_id: str, author: str = "a", *, round: int = 0) -> Rollout:
    ids, logprobs = np.array([7, 0, 2**31 - 1], np.int32), np.array([-0.1, -1e-300, -700.0])
    completion = Completion("yes é\n\0", ids, logprobs, "length", 3, "some tokenizer")
    return Rollout(_origin(task_id, author, round), 0, completion, 0.1, False)


def _statistics(task_id: str, author: str = "a", *, round: int = 0) -> Statistics:
    return Statistics(_origin(task_id, author, round), 3, 1.1, 1.01)


def _success(task_id: str, author: str = "a", index: int = 0, *, text: str = "yes", round: int = 0) -> Success:
    return Success(_origin(task_id, author, round), index, text, "stop", 1.0)
