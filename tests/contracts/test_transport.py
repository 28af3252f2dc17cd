"""Every transport keeps what infra/transport/base.py promises, under the numbers given there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest

from infra.transport.base import Stored, Transport, Trimmed
from schemas.codec import PIECE_BYTES, Record
from tests.contracts.conftest import ON_DISK, OpenLog, until_full

TOPIC = "fedtwin.run.rounds"
OTHER = "fedtwin.run.models"
PLENTY = 1 << 24


def record(name: str, size: int = 8) -> Record:
    """A record that is told apart by its key, its value and its header."""
    return Record(name, name.encode().ljust(size, b"."), {"ce_subject": name})


def records(names: Iterable[str]) -> list[Record]:
    """One record for each name."""
    return [record(name) for name in names]


def everything(log: Transport, topic: str, place: int = 0, max_bytes: int = PLENTY) -> list[Stored]:
    """Read a topic to its end, as often as that takes."""
    found: list[Stored] = []
    while place < log.end(topic):
        found += log.read(topic, place, max_bytes)
        place = found[-1].offset + 1 if found else place
    return found


def names(found: Sequence[Stored]) -> list[str]:
    """The records' keys, each once, in order of where it stands last."""
    return list(dict.fromkeys(each.record.key for each in reversed(found)))[::-1]


# --- 1: a log of one partition --------------------------------------------------------------------


def test_offsets_rise_and_name_their_records(log: Transport) -> None:
    """Append gives the place of its record; reading gives each record at a higher offset."""
    places = [place for name in "abc" for place in log.append(TOPIC, [record(name)])]

    found = everything(log, TOPIC)
    offsets = [each.offset for each in found]
    assert offsets == sorted(set(offsets))
    assert names(everything(log, TOPIC, places[1])) == ["b", "c"]
    at = {each.offset: each.record.key for each in found}
    assert [at[place] for place in places] == ["a", "b", "c"]


def test_an_offset_is_never_given_twice(open_log: OpenLog) -> None:
    """The last record is forgotten and all is trimmed: who writes then, writes behind them."""
    log = open_log()
    log.append(TOPIC, records("abc"))
    last = log.end(TOPIC) - 1
    log.forget(TOPIC, "c")
    log.trim(TOPIC, log.end(TOPIC))

    assert open_log().append(TOPIC, records("d"))[0] > last


# --- 2: append is durable, and in order -----------------------------------------------------------


def test_what_was_appended_is_there_when_the_log_is_opened_again(open_log: OpenLog) -> None:
    """A run ends and is taken up again: key, value and headers are as they were, in their order."""
    log = open_log()
    log.append(TOPIC, records("abc"))
    log.close()

    found = everything(open_log(), TOPIC)
    assert names(found) == ["a", "b", "c"]
    assert {each.record.key: each.record for each in found} == {n: record(n) for n in "abc"}


def test_records_of_one_append_stand_in_their_order(log: Transport) -> None:
    """Twenty appends of five: whatever stands twice, in the end they stand in order, as told."""
    wanted = [[f"{i}/{j}" for j in range(5)] for i in range(20)]
    places = [place for keys in wanted for place in log.append(TOPIC, records(keys))]

    found = everything(log, TOPIC)
    assert names(found) == [key for keys in wanted for key in keys]
    last = {each.record.key: each.offset for each in found}
    assert [last[key] for keys in wanted for key in keys] == places


def test_a_record_may_be_as_large_as_a_piece_or_empty(log: Transport) -> None:
    """A piece with its head, and nothing at all, come back as they went."""
    large, empty = Record("large", bytes(PIECE_BYTES + 2000)), Record("empty", b"")
    log.append(TOPIC, [large, empty])

    found = {each.record.key: each.record for each in everything(log, TOPIC)}
    assert found == {"large": large, "empty": empty}


# --- 3: read --------------------------------------------------------------------------------------


def test_reading_begins_at_the_first_record_not_below_the_place(
    log: Transport, at_once: bool
) -> None:
    """The record asked for is let go: what follows it is given, from the next one on."""
    log.append(TOPIC, records("abcd"))
    place = next(each.offset for each in everything(log, TOPIC) if each.record.key == "b")
    log.forget(TOPIC, "b")

    assert "c" in names(everything(log, TOPIC, place))
    assert "".join(names(everything(log, TOPIC))) in ({"acd"} if at_once else {"acd", "abcd"})


