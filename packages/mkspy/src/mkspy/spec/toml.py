"""Write a tree of values as TOML that people like to read; `tomllib` reads it back as it was."""

import json
import re
from collections.abc import Iterator, Mapping

from mkspy.types import Json
from mkspy.types.values import is_list, is_mapping

WIDTH = 100
_BARE = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_PLAIN = re.compile(r"[ !#-&(-~]*\"[ -&(-~]*", re.ASCII)
"""Text with double quotes in it and nothing to escape; in single quotes it is easier to read."""

_SECTIONS = frozenset(("examples", "process", "tools", "body", "parallel", "chain", "cases"))
_IN_ORDER = frozenset(("inputs", "outputs", "output", "fields"))
"""Tables of fields: their order matters, so no field gets a section that would move it behind the others."""

type Tree = Mapping[str, Json]
type Path = tuple[str, ...]


def dumps(tree: Tree) -> str:
    """Return `tree` as TOML. It has no null; `without_null` puts something else there."""
    return "\n".join(_section(tree, ())).strip("\n") + "\n"


def without_null(tree: Tree, path: Path = ()) -> dict[str, Json]:
    """Return `tree` with each value that has a null in it as JSON text, under its key with `_json` added."""
    found: dict[str, Json] = {}
    for key, value in tree.items():
        here = (*path, key)
        if not _has_null(value):
            found[key] = value
        elif _is_data(here):
            found[f"{key}_json"] = json.dumps(value, ensure_ascii=False)
        else:
            found[key] = _inside(value, here)
    return found


def _inside(value: Json, path: Path) -> Json:
    if is_mapping(value):
        return without_null(value, path)
    assert is_list(value)  # a null of its own is data
    return [_inside(item, path) if is_mapping(item) else item for item in value]


def _is_data(path: Path) -> bool:
    return path[-1] in ("default", "start") or (path[0] == "examples" and len(path) > 1)


def _has_null(value: Json) -> bool:
    if is_mapping(value):
        return any(map(_has_null, value.values()))
    return any(map(_has_null, value)) if is_list(value) else value is None


def _section(table: Tree, path: Path) -> Iterator[str]:
    sections: list[tuple[str, Json]] = []
    for key, value in table.items():
        line = f"{_key(key)} = {_value(value)}"
        if _is_section(key, value, path, line):
            sections.append((key, value))
        else:
            yield line
    for key, value in sections:
        yield from _tables(value, (*path, key))


def _is_section(key: str, value: Json, path: Path, line: str) -> bool:
    if path and path[-1] in _IN_ORDER and path[0] != "examples":
        return False
    if is_mapping(value):
        return not path or key in _SECTIONS or len(line) > WIDTH
    if not is_list(value) or not value or not all(map(is_mapping, value)):
        return False
    return key in _SECTIONS or any(len(_inline(each)) > WIDTH for each in value)


def _tables(value: Json, path: Path) -> Iterator[str]:
    name = ".".join(map(_key, path))
    if is_mapping(value):
        lines = list(_section(value, path))
        yield from lines if lines and not lines[0] else ("", f"[{name}]", *lines)
    elif is_list(value):
        for each in value:
            assert is_mapping(each)  # `_is_section` saw to it
            yield from ("", f"[[{name}]]")
            yield from _section(each, path)


def _value(value: Json) -> str:
    if isinstance(value, str) and "\n" in value:
        return '"""\n' + _escaped(value).replace("\\n", "\n").replace('"""', '""\\"') + '"""'
    line = _inline(value)
    if is_list(value) and value and len(line) > WIDTH - 20:
        return "[\n" + "".join(f"  {_inline(item)},\n" for item in value) + "]"
    return line


def _inline(value: Json) -> str:
    if is_mapping(value):
        return "{ " + ", ".join(f"{_key(key)} = {_inline(item)}" for key, item in value.items()) + " }"
    if is_list(value):
        return f"[{', '.join(map(_inline, value))}]"
    if isinstance(value, str):
        return f"'{value}'" if _PLAIN.fullmatch(value) else f'"{_escaped(value).replace('"', '\\"')}"'
    assert value is not None  # `without_null` was here
    return json.dumps(value)


def _escaped(text: str) -> str:
    """Escape all but quotes. JSON's escapes are TOML's, and DEL is the one control that only TOML refuses."""
    bare = json.dumps(text, ensure_ascii=False)[1:-1].replace("\x7f", "\\u007f")
    return re.sub(r"\\(.)", lambda found: '"' if found[1] == '"' else found[0], bare)


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _inline(key)
