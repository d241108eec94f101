"""Read a task from a file or from text, TOML or JSON, and write it."""

import json
import tomllib
from pathlib import Path
from typing import Any, Literal, cast

from mkspy.errors import BadSpec, Place, clip
from mkspy.spec import toml
from mkspy.spec.document import document
from mkspy.spec.reading import read
from mkspy.spec.task import Task
from mkspy.types import Json

type Format = Literal["toml", "json"]
MAX_BYTES = 1_000_000


def load(source: str | Path, format: Format | None = None) -> Task:
    """Return the task that a file or a text holds.

    Args:
        source: A path; or text of more than one line, or that begins with `{`. At most 1,000,000 bytes.
        format: Told from the file's name, or from the text, when it is not given.

    Raises:
        BadSpec: It holds no task; the message names the key, or the line.
        OSError: The file cannot be read.
    """
    text = source if isinstance(source, str) and _is_text(source) else _text(Path(source))
    if len(text) > MAX_BYTES:
        raise BadSpec(Place("spec"), f" has {len(text)} characters; at most {MAX_BYTES} are read")
    name = str(source) if text is not source else ""
    return read(_tree(text, format or ("json" if _is_json(text, name) else "toml")))


def dumps(task: Task, format: Format = "toml") -> str:
    """Return `task` as the text of a file; `load` reads it back as it was."""
    tree = document(task)
    if format == "json":
        return json.dumps(tree, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    return toml.dumps(toml.without_null(tree))


def _is_text(source: str) -> bool:
    return "\n" in source or source.lstrip().startswith("{") or "=" in source


def _is_json(text: str, name: str) -> bool:
    return name.endswith(".json") or (not name.endswith(".toml") and text.lstrip().startswith("{"))


def _text(path: Path) -> str:
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise BadSpec(Place(str(path)), f" is not UTF-8 (line {line}); save it as UTF-8") from None


def _tree(text: str, format: Format) -> object:
    try:
        return tomllib.loads(text) if format == "toml" else json.loads(text, object_pairs_hook=_table)
    except (tomllib.TOMLDecodeError, json.JSONDecodeError) as error:
        raise BadSpec(Place("spec"), f" is no {format.upper()}: {error}") from None
    except RecursionError:
        raise BadSpec(Place("spec"), " is nested too deeply to be read") from None
    except ValueError as error:  # a number of thousands of digits
        raise BadSpec(Place("spec"), f" is no {format.upper()} that can be read: {error}") from None


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Json]:
    table = cast("dict[str, Json]", dict(pairs))
    if len(table) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise BadSpec(Place("spec"), f" has the key {clip(twice)} twice in one table")
    return table
