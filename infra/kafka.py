"""A connection to Kafka: what is needed to reach a cluster, and why it cannot be reached.

The client (kafka-python) tells the reason why it cannot connect only in its log, and raises the
same timeout for a wrong address, a wrong password and an unknown authority. So we listen to its
log, and keep it off the terminal where nobody has asked for it. It is given little time at first
and more with each try: a reason that waiting does not change need not be waited for.
"""

from __future__ import annotations

import logging
import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from kafka import errors
from pydantic import SecretStr

from infra import receiving, resets, sasl
from infra.passwords import Password
from infra.proving import USER_WANTED, refused
from infra.settings import COMPRESSIONS, DELIVERY, REQUEST, Compression, Mechanism
from schemas.errors import ConfigurationError, FedtwinError, Forbidden, ServiceError

T = TypeVar("T")
LOG = logging.getLogger(__name__)
CLIENT_LOG = logging.getLogger("kafka")
TELLING = re.compile(
    r"(Connection|Bootstrap (connection|attempt) to \S+) failed: (?P<reason>.*?)( \(backoff .*)?$",
    re.DOTALL,
)
"""How the client says why it could not connect."""
RETRIED = re.compile(
    r".*Got error produce response .* retrying \(.*?\): (?P<reason>\w+)", re.DOTALL
)
"""And why a broker did not take a record, which the client then sends again and again."""
RECENT = 5.0  # seconds in which it has said so if that is why a record was given up
TOO_FEW = "NotEnoughReplicas"
VAGUE = re.compile("timed out|socket disconnected|KafkaTimeoutError")
"""What it also says of a broker that has told it the reason just before."""
SLICE = 1.0  # seconds in which a broker must answer the first time; twice as many the next
FINAL: Sequence[tuple[str, str]] = (
    ("SaslAuthenticationFailed", "user or password is wrong"),
    (USER_WANTED, "it wants a user and a password, and we have none (_USER, _PASSWORD_FILE)"),
    ("UnsupportedSaslMechanism", "it takes no password by {mechanism}; _MECHANISM names another"),
    ("IllegalSaslState", "it asks nobody for user and password at this port"),
    ("[Hh]ostname mismatch|IP address mismatch", "its certificate is for another host"),
    ("CERTIFICATE_VERIFY_FAILED", "its certificate is by no authority that we trust"),
    ("BAD_CERTIFICATE|CERTIFICATE_REQUIRED", "it wants to see a certificate, and {shown}"),
    ("CERTIFICATE_UNKNOWN|UNKNOWN_CA", "it does not trust our certificate"),
    ("CERTIFICATE_EXPIRED", "our certificate has expired"),
    ("KEY_VALUES_MISMATCH", "our key is not the one of our certificate"),
    ("NO_CERTIFICATE_OR_CRL_FOUND|NO_START_LINE|PEM", "a file of ours holds no certificate or key"),
    (r"Invalid frame length: 35251[89]\d{3}", "it speaks TLS at this port, and we do not"),
)
"""Which words of the client mean what, where waiting changes nothing. The last are those of an
alert of TLS, read as a length."""
PASSING: Sequence[tuple[str, str]] = (
    ("UNEXPECTED_EOF|WRONG_VERSION_NUMBER|violation of protocol", "it speaks no TLS at this port"),
    ("ECONNREFUSED", "nobody listens there"),
    ("DNS Resolution", "no host of this name is known"),
)
"""And where it may."""
AGAIN = 0.2  # seconds between two tries while a broker is away
PARDON = 5.0  # seconds of them after which we ask whether it is that it does not let us in
REFUSALS = (
    errors.AuthorizationError,
    errors.SaslAuthenticationFailedError,
    errors.UnsupportedSaslMechanismError,
    errors.UnsupportedVersionError,
    errors.InvalidTopicError,
    errors.PolicyViolationError,
    errors.MessageSizeTooLargeError,
    errors.RecordListTooLargeError,
    errors.InvalidRecordError,
    errors.UnsupportedCompressionTypeError,
)
"""What a broker will answer again however often it is asked. Everything else may pass."""


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """How to reach a cluster, and how to write there."""

    servers: str
    """host:port of one broker or of several, separated by commas."""
    user: str = ""
    password: SecretStr | None = None
    password_file: Path | None = None
    """Where the password stands instead; read anew for each connection."""
    mechanism: Mechanism = "SCRAM-SHA-512"
    """How user and password are proved; unused without a user."""
    encrypted: bool = False
    """Speak TLS also where no certificate file is named: the system's authorities are trusted."""
    ca_file: Path | None = None
    """PEM file of the authorities to trust instead; so encrypted."""
    cert_file: Path | None = None
    key_file: Path | None = None
    """PEM files by which a broker knows us; so encrypted."""
    compression: Compression | None = None
    """Of what we write. Models are noise, and images were compressed before."""
    replication: int | None = None
    """Copies of each topic that we make; None: three, or as many as there are brokers."""
    min_insync: int | None = None
    """Copies that must have a record before it counts as written; None: all but one of them."""
    start_timeout: float = 10.0
    """Seconds in which a broker must answer when we start."""
    request_timeout: float = REQUEST
    """Seconds after which an unanswered request is sent anew."""
    delivery_timeout: float = DELIVERY
    """Seconds after which a record that is not acknowledged is given up, and sent by another
    connection; at least `request_timeout`."""
    keep_bytes: int = 64 * 1024 * 1024
    """At most, of what was read last: for several readers of a topic, and for messages in pieces,
    which are read a second time when the last piece is there. Small messages need far less."""

    def __post_init__(self) -> None:
        """Raises ConfigurationError for what cannot be meant, or would wait for ever."""
        if self.compression not in (None, *COMPRESSIONS):
            known = " or ".join(COMPRESSIONS)
            raise ConfigurationError(f"compression is {known}, not {self.compression!r}")
        if any(each is not None and each < 1 for each in (self.replication, self.min_insync)):
            raise ConfigurationError("replication and min_insync are numbers from 1 on")
        check_copies(self.replication, self.min_insync)
        if not 0 < self.request_timeout <= self.delivery_timeout:
            raise ConfigurationError(
                f"a record is given up after {self.delivery_timeout:g} s, which is no longer than"
                f" a request may take, {self.request_timeout:g} s"
            )

    @property
    def protocol(self) -> str:
        """Kafka's word for how we talk."""
        secret = bool(self.encrypted or self.ca_file or self.cert_file)
        return ("SASL_" if self.user else "") + ("SSL" if secret else "PLAINTEXT")

    def client(self) -> dict[str, Any]:
        """The arguments that every client of kafka-python takes."""
        return {
            "bootstrap_servers": self.servers.split(","),
            "bootstrap_timeout_ms": _milliseconds(self.start_timeout),
            "reconnect_backoff_max_ms": 1000,  # the client's own 30 s would outlast an outage
            "retry_backoff_ms": 20,
            "selector": receiving.Selector,
            **self._security(),
        }

    def _security(self) -> dict[str, Any]:
        given: dict[str, Any] = {"security_protocol": self.protocol}
        files = (("ca", self.ca_file), ("cert", self.cert_file), ("key", self.key_file))
        given |= {f"ssl_{name}file": str(file) for name, file in files if file}
        if self.user:
            given["sasl_mechanism"] = self.mechanism
            given["sasl_plain_username"] = self.user
            given["sasl_plain_password"] = Password(self.password, self.password_file)
        return given


