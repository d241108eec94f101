"""Operations as files declare them. The key that comes first says which, its value how it is called."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from mkspy.errors import BadSpec, Place, clip
from mkspy.spec.composition import Branch, Chain, Operation, Parallel
from mkspy.spec.declared import Fields, Scope, decoded, made, texts
from mkspy.spec.loops import Filter, Map, Reduce, Repeat
from mkspy.spec.operations import Classify, Extract, Free, Step, Tool
from mkspy.spec.tables import Table, expect, is_number, is_text, is_truth, json_value
from mkspy.types import BOOLEAN, INTEGER, NUMBER, TEXT, Field, Json, List, Primitive, Record
from mkspy.types.values import is_list, is_mapping

MAX_DEPTH = 30

_STARTS: dict[type, Primitive] = {str: TEXT, bool: BOOLEAN, int: INTEGER, float: NUMBER}


class Processes:
    """Reads operations: a table is one, a list is a chain of them."""

    def __init__(self, fields: Fields, outputs: Iterable[Field], tools: Sequence[Tool]) -> None:
        self._fields = fields
        self._outputs = {each.name: each.type for each in outputs}
        self._tools = {tool.name: tool for tool in tools}
        self._depth = 0

    def read(self, value: object, path: str, scope: Scope) -> Operation:
        """Return the operation at `path`, where the names in `scope` have a value."""
        if self._depth >= MAX_DEPTH:
            raise BadSpec(Place(path), f" is more than {MAX_DEPTH} operations deep")
        self._depth += 1
        operation = self._chain(value, path, scope) if is_list(value) else self._table(value, path, scope)
        self._depth -= 1
        return operation

    def _chain(self, values: Sequence[object], path: str, scope: Scope) -> Chain:
        steps: list[Operation] = []
        for at, value in enumerate(values):
            steps.append(self.read(value, f"{path}[{at}]", scope))
            scope = {**scope, **{each.name: each.type for each in steps[-1].outputs}}
        return made(path, Chain, *steps)

    def _table(self, value: object, path: str, scope: Scope) -> Operation:
        table = Table(value, path)
        kinds = [key for key in table.names if key in _KINDS]
        if len(kinds) != 1:
            found = f"says {' and '.join(kinds)}" if kinds else f"has the keys {clip(table.names)}"
            close = get_close_matches("".join(table.names[:1]), _KINDS, 1)
            meant = f"; did you mean {close[0]!r}?" if close and not kinds else ""
            raise BadSpec(Place(path), f" {found}; an operation says one of {', '.join(_KINDS)}{meant}")
        operation = _KINDS[kinds[0]](self, table, scope)
        table.done()
        return operation

    def _inputs(self, table: Table, scope: Scope) -> tuple[Field, ...]:
        return self._fields.read(table.any("inputs"), table.at("inputs"), scope)

    def _gives(self, table: Table) -> tuple[Field, ...]:
        """Read outputs: a name alone is the task's output of that name, or else text."""
        return self._fields.read(table.any("outputs"), table.at("outputs"), _OrText(self._outputs))

    def step(self, table: Table, scope: Scope) -> Step:
        """Return a call of a language model."""
        rest: dict[str, object] = {"tools": texts(table, "tools"), "instructions": _instructions(table)}
        rest["strategy"] = table.get("strategy", is_text, "auto")
        rest["max_iters"] = table.get("max_iters", is_number, 5)
        name = table.need("step", is_text)
        return made(table.path, Step, name, self._inputs(table, scope), self._gives(table), **rest)

    def free(self, table: Table, scope: Scope) -> Free:
        """Return a contract."""
        name, inputs = table.need("free", is_text), self._inputs(table, scope)
        return made(table.path, Free, name, inputs, self._gives(table), _instructions(table))

    def classify(self, table: Table, scope: Scope) -> Classify:
        """Return a choice of labels."""
        return made(
            table.path,
            Classify,
            table.need("classify", is_text),
            self._inputs(table, scope),
            texts(table, "labels", needed=True),
            table.get("into", is_text, "label"),
            table.get("multiple", is_truth, False),
            _instructions(table),
        )

    def extract(self, table: Table, scope: Scope) -> Extract:
        """Return the reading of a record."""
        record = self._fields.type(table.need("record", is_text), table.at("record"))
        if not isinstance(record, Record):
            raise BadSpec(Place(table.at("record")), " is the name of no record; declare it under [records]")
        return made(
            table.path,
            Extract,
            table.need("extract", is_text),
            self._inputs(table, scope),
            record,
            table.get("into", is_text, "record"),
            table.get("many", is_truth, False),
            _instructions(table),
        )

    def tool(self, table: Table, scope: Scope) -> Tool:
        """Return a function of the host: one of the task's tools by its name, or another."""
        name = table.need("tool", is_text)
        if not table.has("output"):
            if name not in self._tools:
                has = ", ".join(self._tools) or "none"
                raise BadSpec(Place(table.path), f" calls the tool {name!r}; the tools of the task are {has}")
            return self._tools[name]
        return tool(table, name, self._fields, scope)

    def chain(self, table: Table, scope: Scope) -> Chain:
        """Return steps in a row."""
        return self._chain(table.need("chain", is_list), table.at("chain"), scope)

    def parallel(self, table: Table, scope: Scope) -> Parallel:
        """Return operations side by side."""
        values = table.need("parallel", is_list)
        branches = [self.read(each, f"{table.at('parallel')}[{at}]", scope) for at, each in enumerate(values)]
        return made(table.path, Parallel, *branches)

    def branch(self, table: Table, scope: Scope) -> Branch:
        """Return a choice between operations."""
        on = self._fields.one(table.any("branch"), table.at("branch"), scope)
        cases = [
            self._case(each, f"{table.at('cases')}[{at}]", scope)
            for at, each in enumerate(table.need("cases", is_list))
        ]
        rest = (
            self.read(table.any("otherwise"), table.at("otherwise"), scope)
            if table.has("otherwise")
            else None
        )
        return made(table.path, Branch, on, tuple(cases), rest)

    def _case(self, value: object, path: str, scope: Scope) -> tuple[object, Operation]:
        table = Table(value, path)
        when = json_value(table.any("when"), table.at("when"))
        then = self.read(table.any("then"), table.at("then"), scope)
        table.done()
        return when, then

    def map(self, table: Table, scope: Scope) -> Map:
        """Return a loop that gathers."""
        each = _pair(table, "each")
        body = self._body(table, _with_item(scope, each))
        return made(table.path, Map, table.need("map", is_text), body, each, _pairs(table, "into"))

    def filter(self, table: Table, scope: Scope) -> Filter:
        """Return a loop that chooses."""
        each = _pair(table, "each")
        body = self._body(table, _with_item(scope, each))
        name, keep, into = (table.need(key, is_text) for key in ("filter", "keep", "into"))
        return made(table.path, Filter, name, body, each, keep, into)

    def reduce(self, table: Table, scope: Scope) -> Reduce:
        """Return a loop that carries a value."""
        each, carry, start = _pair(table, "each"), _pair(table, "carry"), _start(table)
        known = {carry[1]: _STARTS[type(start)]} if type(start) in _STARTS else {}
        body = self._body(table, {**_with_item(scope, each), **known})
        name, into = table.need("reduce", is_text), table.need("into", is_text)
        return made(table.path, Reduce, name, body, each, carry, start, into)

    def repeat(self, table: Table, scope: Scope) -> Repeat:
        """Return a loop that improves."""
        body, carry = self._body(table, scope), _pairs(table, "carry")
        until = table.need("until", is_text) if table.has("until") else None
        name = table.need("repeat", is_text)
        return made(table.path, Repeat, name, body, table.need("times", is_number), carry, until)

    def _body(self, table: Table, scope: Scope) -> Operation:
        return self.read(table.any("body"), table.at("body"), scope)


