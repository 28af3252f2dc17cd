"""What the access list says is what a broker does: each side tries everything, in every topic.

A real broker with SCRAM over TLS and an authorizer. The list is applied, and then each of those who
take part, and one who does not, attempts with its own password to see, read, write, let go, make
and take away each topic of its run and of another one. What should succeed is written down by hand
(tests/schemas/test_rights.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kafka import KafkaAdminClient, errors
from kafka.admin import (
    ACL,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ConfigResource,
    ConfigResourceType,
    ResourcePattern,
    ResourceType,
)

from experiments.forgetting import Federation, _said, forget, held, request
from infra.erasing import Disk
from infra.kafka import KafkaSettings, connected
from infra.rights import AccessList
from infra.topics import Administration, make_topics, plan
from infra.transport.group import Group
from infra.transport.kafka import Kafka
from schemas.codec import Record, records
from schemas.errors import ConfigurationError, Forbidden
from schemas.messages import DeadLetter, Forgotten, ImageBatch, StreamMoved
from schemas.rights import Grant, Principals, grants
from schemas.topics import Names
from tests.experiments.hands import fedtwin, told
from tests.experiments.test_principals import FEDERATION
from tests.guarded import Guarded, crew
from tests.schemas.test_rights import AB, ENTITIES, MAY, NAMES, SITES, A
from tests.services import have, kafka_address

pytestmark = pytest.mark.kafka

OTHER = Names("trial-2")
"""A run whose name begins as ours does; it has the same sites, and others are its sides."""
OTHERS = Principals.model_validate(
    {
        "aggregator": "User:else-aggregator", "proxy": "User:else-proxy",
        "operator": "User:else-operator", "sites": {site: f"User:else-{site}" for site in SITES},
        "producers": {site: f"User:else-p-{site}" for site in SITES},
    }
)  # fmt: skip
KNOWN = Principals.model_validate({"sites": {A: "User:new-a"}})
TRIED = {"read", "write", "delete"}
"""One by one, in each topic; how it is kept is another question."""
STRANGER = "stranger"
"""It has a password and no right."""
FIRST = 40
"""Records in each topic: enough for everybody who may to let one go."""


def rights(names: Names, known: Principals) -> list[Grant]:
    """Of both clusters, for here they are one."""
    return [
        *grants(names, "federation", SITES, ENTITIES, known),
        *grants(names, "site", SITES, ENTITIES, known),
    ]


def topics(names: Names) -> list[str]:
    """Every topic of a run."""
    clusters: Sequence[str] = ("federation", "site")
    return [
        each.name
        for cluster in clusters
        for each in plan(names, cluster, SITES, ENTITIES, KafkaSettings(""))  # type: ignore[arg-type]
    ]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """The broker, with the topics and lists of both runs, and records in each topic."""
    found = Guarded(tmp_path_factory.mktemp("guarded"), [*crew(SITES), STRANGER])
    with closing(Administration(found.keeper)) as administration:
        for names in (NAMES, OTHER):
            for cluster in ("federation", "site"):
                planned = plan(names, cluster, SITES, ENTITIES, found.keeper)
                administration.apply(planned)
    with closing(AccessList(found.keeper)) as access:
        access.apply(rights(NAMES, Principals()))
        access.apply(rights(OTHER, OTHERS))
    with closing(Kafka(found.keeper)) as log:
        for name in (*topics(NAMES), *topics(OTHER)):
            log.append(name, [Record(f"k{number}", b"1") for number in range(FIRST)])
    yield found
    found.end()


# --- each side tries everything -------------------------------------------------------------------


@dataclass
class Somebody:
    """One who comes with a password, and what it manages to do."""

    settings: KafkaSettings
    log: Kafka
    admin: KafkaAdminClient

    def close(self) -> None:
        """It goes, and leaves no client behind that would look for its broker for ever."""
        self.log.close()
        self.admin.close()

    def manages(self, name: str) -> set[str]:
        """What it can do with a topic that is there. To take it away is not tried here."""
        tried = {"read": self._read, "write": self._write, "delete": self._let_go}
        managed = {what for what, attempt in tried.items() if self._let(attempt, name)}
        if managed == {"write"}:  # a reader that was refused once is refused for ever
            self.log.close()
            self.log = Kafka(self.settings)
        return managed

    def _let(self, attempt: Callable[[str], None], name: str) -> bool:
        refused = None
        try:
            attempt(name)
        except Forbidden as error:
            refused = error
        assert refused is None or (name in str(refused) and "\n" not in str(refused))
        return refused is None

    def _read(self, name: str) -> None:
        place, until = self.log.first(name), time.monotonic() + 10
        while not (found := self.log.read(name, place, 1 << 20)):
            assert time.monotonic() < until, f"silence in {name}: neither a record nor a refusal"
            self.log.wait(0.02)
        assert found[0].record.value == b"1"

    def _write(self, name: str) -> None:
        self.log.append(name, [Record("mine", b"1")])

    def _let_go(self, name: str) -> None:
        self.log.trim(name, self.log.first(name) + 1)

    def makes(self, name: str) -> bool:
        """Whether it may make a topic; here one that is there already, which is found out later."""
        asked = {name: {"num_partitions": 1, "replication_factor": 1}}
        told = self.admin.create_topics(asked, raise_errors=False)["topics"][0]["error_code"]
        assert told in (errors.TopicAlreadyExistsError.errno, NO_RIGHT, NO_CLUSTER)
        return told == errors.TopicAlreadyExistsError.errno

    def changes(self, name: str) -> bool:
        """Whether it may change how a topic is kept: to nothing else than before."""
        wanted = ConfigResource(ConfigResourceType.TOPIC, name, configs={"retention.ms": "-1"})
        told = self.admin.alter_configs([wanted], raise_on_unknown=False)["topic"][name]
        assert told == "OK" or "TopicAuthorizationFailedError" in told
        return bool(told == "OK")

    def takes_away(self, name: str) -> bool:
        """Whether it may take a topic away: then it is gone."""
        told = self.admin.delete_topics([name], raise_errors=False)["topics"][0]["error_code"]
        return bool(told == 0)


NO_RIGHT = errors.TopicAuthorizationFailedError.errno
NO_CLUSTER = errors.ClusterAuthorizationFailedError.errno


def somebody(guarded: Guarded, user: str) -> Somebody:
    settings = guarded.settings(user)
    return Somebody(settings, Kafka(settings), connected(settings, KafkaAdminClient))


def expected(who: str, name: str) -> set[str]:
    """What stands in the table that was written by hand."""
    return set(MAY.get(who, {}).get(name.removeprefix("fedtwin.trial."), "").split())


@pytest.mark.parametrize("who", [*MAY, STRANGER])
def test_each_side_manages_what_it_may_and_nothing_else(guarded: Guarded, who: str) -> None:
    """In 21 topics of its own run and 21 of another: to see them, read, write, let go, make, mend.

    What it must not is refused in a line that names the topic, with exit code 3; nothing is silent.
    """
    user = who if who == STRANGER else f"fedtwin-{who}"
    came = somebody(guarded, user)
    with closing(came):
        managed = {name: came.manages(name) for name in (*topics(NAMES), *topics(OTHER))}
        seen = set(came.admin.list_topics()) & managed.keys()
        made = {name for name in managed if came.makes(name)}
        changed = {name for name in managed if came.changes(name)}
        lost = {
            name for name in managed if "delete" not in expected(who, name)
            and came.takes_away(name)
        }  # fmt: skip
        given = came.admin.create_acls([_all_of(topics(NAMES)[0], f"User:{user}")])

    assert managed == {name: expected(who, name) & TRIED for name in managed}
    assert changed == {name for name in managed if "alter-configs" in expected(who, name)}
    assert seen == {name for name in managed if expected(who, name)}
    assert not made
    assert not lost
    assert given["failed"] == [errors.ClusterAuthorizationFailedError]


def _all_of(name: str, who: str, pattern: str = "LITERAL") -> ACL:
    return ACL(
        who, "*", ACLOperation.ALL, ACLPermissionType.ALLOW,
        ResourcePattern(ResourceType.TOPIC, name, ACLResourcePatternType[pattern]),
    )  # fmt: skip


def test_an_operator_makes_mends_and_takes_away(guarded: Guarded) -> None:
    """Its own run's topics and no others; the list is not its to change, nor its to empty."""
    settings = guarded.settings("fedtwin-operator")
    with closing(Administration(settings)) as administration:
        planned = plan(NAMES, "site", [A], ENTITIES, settings)
        listed = {each.name: each for each in administration.ls(NAMES)}
        with pytest.raises(Forbidden, match=r"no right to make topics .*trial-2\."):
            administration.apply(plan(OTHER, "federation", [], [], settings))
        again = administration.apply(planned)
        odd = [
            replace(each, configs={**each.configs, "retention.ms": "9000000"}) for each in planned
        ]
        mended = administration.apply(odd), administration.apply(planned)
    with (
        closing(Administration(guarded.settings("fedtwin-aggregator"))) as administration,
        pytest.raises(Forbidden, match=f"no right to make topics .*{planned[0].name}"),
    ):
        administration.apply(odd)
    with closing(AccessList(settings)) as access:
        assert not access.apply(rights(NAMES, Principals())).granted  # it may look
        with pytest.raises(Forbidden, match="no right to change the access list"):
            access.apply(rights(NAMES, KNOWN))
        with pytest.raises(Forbidden, match="no right to change the access list"):
            access.rm(NAMES)

    assert listed.keys() == set(topics(NAMES))
    assert listed[planned[0].name].size > 0
    assert (again.made, again.mended) == ([], [])
    assert [[*each.mended] for each in mended] == [[each.name for each in planned]] * 2