def check_copies(copies: int | None, must_have: int | None) -> None:
    """Raises ConfigurationError where more copies must have a record than there are."""
    if copies is not None and must_have is not None and must_have > copies:
        raise ConfigurationError(
            f"{must_have} copies must have a record (min.insync.replicas), and there would be"
            f" {copies}: nothing could ever be written"
        )


class Overheard(logging.Handler):
    """The last complaints of the client, which it tells nobody else."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._said: deque[logging.LogRecord] = deque(maxlen=64)

    def emit(self, record: logging.LogRecord) -> None:
        self._said.append(record)

    def reason(self, since: float) -> str:
        """What it complained of last since a moment (`time.time`); empty if it did not."""
        said = [each.getMessage() for each in list(self._said) if each.created >= since]
        told = [found["reason"] for each in said if (found := TELLING.match(each))]
        telling = [each for each in told if not VAGUE.search(each)]
        return (telling or told or said or [""])[-1]

    def retried(self) -> str:
        """Why a record was sent again just now; empty if none was."""
        since = time.time() - RECENT
        said = [each.getMessage() for each in list(self._said) if each.created >= since]
        found = [told["reason"] for each in said if (told := RETRIED.match(each))]
        return found[-1] if found else ""


OVERHEARD = Overheard()
CLIENT_LOG.addHandler(OVERHEARD)
sasl.register()
resets.register()
receiving.register()


def connected(settings: KafkaSettings, make: Callable[..., T], **more: object) -> T:
    """A client of kafka-python that has reached its cluster.

    Raises ConfigurationError when a part of the client is missing, ServiceError with the reason
    when the cluster cannot be reached in time, and at once Forbidden when it does not let us in.
    """
    _check_parts()
    began = time.time()
    patience = [None] if "bootstrap_timeout_ms" in more else list(_slices(settings.start_timeout))
    reason = ""
    for seconds in patience:
        limit = {} if seconds is None else {"bootstrap_timeout_ms": _milliseconds(seconds)}
        try:
            return make(**settings.client() | limit | more)
        except (errors.KafkaError, OSError) as error:
            reason = OVERHEARD.reason(began) or str(error)
            if VAGUE.search(reason):
                reason = refused(settings) or reason
            if _meant(FINAL, reason):
                break
    kind = Forbidden if _meant(FINAL, reason) else ServiceError
    raise kind(
        f"Kafka at {settings.servers} cannot be reached ({settings.protocol}):"
        f" {_in_words(settings, reason)}"
    )


def _slices(seconds: float) -> Iterator[float]:
    """Each twice the one before, and all together so many seconds."""
    slice = SLICE
    while seconds > 0:
        yield min(slice, seconds)
        seconds -= slice
        slice *= 2


def _meant(causes: Sequence[tuple[str, str]], reason: str) -> str:
    """What the client's words mean; empty where we do not know."""
    return next((meaning for words, meaning in causes if re.search(words, reason)), "")


