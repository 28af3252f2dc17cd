"""The commands by name, and what becomes of what goes wrong: a line that says what, one that says
what to do next, and an exit code."""

from __future__ import annotations

import errno
import json
import re
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from experiments.cli import (
    data,
    detection,
    dlq,
    doctor,
    forget,
    inject,
    live,
    looks,
    model,
    operate,
    paper,
    replay,
    runs,
    topics,
    watch,
)
from experiments.cli.words import BEGUN, SCHEMA, command, in_a_line, without_usual_place
from schemas.errors import ConfigurationError, DataError, FedtwinError, Forbidden, ServiceError
from schemas.plain import plain

WORDS = "fedtwin.words"
"""In a context's `meta`: all that stands behind `fedtwin`."""
NEXT = "next: "
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
    """Tells of an error in one line on stderr, of a way on in the next, and ends with its code."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.meta[WORDS] = list(args)
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            _misused(ctx, error)
            raise

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
            _misused(ctx, error)
            if hasattr(error, "exit_code"):
                raise  # typer's own, for the end of a command
            text = f"{type(error).__name__}: {error}".splitlines()[0]
            _tell(ctx, error, f"unexpected {text}", 1)


def _known(error: FedtwinError | KeyboardInterrupt) -> tuple[str, int]:
    if isinstance(error, FedtwinError):
        return without_usual_place(in_a_line(str(error))), error.exit_code
    return "interrupted; what was written stands", INTERRUPTED


def _misused(ctx: Any, error: Exception) -> None:
    """Words that are no command or option of one: typer says so, in its own way."""
    if hasattr(error, "format_message") and (text := in_a_line(error.format_message())):
        error.show()  # type: ignore[attr-defined]
        _end(ctx, error, text, error.exit_code)  # type: ignore[attr-defined]


def _tell(ctx: Any, error: BaseException, text: str, code: int) -> NoReturn:
    if ctx.params.get("debug"):
        traceback.print_exception(error)
    print(f"fedtwin: {plain(text)}", file=sys.stderr)
    _end(ctx, error, text, code)


def _end(ctx: Any, error: BaseException, text: str, code: int) -> NoReturn:
    notes = list(getattr(error, "__notes__", []))
    if not notes or not notes[-1].startswith(NEXT):
        notes.append(NEXT + _way_on(error, text, ctx.meta[WORDS]))
    print("\n".join(plain(note, "\n") for note in notes), file=sys.stderr)
    if "--json" in ctx.meta[WORDS]:
        print(json.dumps(_as_object(ctx, text, code)))
    raise typer.Exit(code)


def _way_on(error: BaseException, text: str, words: Sequence[str]) -> str:
    """What to do next: the first command that the text names, else what helps with its like."""
    if named := re.search(r"`(fedtwin [^`]+)`", text):
        return named[1]
    match error:
        case ConfigurationError() if "unknown key" in text:
            return "fedtwin recipes smoke lists every key, and what it takes"
        case DataError():
            return "put it right or name another; fedtwin data ls lists data sets, fedtwin ls runs"
        case Forbidden():
            return "ask who keeps its access list; fedtwin topics plan --help shows who needs what"
        case ServiceError():
            return "start it or name another; fedtwin doctor looks for services"
        case FedtwinError() | OSError() | KeyboardInterrupt() if not _is_usage(error):
            return f"put that right, then again {command(*words)}"
        case Exception() if not _is_usage(error):
            return f"{command('--debug', *(w for w in words if w != '--debug'))} shows where"
        case _ if not words:
            return command("demo")
        case _:
            return f"{command(*_named(words), '--help')} shows what can be said"


def _is_usage(error: BaseException) -> bool:
    return isinstance(error, ConfigurationError) or hasattr(error, "format_message")


def _named(words: Sequence[str]) -> Sequence[str]:
    """Of all words those that name a command, such as `data ls`."""
    command: Any = typer.main.get_command(app)
    found: list[str] = []
    for word in words:
        if word in getattr(command, "commands", {}):
            command = command.commands[word]
            found.append(word)
    return found


def _as_object(ctx: Any, text: str, code: int) -> dict[str, Any]:
    """The object of the run that a command was about if it came to begin, else the bare error."""
    from experiments.summary import summary

    ended = {"error": text, "exit_code": code}
    try:
        return summary(ctx.meta[BEGUN]) | ended
    except (KeyError, FedtwinError):
        status = "interrupted" if code == INTERRUPTED else "failed"
        return {"schema": SCHEMA, "status": status, **ended}


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
      fedtwin demo                          # a first run with its report, no service needed
      fedtwin run smoke -o stages=1         # a recipe with one key changed
      fedtwin resume runs/smoke-fedka-2021  # go on with a run that was stopped
      fedtwin run --help                    # examples and options of a command
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
paper.add_to(app)
looks.add_to(app)
inject.add_to(app)
live.add_to(app)
operate.add_to(app)
forget.add_to(app)
watch.add_to(app)
replay.add_to(app)
topics.add_to(app)
dlq.add_to(app)
model.add_to(app)
detection.add_to(app)
data.add_to(app)
doctor.add_to(app)
