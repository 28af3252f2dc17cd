"""The floors of the house: who may import whom. Imports point down only, and are absolute.

experiments                                the roof: everything
producers · twins · aggregator · proxy     schemas, learning, and what infra promises
infra                                      schemas
schemas · learning                         nothing of the house, nor each other
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FLOORS: dict[str, set[str]] = {
    "schemas": set(),
    "learning": set(),
    "infra": {"schemas"},
    "producers": {"schemas", "learning", "infra"},
    "twins": {"schemas", "learning", "infra"},
    "aggregator": {"schemas", "learning", "infra"},
    "proxy": {"schemas", "learning", "infra"},
    "experiments": {
        "schemas", "learning", "infra", "producers", "twins", "aggregator", "proxy",
    },
}  # fmt: skip
ROLES = ("producers", "twins", "aggregator", "proxy")
PROMISES = {"infra.promises", "infra.transport.base", "infra.store.base"}
"""All that a role may know of the outside world."""
STARTERS = ("__main__.py", "worker.py")
"""Files that are run as a program; they may know more."""
PORTS = ("infra.transport", "infra.store")
"""Folders of a promise (base.py) and of those who keep it, which only a starter chooses among."""


def modules(package: str) -> list[Path]:
    """A package's files, its own tests excepted (they live elsewhere)."""
    return sorted((ROOT / package).rglob("*.py"))


def name_of(path: Path) -> str:
    """A file's name as it is imported: infra/store/base.py is infra.store.base."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(source: str) -> Iterator[str]:
    """Everything a text imports anywhere, also inside functions; a relative one begins with a dot.

    `from a.b import c` is given as a.b when c is no module of the house, else as a.b.c.
    """
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import():
                yield from (each.name for each in node.names)
            case ast.ImportFrom():
                origin = "." * node.level + (node.module or "")
                for each in node.names:
                    inner = f"{origin}.{each.name}"
                    yield inner if is_module(inner) else origin


def is_module(name: str) -> bool:
    """Whether the house has a file or folder of this name."""
    place = ROOT.joinpath(*name.split("."))
    return name.split(".")[0] in FLOORS and (place.is_dir() or place.with_suffix(".py").exists())


def of_the_house(path: Path) -> Iterator[str]:
    """What a file imports of the house."""
    for name in imports(path.read_text()):
        if name.startswith(".") or name.split(".")[0] in FLOORS:
            yield name


def complaint(path: Path, name: str) -> str | None:
    """Why a file may not import this, or None."""
    own = name_of(path)
    room, target = own.split(".")[0], name.split(".")[0]
    starts = path.name in STARTERS or room == "experiments"
    if name.startswith("."):
        return "imports are absolute"
    if target not in FLOORS[room] | {room}:
        return f"{room} may import {', '.join(sorted(FLOORS[room])) or 'nothing of the house'}"
    if starts:
        return None
    if room in ROLES and target == "infra" and name not in PROMISES:
        return f"a role knows only {', '.join(sorted(PROMISES))}"
    for port in PORTS:
        among = name == port or name.startswith(f"{port}.")
        if among and name != f"{port}.base" and not own.startswith(f"{port}."):
            return f"only a __main__, experiments and tests choose among those of {port}"
    return None


def complaints(path: Path) -> list[str]:
    """One line for each import that breaks a rule."""
    found = ((name, complaint(path, name)) for name in of_the_house(path))
    return [f"{name_of(path)} imports {name}: {why}" for name, why in found if why]


@pytest.mark.parametrize("package", FLOORS)
def test_imports_point_down_only(package: str) -> None:
    """Each package imports only what its floor allows, by absolute names, in every function."""
    found = [line for path in modules(package) for line in complaints(path)]

    assert modules(package)
    assert not found, "\n".join(found)


def test_no_import_hides_behind_a_computed_name() -> None:
    """What is imported by a string is seen neither by these tests nor by a reader."""
    hidden = [
        f"{name_of(path)}:{node.lineno}"
        for package in FLOORS
        for path in modules(package)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Name | ast.Attribute)
        and (node.id if isinstance(node, ast.Name) else node.attr)
        in ("import_module", "__import__", "run_module")
    ]

    assert not hidden


def test_the_table_names_every_package() -> None:
    """A package that is shipped has a floor, and what has a floor is shipped."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    shipped = settings["tool"]["setuptools"]["packages"]["find"]["include"]

    assert sorted(each.removesuffix("*") for each in shipped) == sorted(FLOORS)


@pytest.mark.parametrize(
    ("file", "name", "why"),
    [
        ("schemas/codec.py", "learning.shapes", "nothing of the house"),
        ("learning/nets.py", "schemas.tensors", "nothing of the house"),
        ("infra/serve.py", "learning.nets", "may import schemas"),
        ("twins/twin.py", "aggregator.averaging", "twins may import"),
        ("twins/twin.py", "infra.serve", "a role knows only"),
        ("twins/twin.py", "infra", "a role knows only"),
        ("twins/__main__.py", "proxy.selection", "twins may import"),
        ("infra/serve.py", "infra.transport.kafka", "choose among those of infra.transport"),
        ("infra/shelf.py", "infra.store", "choose among those of infra.store"),
        ("twins/twin.py", ".learner", "absolute"),
    ],
)
def test_a_broken_rule_is_named(file: str, name: str, why: str) -> None:
    """The judge of these tests is judged: each kind of wrong import has its complaint."""
    found = complaint(ROOT / file, name)

    assert found is not None
    assert why in found


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("twins/twin.py", "infra.transport.base"),
        ("twins/__main__.py", "infra.transport.kafka"),
        ("twins/worker.py", "infra.workers"),
        ("experiments/system.py", "infra.store.sqlite"),
        ("infra/store/redis.py", "infra.store.base"),
        ("infra/transport/unkind.py", "infra.transport.embedded"),
        ("proxy/proxy.py", "learning.prototypes"),
    ],
)
def test_what_is_allowed_is_not_named(file: str, name: str) -> None:
    """Promises are for everybody; a starter and a keeper of the promise may know its keepers."""
    assert complaint(ROOT / file, name) is None


def test_imports_are_seen_wherever_they_stand() -> None:
    """A module asked of its package, one inside a function, one for the type checker alone."""
    source = (
        "from infra import promises\n"
        "from infra.promises import Say\n"
        "def f():\n    import torch.nn\n"
        "if TYPE_CHECKING:\n    from . import twin\n"
    )

    assert list(imports(source)) == ["infra.promises", "infra.promises", "torch.nn", "."]