def test_a_group_of_another_site_is_not_to_be_joined(guarded: Guarded) -> None:
    """Its own deals; to the other's, whose name begins alike, a line says no."""
    settings = guarded.settings(f"fedtwin-site-{A}")
    with closing(Group(settings, NAMES, A, "p-1")) as own:
        until = time.monotonic() + 20
        while not (dealt := own.entities()) and time.monotonic() < until:
            pass
    with (
        closing(Group(settings, NAMES, SITES[1], "p-1")) as foreign,
        pytest.raises(Forbidden, match=rf"no right to .*twins\.{SITES[1]}"),
    ):
        foreign.entities()

    assert dealt == {f"{A}/ct"}


def test_who_may_make_no_topic_gets_along_where_they_are_there(guarded: Guarded) -> None:
    """A live federation's aggregator makes what is missing: nothing here, and some are hidden."""
    settings = guarded.settings("fedtwin-aggregator")

    assert make_topics(settings, NAMES, "federation", SITES, ENTITIES) == []
    assert make_topics(settings, NAMES, "site", SITES, ENTITIES) == []


def test_a_sites_twins_have_what_is_forgotten_leave_the_disk(guarded: Guarded) -> None:
    """Of their own entities' topics they begin a segment, and have it cleaned; the broker's folders
    are not theirs to see. Its producers may not, nor another site's twins."""
    samples, own = (NAMES.of_entity(each, f"{A}/ct") for each in ("samples", "twin-state"))
    settings = guarded.settings(f"fedtwin-site-{A}")
    with closing(Disk(settings)) as disk, closing(Kafka(settings)) as log:
        with disk.rolling(samples):
            (place,) = log.append(samples, [Record("mark", b"1")])
        with disk.hurrying(own):
            log.append(own, [Record("forgotten/1", b"1")])
        seen = disk.begins(samples, place), disk.gone(samples, place)
        assert disk.promised(samples) == 301
    with closing(Disk(guarded.keeper)) as keeper:
        begun = keeper.begins(samples, place)
    for other in (f"fedtwin-producers-{A}", f"fedtwin-site-{SITES[1]}"):
        with (
            closing(Disk(guarded.settings(other))) as disk,
            pytest.raises(Forbidden, match=f"no right to say how {samples} is kept"),
            disk.rolling(samples),
        ):
            pass

    assert seen == (None, None)
    assert begun


