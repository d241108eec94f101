"""The shape of streamll: which module may import which, what every module and public name says of itself."""

import ast
import inspect
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
import streamll

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "packages/streamll/src/streamll"
FILES = {path.relative_to(SOURCE).as_posix(): path for path in sorted(SOURCE.rglob("*.py"))}


def module(file: str) -> str:
    """Return the dotted name of a file: `core/events.py` is `streamll.core.events`."""
    parts = ["streamll", *file.removesuffix(".py").split("/")]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module(file): file for file in FILES}


def imported(file: str) -> Iterator[str]:
    """Yield the modules of ours that a file names in an import, wherever in the file, also for types only."""
    for node in ast.walk(ast.parse(FILES[file].read_text())):
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
        yield from (name for name in names if name.partition(".")[0] == "streamll")


@pytest.mark.parametrize("file", [file for file in FILES if file.startswith("core/")])
def test_the_core_imports_only_the_core_and_the_errors(file: str) -> None:
    strangers = [
        name
        for name in imported(file)
        if name != "streamll.errors" and name.split(".")[:2] != ["streamll", "core"]
    ]

    assert not strangers, f"{file} imports {strangers}; hand it in from outside instead"


@pytest.mark.parametrize("file", [file for file in FILES if file.startswith(("sinks/", "transports/"))])
def test_a_place_for_events_knows_events_and_nothing_of_programs(file: str) -> None:
    allowed = ("streamll.core.events", "streamll.errors", "streamll.sinks", "streamll.transports")

    strangers = [name for name in imported(file) if not name.startswith(allowed)]

    assert not strangers, f"{file} imports {strangers}; a sink is given events and needs nothing else of ours"


def test_nothing_imports_a_command_line() -> None:
    importers = [file for file in FILES if "streamll.cli" in imported(file) and file != "__main__.py"]

    assert not importers, f"{importers} import streamll.cli; move what they need to where the work is done"


def test_imports_never_go_in_a_circle() -> None:
    graph = {name: set(imported(file)) - {name} for name, file in MODULES.items()}

    tuple(TopologicalSorter(graph).static_order())  # a CycleError names the circle


@pytest.mark.parametrize("file", FILES)
def test_every_module_says_what_it_is_for(file: str) -> None:
    said = ast.get_docstring(ast.parse(FILES[file].read_text()))

    assert said or not FILES[file].read_text(), f"{file} has no docstring: say in a sentence what is in it"


@pytest.mark.parametrize("name", streamll.__all__)
def test_every_public_name_has_a_docstring_of_its_own(name: str) -> None:
    said = vars(getattr(streamll, name)).get("__doc__") or inspect.getdoc(getattr(streamll, name))

    assert said, f"streamll.{name} has no docstring: say what its user gets"
    assert said.strip()[0].isupper()


def test_the_public_names_are_in_order_and_exist() -> None:
    assert streamll.__all__ == sorted(streamll.__all__)
    assert [name for name in streamll.__all__ if not hasattr(streamll, name)] == []


def test_the_architecture_page_has_a_row_for_every_module() -> None:
    page = (ROOT / "docs/architecture.md").read_text()

    missing = [file for file in FILES if FILES[file].read_text() and f"`{file}`" not in page]

    assert not missing, f"docs/architecture.md does not mention {', '.join(missing)}: add each to its table"


def test_the_architecture_page_names_no_module_that_is_gone() -> None:
    rows = [
        line
        for line in (ROOT / "docs/architecture.md").read_text().splitlines()
        if line.startswith("| `") and ".py`" in line
    ]

    gone = [file for row in rows if (file := row.split("`")[1]).endswith(".py") and file not in FILES]

    assert rows
    assert not gone, f"docs/architecture.md has rows for {gone}, which do not exist"