def test_a_reader_with_little_room_gets_whole_records(log: Transport) -> None:
    """Asked for a byte at a time, the log gives a record at a time: each as it was written."""
    wanted = {name: record(name, 10_000) for name in "abcde"}
    log.append(TOPIC, list(wanted.values()))

    found = everything(log, TOPIC, max_bytes=1)
    assert names(found) == list("abcde")
    assert {each.record.key: each.record for each in found} == wanted
    assert len(log.read(TOPIC, 0, 1)) <= 1


def test_a_reader_with_room_for_three_gets_no_more_than_that(log: Transport) -> None:
    """Records of a thousand bytes, and room for three thousand."""
    log.append(TOPIC, [record(str(i), 1000) for i in range(10)])

    read = [log.read(TOPIC, 0, 3000) for _ in range(20)]
    assert max(len(each) for each in read) == 3


# --- 4: everybody sees the same -------------------------------------------------------------------


def test_two_writers_and_two_readers_see_one_order(open_log: OpenLog) -> None:
    """North and south write in turns to one topic; whoever reads it, reads one and the same log."""
    north, south = open_log(), open_log()
    for i in range(10):
        north.append(TOPIC, [record(f"north/{i}")])
        south.append(TOPIC, [record(f"south/{i}")])

    seen = everything(north, TOPIC)
    assert everything(south, TOPIC) == everything(open_log(), TOPIC) == seen
    assert names(seen) == [f"{who}/{i}" for i in range(10) for who in ("north", "south")]


def test_a_reader_at_the_end_sees_what_another_appends_next(open_log: OpenLog) -> None:
    """The reader looked often when there was nothing; the next record comes to it all the same."""
    reader, writer = open_log(), open_log()
    writer.append(TOPIC, records("a"))
    place = everything(reader, TOPIC)[-1].offset + 1
    assert [reader.read(TOPIC, place, PLENTY) for _ in range(3)] == [[], [], []]

    writer.append(TOPIC, records("b"))

    assert names(everything(reader, TOPIC, place)) == ["b"]


def test_topics_are_separate(log: Transport) -> None:
    """The same key in two topics is two records; forgetting or trimming one leaves the other."""
    log.append(TOPIC, records("ab"))
    log.append(OTHER, records("ab"))
    log.forget(TOPIC, "a")
    log.trim(TOPIC, log.end(TOPIC))

    assert names(everything(log, OTHER)) == ["a", "b"]
    assert log.topics() == sorted([TOPIC, OTHER])


# --- 5, 6: trimming -------------------------------------------------------------------------------


def test_below_the_start_a_reader_is_told_where_the_topic_begins(open_log: OpenLog) -> None:
    """One reader trims; another one that comes too late, and one at the end, learn the start."""
    log, late = open_log(), open_log()
    log.append(TOPIC, records("ab"))
    end = log.end(TOPIC)
    assert late.end(TOPIC) == end
    assert late.read(TOPIC, end, PLENTY) == []

    log.trim(TOPIC, end)

    assert late.first(TOPIC) == end
    assert late.read(TOPIC, end, PLENTY) == []
    with pytest.raises(Trimmed, match=f"begins at {end}, not at 0") as told:
        late.read(TOPIC, 0, PLENTY)
    assert told.value.first == end


def test_trimming_moves_the_start_never_back_and_leaves_what_follows(log: Transport) -> None:
    """Trimmed to the third record, again, and then to the first: the third is still the start."""
    log.append(TOPIC, records("abcde"))
    found = everything(log, TOPIC)
    third = max(each.offset for each in found if each.record.key == "c")
    kept = [each for each in found if each.offset >= third]

    for before in (third, third, 0):
        log.trim(TOPIC, before)

    assert log.first(TOPIC) == third
    assert everything(log, TOPIC, third) == kept


def test_trimming_goes_no_further_than_the_end(log: Transport) -> None:
    """Asked to trim far ahead, the log trims what is there; what comes later is read."""
    log.append(TOPIC, records("abc"))
    end = log.end(TOPIC)
    log.trim(TOPIC, end + 1000)
    log.append(TOPIC, records("d"))

    assert log.first(TOPIC) == end
    assert names(everything(log, TOPIC, end)) == ["d"]


# --- 7: forgetting --------------------------------------------------------------------------------


def test_forgetting_keys_takes_all_their_records_and_no_others(
    log: Transport, at_once: bool
) -> None:
    """A key written three times and another one are let go; the rest stays where it was.

    Nobody is given a mark of it, nor anything that was not there before.
    """
    for key in ("state", "image", "state", "kept", "state"):
        log.append(TOPIC, [record(key)])
    before = everything(log, TOPIC)
    rest = [each for each in before if each.record.key == "kept"]

    log.forget(TOPIC, "state", "image", "never written")

    found = everything(log, TOPIC)
    assert [each for each in found if each.record.key == "kept"] == rest
    assert found == rest if at_once else all(each in before for each in found)