def test_a_sites_account_is_enough_to_have_images_forgotten(guarded: Guarded) -> None:
    """All that the command does, with the account of the twins; here the test is the twin. The
    broker's folder is not its to see, so it says what is promised."""
    entity, run = f"{AB}/mr", "a" * 64
    samples, own = (NAMES.of_entity(each, entity) for each in ("samples", "twin-state"))
    pixels = {"images": {"images": np.zeros((3, 1, 4, 4), np.uint8)}}
    sent = ImageBatch(run=run, source="ct", first=0, classes=("0", "1", "1"), groups=pixels)
    with closing(Kafka(guarded.settings(f"fedtwin-producers-{AB}"))) as log:
        log.append(samples, records(sent, source="producers")[1])
    settings = guarded.settings(f"fedtwin-site-{AB}")

    def twin(seconds: float) -> None:
        for said in _said(log, own):
            if isinstance(said, Forgotten):
                moved = StreamMoved(
                    run=run, entity=entity, offset=said.before, position=3, sources={"ct": 3}
                )
                log.append(own, records(moved, source="twins")[1])
                log.trim(samples, said.before)

    with closing(Kafka(settings)) as log, closing(Disk(settings)) as disk:
        federation = Federation(log, NAMES, run)
        assert federation.entity("mr", AB) == entity
        there = held(log, federation, entity)
        asked = request(federation, entity, there, None, "1")
        done = forget(federation, asked, disk, there=there, wait=60, pause=twin,
                      again=lambda: closing(Kafka(settings)))  # fmt: skip

    assert (done.asked, done.images, done.seen, done.promised) == ("class 1", 2, False, 301)
    with closing(Kafka(guarded.keeper)) as log:
        assert log.first(samples) == log.end(samples) - 1  # the mark that begins a segment