def _in_words(settings: KafkaSettings, reason: str) -> str:
    """Why a cluster cannot be reached: the cause as far as we know it, and the client's words."""
    cause = _meant((*FINAL, *PASSING), reason)
    if not cause and VAGUE.search(reason):
        cause = "it does not answer, or hangs up and does not say why"
    shown = "does not take ours" if settings.cert_file else "we have none (_CERT_FILE, _KEY_FILE)"
    cause = cause.format(mechanism=settings.mechanism, shown=shown)
    return f"{cause} ({reason})" if cause else reason


class Outage:
    """A broker that is away: told once, waited for, and no longer than somebody wants."""

    def __init__(self, settings: KafkaSettings, stopped: Callable[[], bool]) -> None:
        self.stopped = stopped
        self._settings = settings
        self.servers = settings.servers
        self._since: float | None = None
        self.known: tuple[str, float] | None = None
        """Why it is away and since when (`time.monotonic`), while it is."""

    def wait(self, error: Exception) -> None:
        """It has failed once more.

        Raises ServiceError when nobody wants to wait any longer, Forbidden when it is in vain.
        """
        self.check()
        if self._since is None:
            self._since = time.monotonic()
            why = _why(error)
            self.known = (why, self._since)
            self._note("away", f"{why}; waiting for it")
        elif time.monotonic() > self._since + PARDON:
            self._check_door()
        time.sleep(AGAIN)
        self.check()

    def check(self) -> None:
        """Raises ServiceError when nobody wants to wait any longer."""
        if self.stopped():
            raise ServiceError(
                f"Kafka at {self.servers} was away when the program was told to stop; what was"
                " not acknowledged is written when it goes on"
            )

    def _check_door(self) -> None:
        """Raises Forbidden where it is not away: it has ceased to let us in, and has said so."""
        reason = OVERHEARD.reason(time.time() - RECENT)
        if _meant(FINAL, reason):
            raise Forbidden(
                f"Kafka at {self.servers} does not let us in any more:"
                f" {_in_words(self._settings, reason)}"
            )

    def over(self) -> None:
        """It has answered."""
        if self._since is not None:
            self._note("back", f"after {time.monotonic() - self._since:.1f} s")
            self._since = self.known = None

    def insist(self, ask: Callable[[], T], *, ends: bool = True) -> T:
        """The answer to a question, asked until it is there. Raises what `refusal` says.

        The outage `ends` with it, unless what was away is another broker than the one that answers.
        """
        while True:
            try:
                answer = ask()
            except errors.KafkaError as error:
                if isinstance(error, REFUSALS):
                    raise refusal(error, "answer") from error
                self.wait(error)
            else:
                if ends:
                    self.over()
                return answer

    def _note(self, event: str, text: str) -> None:
        fields = {"event": f"kafka-{event}", "servers": self.servers}
        LOG.warning("Kafka at %s is %s: %s", self.servers, event, text, extra=fields)


def _why(error: Exception) -> str:
    """What failed; of a record that was given up, why no broker took it.

    A client that gives up when the broker's answer comes tells that; one that gives up meanwhile
    tells that it waited, and what the broker last answered was only overheard.
    """
    reason = name = type(error).__name__
    if isinstance(error, errors.KafkaTimeoutError):
        reason = OVERHEARD.retried() or name
    if reason.startswith(TOO_FEW):
        return f"fewer copies are in reach than must have a record (min.insync.replicas) ({reason})"
    return f"{reason}: {error}"


def refusal(error: errors.KafkaError, doing: str) -> FedtwinError:
    """What a broker refuses to let us do, in our words."""
    reason = f"{type(error).__name__}: {error}"
    if isinstance(error, errors.SaslAuthenticationFailedError):
        return Forbidden(f"Kafka does not let us in any more: user or password is wrong ({reason})")
    if isinstance(error, errors.AuthorizationError):
        return Forbidden(
            f"Kafka gives no right to {doing} ({reason}): its access list decides that"
        )
    if isinstance(error, errors.MessageSizeTooLargeError | errors.RecordListTooLargeError):
        return ConfigurationError(
            f"a record is too large to {doing} ({reason}): ours have 960 KiB, a key and headers,"
            " so topic and broker have to take 1 MiB (max.message.bytes)"
        )
    return ConfigurationError(f"Kafka refuses to {doing} ({reason})")


def _check_parts() -> None:
    """Without its C part the checksum costs thirty times the time of sending."""
    try:
        import crc32c  # noqa: F401
    except ImportError:
        raise ConfigurationError(
            "the package crc32c is missing, without which Kafka's client moves 5 MB/s:"
            " pip install 'kafka-python[crc32c]'"
        ) from None


def _milliseconds(seconds: float) -> int:
    return round(1000 * seconds)