_KINDS: Mapping[str, Callable[[Processes, Table, Scope], Operation]] = {
    "step": Processes.step,
    "classify": Processes.classify,
    "extract": Processes.extract,
    "tool": Processes.tool,
    "map": Processes.map,
    "filter": Processes.filter,
    "reduce": Processes.reduce,
    "chain": Processes.chain,
    "parallel": Processes.parallel,
    "branch": Processes.branch,
    "repeat": Processes.repeat,
    "free": Processes.free,
}


def tool(table: Table, name: str, fields: Fields, scope: Scope | None = None) -> Tool:
    """Return the tool that a table declares."""
    return made(
        table.path,
        Tool,
        name,
        fields.read(table.any("inputs"), table.at("inputs"), scope),
        fields.one(table.any("output"), table.at("output")),
        table.get("description", is_text, ""),
        table.get("module", is_text, "tools"),
    )


class _OrText(dict[str, Any]):
    """The task's outputs; any other name is text, as it is in DSPy."""

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> Primitive:
        return TEXT


def _instructions(table: Table) -> str:
    return table.get("instructions", is_text, "")


def _pairs(table: Table, key: str) -> tuple[tuple[str, str], ...]:
    pairs = table.need(key, is_mapping)
    return tuple((name, expect(other, is_text, f"{table.at(key)}.{name}")) for name, other in pairs.items())


def _pair(table: Table, key: str) -> tuple[str, str]:
    pairs = _pairs(table, key)
    if len(pairs) != 1:
        raise BadSpec(
            Place(table.at(key)), f' has {len(pairs)} names; write one, such as {{ chapter = "chapters" }}'
        )
    return pairs[0]


def _start(table: Table) -> Json:
    if table.has("start_json"):
        return decoded(table, "start_json")
    return json_value(table.any("start"), table.at("start"))


def _with_item(scope: Scope, each: tuple[str, str]) -> Scope:
    item, many = each
    known = scope.get(many)
    return {**scope, item: known.item} if isinstance(known, List) else scope