def test_a_forgotten_key_may_be_written_again(log: Transport) -> None:
    """A copy says once more what was let go: it is there again, at a place of its own."""
    log.append(TOPIC, records("ab"))
    end = log.end(TOPIC)
    log.forget(TOPIC, "a")
    log.forget(TOPIC, "a")
    (again,) = log.append(TOPIC, records("a"))

    assert again >= end
    assert names(everything(log, TOPIC)) == ["b", "a"]


# --- 8, 9: nothing there, and the end -------------------------------------------------------------


def test_a_topic_that_nobody_wrote_to_is_empty(log: Transport) -> None:
    """It is read, trimmed and forgotten in without an error, and begins to exist by none of it."""
    log.trim(TOPIC, 5)
    log.forget(TOPIC, "a")

    assert (log.first(TOPIC), log.end(TOPIC), log.read(TOPIC, 0, PLENTY)) == (0, 0, [])
    assert log.topics() == []


def test_the_end_is_behind_the_last_record_that_is_there(log: Transport, at_once: bool) -> None:
    """Who is at the end has read everything, also when the last records were let go meanwhile."""
    log.append(TOPIC, records("abc"))
    reader = everything(log, TOPIC)[-1].offset + 1
    assert log.end(TOPIC) == reader

    log.forget(TOPIC, "b", "c")

    assert everything(log, TOPIC, reader) == []
    assert log.end(TOPIC) < reader if at_once else log.end(TOPIC) == reader
    assert log.read(TOPIC, log.end(TOPIC), PLENTY) == []
    log.forget(TOPIC, "a")
    assert everything(log, TOPIC, reader) == []
    assert log.end(TOPIC) == log.first(TOPIC) if at_once else log.end(TOPIC) == reader


def test_a_late_reader_gets_to_an_end_of_forgotten_records(open_log: OpenLog) -> None:
    """Whoever comes anew reads what is there, and then is at the end: nobody waits for a mark."""
    log = open_log()
    log.append(TOPIC, records("abc"))
    log.forget(TOPIC, "c")
    log.forget(TOPIC, "b")

    late = open_log()
    found = everything(late, TOPIC)
    assert names(found)[0] == "a"
    assert late.end(TOPIC) == found[-1].offset + 1


# --- 11: waiting ----------------------------------------------------------------------------------


def test_who_waits_then_reads_what_came(open_log: OpenLog) -> None:
    """A reader at the end waits while another appends: soon it has it, and never waits for long."""
    reader, writer = open_log(), open_log()
    place = writer.append(TOPIC, records("a"))[0] + 1
    everything(reader, TOPIC)
    reader.wait(0.01)
    writer.append(TOPIC, records("b"))

    for _ in range(100):
        if found := reader.read(TOPIC, place, PLENTY):
            break
        reader.wait(0.1)

    assert names(found)[-1] == "b"


# --- 10: a full disk ------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ON_DISK)
def test_a_full_disk_takes_nothing_that_stands(
    transport: Callable[[Path], OpenLog], small_disk: Path
) -> None:
    """Written until the disk is full: all that was said to be durable is there.

    Then somebody makes room: the same holder of the log, and a new one, go on where it stopped.
    """
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(6 << 20))
    open_log = transport(small_disk)
    log = open_log()
    written = until_full(lambda number: log.append(TOPIC, [record(str(number), 50_000)]))
    durable = [str(number) for number in range(written)]
    assert names(everything(log, TOPIC))[:written] == durable
    assert written > 5

    ballast.unlink()
    log.append(TOPIC, records("a"))
    log.close()
    again = open_log()
    again.append(TOPIC, records("b"))

    found = names(everything(again, TOPIC))
    again.close()
    assert (found[:written], found[-2:]) == (durable, ["a", "b"])


# --- 12: when a record was appended ---------------------------------------------------------------


def test_a_record_says_when_it_was_appended(log: Transport) -> None:
    """Between the moments before and behind, give or take a minute between clocks."""
    before = time.time()
    log.append(TOPIC, [record("a")])
    (found,) = everything(log, TOPIC)

    assert found.at is not None
    assert before - 60 < found.at < time.time() + 60
    assert found.record.headers["ce_subject"] == "a"
    assert set(found.record.headers) == {"ce_subject"}
