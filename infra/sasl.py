"""How the client of Kafka proves a password: with the one of the moment.

It takes a password once, when it is made, and lives through many connections. So it is given where
the password lies instead, and its ways to prove one look there for each connection. It logs its
settings, too, and shows a place there and no password.
"""

from __future__ import annotations

from typing import Any

from kafka.net.sasl import register_sasl_mechanism
from kafka.net.sasl.plain import SaslMechanismPlain
from kafka.net.sasl.scram import SaslMechanismScram

from infra.passwords import Password


def _with_password(config: dict[str, Any]) -> dict[str, Any]:
    told = config["sasl_plain_password"]
    return config | {"sasl_plain_password": told.now() if isinstance(told, Password) else told}


class Scram(SaslMechanismScram):  # type: ignore[misc]
    """The client's own, with the password of the moment."""

    def __init__(self, **config: Any) -> None:
        super().__init__(**_with_password(config))


class Plain(SaslMechanismPlain):  # type: ignore[misc]
    """Likewise."""

    def __init__(self, **config: Any) -> None:
        super().__init__(**_with_password(config))


def register() -> None:
    """From now on every client of this process uses these."""
    for name, kind in (("SCRAM-SHA-256", Scram), ("SCRAM-SHA-512", Scram), ("PLAIN", Plain)):
        register_sasl_mechanism(name, kind, overwrite=True)