def test_a_site_learns_why_it_is_refused_and_hands_in_again_what_is_its_own(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its update was set aside: its account lists the letter, finds the original, puts it into its
    topic once more. Another site reads the letter alone; an operator reads both, and may not.
    """
    own, letters = NAMES.of_site("updates", A), NAMES.federation("dead-letters")
    with closing(Kafka(guarded.settings(f"fedtwin-site-{A}"))) as log:
        (place,) = log.append(own, [Record("refused", b"what nobody can read")])
    told_of = DeadLetter(run="", topic=own, offset=place, about="?", hash="", size=20,
                         reason="unreadable", detail="no message")  # fmt: skip
    with closing(Kafka(guarded.settings("fedtwin-aggregator"))) as log:
        log.append(letters, records(told_of, source="aggregator")[1])

    listed, done = {}, {}
    for who in (f"fedtwin-site-{A}", f"fedtwin-site-{SITES[1]}", "fedtwin-operator"):
        for name, value in guarded.environment(who).items():
            monkeypatch.setenv(name, value)
        found = told("dlq", "ls", "trial")["dead_letters"]
        listed[who] = [each["reason"] for each in found if each["offset"] == place]
        done[who] = fedtwin("dlq", "requeue", "trial", own, str(place))

    assert listed == {who: ["unreadable"] for who in listed}
    codes = [each.exit_code for each in done.values()]
    assert codes == [0, 3, 3], [each.output for each in done.values()]
    with closing(Kafka(guarded.keeper)) as log:
        again = [each.record.value for each in log.read(own, place, 1 << 20)]
    assert again == [b"what nobody can read"] * 2


# --- the list itself ------------------------------------------------------------------------------

THIRD = Names("third")


@pytest.fixture
def access(guarded: Guarded) -> Iterator[AccessList]:
    """By the keeper's door; what a test granted in the third run is withdrawn."""
    found = AccessList(guarded.keeper)
    yield found
    found.rm(THIRD)
    found.close()


def test_applying_twice_changes_nothing(access: AccessList) -> None:
    """The first time all are granted, the second time all stand there."""
    wanted = grants(THIRD, "federation", SITES, ENTITIES, Principals())
    first, second = access.apply(wanted), access.apply(wanted)

    assert {*first.granted, *first.kept} == {*second.kept} == {*wanted}
    assert (second.granted, second.withdrawn) == ([], [])


def test_who_is_another_now_has_lost_what_it_had(access: AccessList) -> None:
    """A site comes under a new name: its old one may do nothing any more, and others all they did.

    The other cluster's list of the same broker is left alone.
    """
    before = access.apply(grants(THIRD, "federation", SITES, ENTITIES, Principals()))
    access.apply(grants(THIRD, "site", SITES, ENTITIES, Principals()))

    after = access.apply(grants(THIRD, "federation", SITES, ENTITIES, KNOWN))

    old = [each for each in before.granted if each.principal == f"User:fedtwin-site-{A}"]
    assert after.withdrawn == sorted(map(str, old))
    assert {each.principal for each in after.granted} == {"User:new-a"}
    assert len(after.granted) == len(old)


def test_an_entry_about_all_that_begins_alike_is_told(access: AccessList, guarded: Guarded) -> None:
    """Somebody gave away `…updates.hospital-a*`, and so hospital-ab's: no run may undo that."""
    wide = _all_of("fedtwin.third.updates.hospital-a", "User:guest", "PREFIXED")
    with closing(KafkaAdminClient(**guarded.keeper.client())) as admin:
        admin.create_acls([wide])

    told = access.apply(grants(THIRD, "federation", SITES, ENTITIES, Principals())).wider
    gone = access.rm(THIRD)

    assert told == ["User:guest all topic fedtwin.third.updates.hospital-a*"]
    assert told[0] in gone


def test_taking_a_runs_rights_away_leaves_all_others(access: AccessList) -> None:
    """Those of runs whose names begin alike, and what speaks of the cluster; twice is as once."""
    more = Names("third-2")
    for names in (THIRD, more):
        access.apply(grants(names, "federation", SITES, ENTITIES, Principals()))

    gone, again = access.rm(THIRD), access.rm(THIRD)
    other = access.rm(more)

    assert len(gone) == len(other) > 50
    assert not [each for each in gone if "third-2" in each or "cluster" in each]
    assert again == []


def test_brokers_without_a_list_are_told_of_not_believed(guarded: Guarded) -> None:
    """Nothing is guarded there: to grant is refused with what to set, to withdraw is nothing."""
    with closing(AccessList(have(lambda: KafkaSettings(kafka_address())))) as access:
        with pytest.raises(ConfigurationError, match=r"keep no access list.*authorizer\.class"):
            access.apply(grants(THIRD, "federation", SITES, ENTITIES, Principals()))
        assert access.rm(THIRD) == []


def test_the_command_line_grants_and_withdraws(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Topics and rights of a live federation in one command; twice is as once; and all away."""
    monkeypatch.setenv("FEDTWIN_KAFKA", guarded.keeper.servers)
    file = tmp_path / "fourth.yaml"
    file.write_text(FEDERATION)
    first = told("topics", "apply", file, "--acl")
    again = told("topics", "apply", file, "--acl")
    gone = told("topics", "rm", "fourth", "--yes")

    assert len(first["made"]) == len(again["kept"]) == len(gone["removed"]) == 19
    entries = [each for each in first["acl"]["granted"] if "cluster" not in each]
    assert sorted(gone["withdrawn"]) == sorted(entries)
    assert (again["acl"]["granted"], again["acl"]["withdrawn"]) == ([], [])
    assert told("topics", "rm", "fourth", "--yes")["withdrawn"] == []


def test_each_keeper_of_a_cluster_makes_what_is_theirs(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The federation's, then each site's: together what one who reaches all makes at once.

    None of them withdraws what another has granted, also where their clusters are one.
    """
    monkeypatch.setenv("FEDTWIN_KAFKA", guarded.keeper.servers)
    file = tmp_path / "fifth.yaml"
    file.write_text(FEDERATION)
    whole = told("topics", "plan", file, "--acl")
    parts = [["federation"], *(["site", "--site", site] for site in sites_of(whole))]

    done = [told("topics", "apply", file, "--acl", "--cluster", *part) for part in parts]
    again = told("topics", "apply", file, "--acl")

    made = [name for each in done for name in each["made"]]
    assert len(parts) == 3
    assert sorted(made) == sorted(each["name"] for each in whole["topics"])
    assert not any(each["acl"]["withdrawn"] for each in done)
    assert (again["made"], again["acl"]["granted"]) == ([], [])
    of_sites = told("topics", "rm", "fifth", "--yes", "--cluster", "site")
    assert sorted(of_sites["removed"]) == sorted(name for each in done[1:] for name in each["made"])
    assert {each.split(" ")[1] for each in of_sites["withdrawn"]} >= {"read", "write"}
    rest = told("topics", "rm", "fifth", "--yes")
    assert sorted(rest["removed"]) == sorted(done[0]["made"])


def sites_of(planned: dict[str, Any]) -> list[str]:
    """The sites of which there are images."""
    names = [each["name"].split(".") for each in planned["topics"]]
    return sorted({name[3] for name in names if name[2] == "samples"})
