"""A federation behind locks: who belongs to it works as without them, and who does not is told so.

Each role comes with its own password through TLS and may do what the access list says. Whoever is
refused ends with one line and exit code 3, the broker's log has a line about it, and the run goes
on to the same bytes.
"""

from __future__ import annotations

import re
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from kafka import KafkaAdminClient

from experiments.system import SITE
from infra.kafka import connected
from infra.rights import AccessList
from infra.topics import Administration, Planned
from infra.transport.kafka import Kafka
from schemas.codec import Record
from schemas.errors import Forbidden, ServiceError
from schemas.messages import RoundClosed
from schemas.rights import Cluster, Grant, grants
from schemas.topics import Names
from tests.distributed.conftest import Found
from tests.distributed.federation import PATIENCE, ended_as_undisturbed, of_kind
from tests.guarded import CREW, Guarded, user_of
from tests.services import new_run

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.slow]
OTHER = "locality"
"""A site whose name begins as ours does."""
SLAMS = 12
"""Connections that are reset; each one may meet a client at its weak moment."""
LONG = 20.0
"""Seconds in which whoever is refused has ended, and whoever was let in has noticed nothing."""


def test_each_comes_as_itself_and_the_model_is_the_same(found: Found, guarded: Guarded) -> None:
    """Two programs of twins that share a group, a standby of the aggregator: byte for byte."""
    run = found(guarded=guarded)
    run.start_all()
    run.start("aggregator", "--standby", name="aggregator-2")
    run.start("twins", name="twins-2")
    run.finish(seconds=2 * PATIENCE)  # it is the first to come to a broker that has just begun

    ended_as_undisturbed(run)
    assert run.letters() == []


# --- who does not belong to it --------------------------------------------------------------------


def mistaken(guarded: Guarded, folder: Path) -> dict[str, tuple[dict[str, str], str, str]]:
    """Who comes to the door of a running federation: as whom, what it is told, what is logged."""
    wrong = folder / "wrong"
    wrong.write_text("hush")
    nobody = {"FEDTWIN_KAFKA_USER": "", "FEDTWIN_KAFKA_PASSWORD_FILE": ""}
    return {
        "wrong-password": (
            {"FEDTWIN_KAFKA_PASSWORD_FILE": str(wrong)},
            "user or password is wrong",
            "Failed authentication with /127.0.0.1",
        ),
        "no-certificate": (
            {"FEDTWIN_KAFKA": guarded.mutual, **nobody},
            "it wants to see a certificate, and we have none",
            "SSL handshake failed",
        ),
        "other-site": (
            guarded.environment(user_of("twins", OTHER)),
            f"Kafka gives no right to read fedtwin.*classes.{SITE}",
            f"Principal = User:fedtwin-site-{OTHER} is Denied",
        ),
    }


def test_who_is_refused_gets_a_line_and_nobody_else_notices(
    found: Found, guarded: Guarded, tmp_path: Path
) -> None:
    """A wrong password, no certificate, and a site of the same run that hosts another's twins.

    The line says why, the exit code is 3, the broker's log tells of it, and the run ends as if
    nobody had come.
    """
    run = found(guarded=guarded)
    with closing(AccessList(guarded.keeper)) as access:
        access.apply(grants(run.names, "federation", [SITE, OTHER], run.entities, CREW))
    run.start_all("proxy")  # so that it is not over before all have come
    run.until(lambda: of_kind(run, RoundClosed) >= 1)

    for name, (environment, words, logged) in mistaken(guarded, tmp_path).items():
        before = len(guarded.said())
        program = run.start("twins", "entity-000", name=name, environment=environment)
        run.until(lambda program=program: program.code is not None, LONG)  # type: ignore[misc]
        (line,) = run.words(name)
        assert program.code == ServiceError.exit_code, line
        assert re.search(words, line), line
        assert "hush" not in line
        assert logged in guarded.said()[before:]
        del run.programs[name]

    run.start("proxy")
    run.finish()
    assert not [each for program in run.programs.values() for each in program.ends]
    ended_as_undisturbed(run)
    assert run.letters() == []


@pytest.mark.parametrize(
    ("role", "topic", "operation"),
    [
        ("aggregator", "rounds", "write"),
        ("twins", f"classes.{SITE}", "read"),
        ("twins", f"twins.{SITE}", "read"),
    ],
)
def test_a_right_that_is_withdrawn_in_mid_run_ends_its_program(
    found: Found, guarded: Guarded, role: str, topic: str, operation: str
) -> None:
    """With one line and exit code 3, soon: no traceback, and no asking again for ever.

    Granted once more and started again it goes on, to the same bytes.
    """
    run = found(guarded=guarded)
    clusters: tuple[Cluster, Cluster] = "federation", "site"
    everything = {
        cluster: grants(run.names, cluster, [SITE], run.entities, CREW) for cluster in clusters
    }
    who = f"User:{user_of(role, SITE)}"
    run.start_all("proxy")
    run.until(lambda: of_kind(run, RoundClosed) >= 1)

    with closing(AccessList(guarded.keeper)) as access:
        for each in everything.values():
            lost = [
                (g.principal, g.operation) == (who, operation) and g.name.endswith(f".{topic}")
                for g in each
            ]
            access.apply([g for g, gone in zip(each, lost, strict=True) if not gone])
    name = f"{role}-1"
    run.until(lambda: run.programs[name].code is not None, LONG)
    line = run.words(name)[-1]
    assert run.programs[name].code == ServiceError.exit_code
    assert line.startswith(f"{role}: Kafka gives no right to ")
    assert topic in line
    assert not [each for each in run.words(name) if "Traceback" in each]

    with closing(AccessList(guarded.keeper)) as access:
        for each in everything.values():
            access.apply(each)
    run.again(name)
    run.start("proxy")
    run.finish()
    ended_as_undisturbed(run)


