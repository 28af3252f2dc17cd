"""What the environment may say, and in which words it is told when it cannot be meant."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from infra.passwords import Password
from infra.settings import SERVICES_FILE, Service, Settings, read_settings
from infra.transport.clusters import kafka_settings
from schemas.errors import ConfigurationError, ServiceError

SECRET = "correct horse"


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever this machine's environment says, a test's is its own."""
    for variable in [each for each in os.environ if each.upper().startswith("FEDTWIN_")]:
        monkeypatch.delenv(variable)
    monkeypatch.chdir(tmp_path)


def said(monkeypatch: pytest.MonkeyPatch, **variables: object) -> Settings:
    """What is read where the environment says this, without FEDTWIN_."""
    for name, value in variables.items():
        monkeypatch.setenv(f"FEDTWIN_{name}", str(value))
    return read_settings()


def written(folder: Path, **addresses: str) -> None:
    """`make up` has written these."""
    told = {f"FEDTWIN_{name}": address for name, address in addresses.items()}
    text = json.dumps({"schema": 1, "addresses": told, "processes": {"redis": {"pid": 1}}})
    (folder / SERVICES_FILE).write_text(text)


def file(folder: Path, name: str, text: str = "PEM") -> Path:
    """A file that holds this."""
    (folder / name).write_text(text)
    return folder / name


# --- addresses ------------------------------------------------------------------------------------


def test_the_environment_names_services_and_their_secrets(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each service has its own; the end of a secret's line is not part of it, blanks are."""
    settings = said(
        monkeypatch,
        KAFKA="broker-1:9092,broker-2:9092",
        REDIS="[::1]:6379",
        REDIS_USER="proxy",
        REDIS_PASSWORD_FILE=file(tmp_path, "secret", f" {SECRET}\n"),
        REDIS_CA_FILE=file(tmp_path, "ca.pem"),
    )

    redis = settings.redis
    assert settings.kafka == Service("FEDTWIN_KAFKA", "broker-1:9092,broker-2:9092")
    assert settings.kafka.hosts == [("broker-1", 9092), ("broker-2", 9092)]
    assert (redis.hosts, redis.user, redis.tls) == ([("::1", 6379)], "proxy", True)
    assert Password(redis.password, redis.password_file).now() == f" {SECRET}"
    assert not settings.kafka.tls


def test_a_secret_is_in_no_text_and_in_no_hash(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Printed in every way, also inside what holds it; and the file may say another one later."""
    path = file(tmp_path, "secret", SECRET)
    settings = said(monkeypatch, REDIS="a:1", REDIS_PASSWORD_FILE=path)
    path.write_text("another")
    other = said(monkeypatch)

    password = Password(None, settings.redis.password_file)
    assert password.now() == "another"
    path.write_text("")  # it is just being exchanged once more
    assert password.now() == "another"
    path.write_text(SECRET)
    assert password.now() == SECRET
    for told in (settings, settings.redis, password):
        assert SECRET not in f"{told} {told!r}"
    assert hash(settings.redis) == hash(other.redis)


def test_without_any_address_those_of_make_up_are_read(tmp_path: Path) -> None:
    """Both services, from the file in the current folder."""
    written(tmp_path, KAFKA="127.0.0.1:1001", REDIS="127.0.0.1:1002")

    settings = read_settings()

    assert (str(settings.kafka), str(settings.redis)) == ("127.0.0.1:1001", "127.0.0.1:1002")
    assert settings.site_kafka == settings.kafka


def test_what_somebody_named_is_not_joined_by_what_runs_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A hospital's broker is named, and no Redis: the one of `make up` is not taken for it."""
    written(tmp_path, KAFKA="127.0.0.1:1001", REDIS="127.0.0.1:1002")

    settings = said(monkeypatch, KAFKA="broker:9092", REDIS="")

    assert str(settings.kafka) == "broker:9092"
    with pytest.raises(ServiceError, match=r"set FEDTWIN_REDIS .* names FEDTWIN_KAFKA alone"):
        _ = settings.redis


@pytest.mark.parametrize(
    ("service", "variable"),
    [("kafka", "FEDTWIN_KAFKA"), ("site_kafka", "FEDTWIN_KAFKA"), ("redis", "FEDTWIN_REDIS")],
)
def test_a_missing_service_is_told_with_both_remedies(service: str, variable: str) -> None:
    """Exit code 3, and one line that says what to set or what to start."""
    with pytest.raises(ServiceError, match=f"set {variable} .*`make up`") as told:
        getattr(read_settings(), service)

    assert told.value.exit_code == 3
    assert "\n" not in str(told.value)


# --- site and federation --------------------------------------------------------------------------


def test_a_site_with_a_cluster_of_its_own_shows_it_nobody_elses_secrets(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Both addresses are set, and only the federation's has secrets."""
    settings = said(
        monkeypatch,
        KAFKA="far:9092",
        KAFKA_USER="plant",
        KAFKA_PASSWORD_FILE=file(tmp_path, "secret", SECRET),
        SITE_KAFKA="near:9092",
    )

    assert settings.kafka.user == "plant"
    assert settings.site_kafka == Service("FEDTWIN_SITE_KAFKA", "near:9092")


def test_one_cluster_may_know_the_site_by_another_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One address, two users; without a second user both sides are the first."""
    secret = file(tmp_path, "secret", SECRET)
    alone = said(monkeypatch, KAFKA="far:9092", KAFKA_USER="all", KAFKA_PASSWORD_FILE=secret)
    both = said(monkeypatch, SITE_KAFKA_USER="site", SITE_KAFKA_PASSWORD_FILE=secret)

    assert alone.site_kafka == alone.kafka
    assert (both.site_kafka.address, both.site_kafka.user) == ("far:9092", "site")
    assert both.kafka.user == "all"


def test_a_hosted_cluster_may_want_its_password_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the two clusters in its own way; what the environment says is what clients are told.

    Without a word they prove it by SCRAM-SHA-512.
    """
    settings = said(monkeypatch, KAFKA="far:1", SITE_KAFKA="near:1", KAFKA_MECHANISM="PLAIN")

    assert kafka_settings(settings.kafka).mechanism == "PLAIN"
    assert kafka_settings(settings.site_kafka).mechanism == "SCRAM-SHA-512"


# --- names ----------------------------------------------------------------------------------------


def test_names_have_their_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """The site is called local; a run must be named by somebody, and only by who needs it."""
    settings = read_settings()
    assert (settings.site, settings.data_dir) == ("local", None)
    with pytest.raises(ConfigurationError, match="Set FEDTWIN_RUN"):
        _ = settings.run

    settings = said(monkeypatch, RUN="spring", SITE="plant-3", DATA_DIR="~/images")

    assert (settings.run, settings.site) == ("spring", "plant-3")
    assert settings.data_dir == Path.home() / "images"


# --- what cannot be meant -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"REDIS": "redis://host:6379"}, "FEDTWIN_REDIS: 'redis://host:6379' is not host:port"),
        ({"REDIS": "host"}, "FEDTWIN_REDIS: 'host' is not host:port"),
        ({"REDIS": "host:70000"}, "FEDTWIN_REDIS: 'host:70000' is not host:port"),
        ({"REDIS": "host:0"}, "FEDTWIN_REDIS: 'host:0' is not host:port"),
        ({"REDIS": f"redis://me:{SECRET}@host:6379"}, "FEDTWIN_REDIS: no user or password stands"),
        ({"REDIS": "a:1,b:2"}, "FEDTWIN_REDIS: 'a:1,b:2' are several servers"),
        ({"KAFKA": "a:1, b:2"}, "FEDTWIN_KAFKA: 'a:1, b:2' is not host:port"),
        ({"SITE_KAFKA": ""}, "FEDTWIN_SITE_KAFKA is set and empty, and images would go to the"),
        ({"RUN": "My Run"}, "FEDTWIN_RUN: 'My Run' is not 1 to 63"),
        ({"SITE": "a/b"}, "FEDTWIN_SITE: 'a/b' is not 1 to 63"),
        ({"REDIS_PASSWORD_FILE": "gone"}, "FEDTWIN_REDIS_PASSWORD_FILE: 'gone' cannot be read"),
        ({"REDIS_CA_FILE": "gone"}, "FEDTWIN_REDIS_CA_FILE: 'gone' is not there, or no file"),
        ({"REDIS_USER": "proxy"}, "FEDTWIN_REDIS: _USER is set, and _PASSWORD_FILE is not"),
        ({"SITE_KAFKA_KEY_FILE": "here"}, "FEDTWIN_SITE_KAFKA: _CERT_FILE and _KEY_FILE belong"),
        ({"REDIS_PASSWORD_FILE": "empty"}, "FEDTWIN_REDIS_PASSWORD_FILE: 'empty' is empty"),
        ({"KAFKA_MECHANISM": "GSSAPI"}, "FEDTWIN_KAFKA_MECHANISM: Input should be 'SCRAM-SHA-512'"),
        ({"REDIS_PASSWORD_FILE": "bytes"}, "'bytes' cannot be read: it is not text"),
    ],
)
def test_what_cannot_be_meant_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variables: dict[str, str], words: str
) -> None:
    """Exit code 2; the variable is named, with what is wrong with it."""
    file(tmp_path, "here")
    file(tmp_path, "empty", "\n")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")

    with pytest.raises(ConfigurationError) as told:
        said(monkeypatch, **variables)

    assert words in str(told.value)
    assert not any(each in str(told.value) for each in ("\n", SECRET))
    assert told.value.exit_code == 2


