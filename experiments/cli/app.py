"""The commands by name, and what becomes of what goes wrong: one line, and an exit code."""

from __future__ import annotations

import errno
import json
import sys
import traceback
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from experiments.cli import data, dlq, doctor, inject, looks, model, replay, runs, topics
from experiments.cli.words import JSON_ASKED, SCHEMA, in_a_line
from schemas.errors import FedtwinError

INTERRUPTED = 130
EXIT_CODES = """
\b
Exit codes:
  0    done
  1    a run that failed or diverged, or a full disk
  2    wrong usage or configuration, a second runner, another schema
  3    a service that cannot be reached
  4    data missing or broken, a run folder of another version
  130  interrupted; what was written stands
"""


class Commands(TyperGroup):
    """Tells of an error in one line on stderr, and ends with its exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (FedtwinError, KeyboardInterrupt) as error:
            _tell(ctx, error, *_known(error))
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise  # whoever read our output has enough
            _tell(ctx, error, f"{error}: is there room, and may you write there?", 1)
        except Exception as error:
            if hasattr(error, "exit_code"):
                raise  # typer's own, which it tells of itself
            text = f"{type(error).__name__}: {error}".splitlines()[0]
            _tell(ctx, error, f"unexpected {text}; `fedtwin --debug ...` shows where", 1)


def _known(error: FedtwinError | KeyboardInterrupt) -> tuple[str, int]:
    if isinstance(error, FedtwinError):
        return in_a_line(str(error)), error.exit_code
    return "interrupted; what was written stands", INTERRUPTED


def _tell(ctx: Any, error: BaseException, text: str, code: int) -> NoReturn:
    if ctx.params.get("debug"):
        traceback.print_exception(error)
    advice = getattr(error, "__notes__", [])
    for line in (f"fedtwin: {text}", *advice):
        print(line, file=sys.stderr)
    if ctx.meta.get(JSON_ASKED):
        status = "interrupted" if code == INTERRUPTED else "failed"
        told = {"schema": SCHEMA, "status": status, "error": text, "exit_code": code}
        print(json.dumps(told))
    raise typer.Exit(code)


def _version(asked: bool) -> None:
    if asked:
        from importlib import metadata

        print(f"fedtwin {metadata.version('fedtwin')}")
        raise typer.Exit


def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Before a command: show where an error came from.")
    ] = False,
) -> None:
    """Digital twins learn new classes from live image streams, together, without forgetting.

    \b
    Examples:
      fedtwin demo                          a first run with its report, no service needed
      fedtwin run smoke -o stages=1         a recipe with one key changed
      fedtwin resume runs/smoke-fedka-2021  go on with a run that was stopped
      fedtwin COMMAND --help                examples and options of a command
    """


app = typer.Typer(
    cls=Commands,
    name="fedtwin",
    callback=root,
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
runs.add_to(app)
looks.add_to(app)
inject.add_to(app)
replay.add_to(app)
topics.add_to(app)
dlq.add_to(app)
model.add_to(app)
data.add_to(app)
doctor.add_to(app)