# --- what proves who one is is exchanged ----------------------------------------------------------


def test_passwords_are_exchanged_in_mid_run(found: Found, guarded: Guarded) -> None:
    """Each role's, at the broker and in its file; then all connections end.

    No program ends, the old passwords open nothing, and the run ends as if nothing had been.
    """
    run = found(guarded=guarded)
    run.start_all("proxy")
    run.until(lambda: of_kind(run, RoundClosed) >= 1)

    old = guarded.settings(user_of("twins", SITE))
    for role in ("aggregator", "twins", "producers", "proxy"):
        user = user_of(role, SITE)
        guarded.exchange(user, f"new-pass-of-{user}")
        guarded.hand_out(user, f"new-pass-of-{user}")
    guarded.restart()
    run.start("proxy")
    run.finish()

    assert not [each for program in run.programs.values() for each in program.ends]
    with pytest.raises(Forbidden, match="user or password is wrong"):
        connected(old, KafkaAdminClient)
    ended_as_undisturbed(run)


def test_who_still_has_the_old_password_ends_with_a_line(found: Found, guarded: Guarded) -> None:
    """The broker was told the new one and the aggregator's file was not: exit code 3, soon.

    With the new one in its file it is started again, and the run goes on to the same bytes.
    """
    run = found(guarded=guarded)
    run.start_all("proxy")
    run.until(lambda: of_kind(run, RoundClosed) >= 1)

    user = user_of("aggregator", SITE)
    guarded.exchange(user, "tulip-7")
    guarded.restart()
    run.until(lambda: run.programs["aggregator-1"].code is not None, 2 * LONG)
    line = run.words("aggregator-1")[-1]
    assert run.programs["aggregator-1"].code == ServiceError.exit_code, line
    assert "does not let us in any more: user or password is wrong" in line
    assert not [each for each in run.words("aggregator-1") if "Traceback" in each]

    guarded.hand_out(user, "tulip-7")
    run.again("aggregator-1")
    run.start("proxy")
    run.finish()
    ended_as_undisturbed(run)


def test_who_is_reset_at_the_door_again_and_again_comes_in_when_it_opens(guarded: Guarded) -> None:
    """Behind the port of a broker that is away somebody resets each connection, as balancers do.

    Once the broker is back a reader that followed topics goes on, with those that it knew and with
    one that is new to it: kafka-python's own would read nothing from that for ever.
    """
    papers, names = guarded.authority.papers("north-3"), Names(new_run())
    settings = replace(
        guarded.keeper, servers=guarded.mutual, ca_file=guarded.authority.ca,
        cert_file=papers.cert, key_file=papers.key,
    )  # fmt: skip
    known, fresh = names.federation("rounds"), names.federation("models")
    with (
        closing(Administration(guarded.keeper)) as topics,
        closing(AccessList(guarded.keeper)) as access,
    ):
        topics.apply([Planned(known, {}), Planned(fresh, {})])
        access.apply(
            [
                Grant("User:CN=north-3", "topic", topic, what)
                for topic in (known, fresh)
                for what in ("read", "write")
            ]
        )
    with closing(Kafka(settings)) as log:
        log.append(fresh, [Record("a", b"1")])
        log.append(known, [Record("b", b"2")])
        assert keys_of(log, known, 0) == ["b"]

        with guarded.slammed() as came:
            until = time.monotonic() + LONG
            while len(came) < SLAMS and time.monotonic() < until:
                log.wait(0.05)

        assert keys_of(log, fresh, 0) == ["a"]
        for topic, key in ((known, "c"), (fresh, "d")):
            (place,) = log.append(topic, [Record(key, b"3")])
            assert keys_of(log, topic, place) == [key]
    with closing(AccessList(guarded.keeper)) as access:
        access.rm(names)


def keys_of(log: Kafka, topic: str, place: int) -> list[str]:
    """The keys of what lies in a topic from a place on, as soon as there is something."""
    until = time.monotonic() + LONG
    while not (found := log.read(topic, place, 1 << 20)) and time.monotonic() < until:
        log.wait(0.05)
    return [each.record.key for each in found]


def test_a_certificate_is_exchanged_without_a_new_connection_object(guarded: Guarded) -> None:
    """Ours is another one after the broker's restart, and its name the only one with rights."""
    first, second = guarded.authority.papers("north-1"), guarded.authority.papers("north-2")
    topic = Names(new_run()).federation("rounds")
    settings = replace(
        guarded.keeper, servers=guarded.mutual, ca_file=guarded.authority.ca,
        cert_file=first.cert, key_file=first.key,
    )  # fmt: skip
    with (
        closing(Administration(guarded.keeper)) as topics,
        closing(AccessList(guarded.keeper)) as access,
    ):
        topics.apply([Planned(topic, {})])
        access.apply([Grant("User:CN=north-1", "topic", topic, each) for each in ("read", "write")])
        with closing(Kafka(settings)) as log:
            log.append(topic, [Record("a", b"1")])
            access.apply([Grant("User:CN=north-2", "topic", topic, w) for w in ("read", "write")])
            for old, new in ((first.cert, second.cert), (first.key, second.key)):
                new.replace(old)
            guarded.restart()
            log.append(topic, [Record("b", b"2")])
            until = time.monotonic() + LONG
            while len(found := log.read(topic, 0, 1 << 20)) < 2 and time.monotonic() < until:
                log.wait(0.05)
        access.rm(Names(topic.split(".")[1]))

    assert [each.record.key for each in found] == ["a", "b"]