def test_all_that_is_wrong_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two variables, two clauses."""
    with pytest.raises(ConfigurationError, match=r"FEDTWIN_KAFKA: .*; FEDTWIN_SITE: "):
        said(monkeypatch, KAFKA="x", SITE="X")


@pytest.mark.parametrize(
    "text",
    [
        "not JSON",
        '{"schema": 2, "addresses": {}}',
        '{"schema": 1, "addresses": {"FEDTWIN_REDIS": "nowhere"}}',
        "[]",
    ],
)
def test_a_file_that_make_up_did_not_write_is_refused(tmp_path: Path, text: str) -> None:
    """One line that names it and says how to have a new one."""
    file(tmp_path, SERVICES_FILE.name, text)

    with pytest.raises(ConfigurationError, match=r"^\.services\.json cannot be read .*`make up`"):
        read_settings()


def test_a_broken_file_disturbs_nobody_who_names_addresses(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is not even opened."""
    file(tmp_path, SERVICES_FILE.name, "not JSON")

    assert str(said(monkeypatch, REDIS="host:6379").redis) == "host:6379"


def test_metrics_are_told_where_the_environment_says_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Off unless there is a port, and then only on this machine."""
    without = read_settings()
    settings = said(monkeypatch, METRICS_PORT=9400)
    elsewhere = said(monkeypatch, METRICS_HOST="0.0.0.0")

    assert without.metrics_port is None
    assert (settings.metrics_port, settings.metrics_host) == (9400, "127.0.0.1")
    assert elsewhere.metrics_host == "0.0.0.0"
    with pytest.raises(ConfigurationError, match="FEDTWIN_METRICS_PORT"):
        said(monkeypatch, METRICS_PORT=70000)
