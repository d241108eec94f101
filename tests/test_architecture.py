"""The shape of the packages: what may import what, what every module and public name says of itself."""

import ast
import inspect
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import dspy_cli
import mkspy
import pytest
import streamll

ROOT = Path(__file__).parents[1]
PACKAGES = {"streamll": streamll, "dspy_cli": dspy_cli, "mkspy": mkspy}
FILES = {
    f"{package}/{path.relative_to(source).as_posix()}": path
    for package in PACKAGES
    for source in [ROOT / f"packages/{package}/src/{package}"]
    for path in sorted(source.rglob("*.py"))
    if "templates" not in path.parts
}


def module(file: str) -> str:
    """Return the dotted name of a file: `streamll/core/events.py` is `streamll.core.events`."""
    parts = file.removesuffix(".py").split("/")
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module(file): file for file in FILES}


def imported(file: str, *, at_once: bool = False) -> Iterator[str]:
    """Yield the modules of ours that a file names in an import; `at_once` leaves out what waits for a call or
    is for types only."""
    for node in _at_once(ast.parse(FILES[file].read_text())) if at_once else _all(file):
        match node:
            case ast.Import():
                names = [alias.name for alias in node.names]
            case ast.ImportFrom(module=str(source), level=0):
                names = [f"{source}.{alias.name}" for alias in node.names]
                names = [name if name in MODULES else source for name in names]
            case ast.ImportFrom():
                pytest.fail(f"{file}:{node.lineno} imports relatively; write the module's whole name")
            case _:
                continue
        yield from (name for name in names if name.partition(".")[0] in PACKAGES)


def _all(file: str) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(FILES[file].read_text()))


def _at_once(tree: ast.Module) -> Iterator[ast.AST]:
    yield from tree.body


def strangers(prefix: str, *allowed: str) -> dict[str, list[str]]:
    """Return, for the files under `prefix`, what they import besides `allowed` and what is beside them."""
    own = prefix.rstrip("/").replace("/", ".")
    found = {
        file: [name for name in imported(file) if not name.startswith((own, *allowed))]
        for file in FILES
        if file.startswith(prefix)
    }
    assert found, f"there is nothing under {prefix}"
    return {file: names for file, names in found.items() if names}


MAY_IMPORT = {
    "streamll/": (),
    "streamll/core/": ("streamll.errors",),
    "streamll/sinks/": ("streamll.core.events", "streamll.errors", "streamll.transports"),
    "streamll/transports/": ("streamll.core.events", "streamll.errors", "streamll.sinks"),
    "dspy_cli/": ("streamll",),
    "dspy_cli/project/": ("streamll", "dspy_cli.errors", "dspy_cli.gateways"),
    "dspy_cli/gateways/": ("streamll", "dspy_cli.errors", "dspy_cli.threads", "dspy_cli.project"),
    "dspy_cli/server/": (
        "streamll",
        "dspy_cli.errors",
        "dspy_cli.threads",
        "dspy_cli.project",
        "dspy_cli.gateways",
    ),
    "mkspy/": (),
    "mkspy/types/": ("mkspy.errors", "mkspy.names"),
    "mkspy/spec/": ("mkspy.errors", "mkspy.names", "mkspy.types"),
    "mkspy/check/": ("mkspy.errors", "mkspy.names", "mkspy.types", "mkspy.spec"),
    "mkspy/generate/": ("mkspy.errors", "mkspy.names", "mkspy.types", "mkspy.spec"),
}
"""Imports point one way. A place for events knows events, and nothing of programs."""


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_imports_point_one_way(room: str) -> None:
    assert not strangers(room, *MAY_IMPORT[room]), "hand it in from outside instead"


def test_nothing_imports_a_command_line() -> None:
    lines = {f"{package}.cli" for package in PACKAGES}

    importers = [file for file in FILES if lines & {*imported(file)} and not file.endswith("/__main__.py")]

    assert not importers, f"{importers} import a cli; move what they need to where the work is done"


def test_only_what_runs_the_app_imports_it() -> None:
    importers = [file for file in FILES if "dspy_cli.server.app" in imported(file)]

    assert set(importers) <= {"dspy_cli/__init__.py", "dspy_cli/server/serve.py"}


def test_imports_never_go_in_a_circle() -> None:
    graph = {name: set(imported(file, at_once=True)) - {name} for name, file in MODULES.items()}

    tuple(TopologicalSorter(graph).static_order())  # a CycleError names the circle


@pytest.mark.parametrize("file", FILES)
def test_every_module_says_what_it_is_for(file: str) -> None:
    said = ast.get_docstring(ast.parse(FILES[file].read_text()))

    assert said or not FILES[file].read_text(), f"{file} has no docstring: say in a sentence what is in it"


PUBLIC = [(package, name) for package in PACKAGES.values() for name in package.__all__]


@pytest.mark.parametrize(("package", "name"), PUBLIC, ids=[name for _, name in PUBLIC])
def test_every_public_name_has_a_docstring_of_its_own(package: object, name: str) -> None:
    public = getattr(package, name)

    said = vars(public).get("__doc__") or inspect.getdoc(public)

    assert said, f"{name} has no docstring: say what its user gets"
    assert said.strip()[0].isupper()


@pytest.mark.parametrize("package", PACKAGES.values(), ids=PACKAGES)
def test_the_public_names_are_in_order(package: object) -> None:
    names = vars(package)["__all__"]

    assert names == sorted(names)


def rows() -> list[str]:
    """Return the files that the architecture page has rows for, each with its package."""
    page = (ROOT / "docs/architecture.md").read_text()
    sections = {package: page.partition(f"\n## Rooms of {package}\n")[2] for package in PACKAGES}
    return [
        f"{package}/{cell}"
        for package, section in sections.items()
        for line in section.partition("\n## ")[0].splitlines()
        if line.startswith("| `")
        for cell in line.split("|")[1].replace("`", "").replace(",", " ").split()
        if cell.endswith(".py")
    ]


def test_the_architecture_page_has_a_row_for_every_module() -> None:
    missing = [file for file in FILES if FILES[file].read_text() and file not in rows()]

    assert not missing, f"docs/architecture.md does not mention {', '.join(missing)}: add each to its table"


def test_the_architecture_page_names_no_module_that_is_gone() -> None:
    gone = [file for file in rows() if file not in FILES]

    assert rows()
    assert not gone, f"docs/architecture.md has rows for {gone}, which do not exist"
