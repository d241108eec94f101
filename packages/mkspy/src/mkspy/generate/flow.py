"""A process as the statements of `forward` and `aforward`. What nothing reads is called, and not kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import libcst as cst

from mkspy.generate import layout
from mkspy.generate.annotations import Annotations, scalar
from mkspy.generate.layout import INDENT, assigned, called, code, fits, returned
from mkspy.generate.scope import Names, Scope
from mkspy.generate.syntax import (
    attribute,
    awaited,
    block,
    call,
    comprehension,
    dotted,
    keywords,
    name,
    sequence,
)
from mkspy.generate.text import WIDTH, columns, literal
from mkspy.spec import Branch, Chain, Filter, Map, Operation, Parallel, Reduce, Repeat
from mkspy.types import BOOLEAN, Field

type Known = dict[str, cst.BaseExpression]
type Written = tuple[list[cst.BaseStatement], Known]
"""Statements, and how to read the outputs that they give."""

_BODY = 2 * INDENT


@dataclass(frozen=True)
class Unit:
    """What a program calls with fields as keywords.

    Attributes:
        function: `self.answer`, or the name of a host function.
        label: What its result is called when it is kept whole.
        bare: Whether it returns its one output itself, as a host function does.
    """

    function: str
    label: str
    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]
    bare: bool = False

    def wanted(self, scope: Scope) -> list[str]:
        return [field.name for field in self.outputs if field.name in scope.wanted]

    def read(self, result: cst.BaseExpression, output: str) -> cst.BaseExpression:
        """Return how an output of `result` is read."""
        if self.bare:
            return result
        return attribute(awaited(result.expression) if isinstance(result, cst.Await) else result, output)


@dataclass(frozen=True)
class Flow:
    """Writes operations as statements.

    Attributes:
        units: What the operations that are called are called by, under their `id`.
        asynchronous: Whether calls are awaited.
        taken: Names of the module.
    """

    units: Mapping[int, Unit]
    annotations: Annotations
    asynchronous: bool
    taken: frozenset[str]

    def body(
        self, process: Operation, inputs: Sequence[Field], outputs: Sequence[Field]
    ) -> list[cst.BaseStatement]:
        """Return the statements of a method that returns a Prediction of `outputs`."""
        known: Known = {field.name: name(field.name) for field in inputs}
        wanted = {field.name for field in outputs}
        scope = Scope(Names(self.taken | known.keys()), known, frozenset(wanted), _BODY)
        *first, last = process.steps if isinstance(process, Chain) else [process]
        unit = self.units.get(id(last))
        if unit and not unit.bare and {field.name for field in unit.outputs} == wanted:
            statements, scope = self._steps(first, scope.wanting(field.name for field in last.inputs))
            return [*statements, returned(self._call(unit, scope), block=_BODY)]
        statements, known = self.write(process, scope)
        scope = scope.knowing(known)
        given = {field.name: scope.known[field.name] for field in outputs}
        prediction = cst.Call(dotted("dspy.Prediction"), keywords(given))
        return [*statements, returned(prediction, block=_BODY)]

    def write(self, operation: Operation, scope: Scope) -> Written:
        """Return the statements of an operation."""
        if unit := self.units.get(id(operation)):
            return self._unit(unit, scope)
        match operation:
            case Chain():
                statements, after = self._steps(operation.steps, scope)
                return statements, {key: after.known[key] for key in scope.wanted if key in after.known}
            case Map():
                return self._map(operation, scope)
            case Filter():
                return self._filter(operation, scope)
            case Reduce():
                return self._reduce(operation, scope)
            case Branch():
                return self._branch(operation, scope)
            case Parallel():
                return self._parallel(operation, scope)
            case Repeat():
                return self._repeat(operation, scope)
            case _:
                raise TypeError(f"{operation!r} has no unit")

    # --- one call ---------------------------------------------------------------------------------------

    def _call(self, unit: Unit, scope: Scope, carried: Known | None = None) -> cst.BaseExpression:
        known = {**scope.known, **(carried or {})}
        arguments = keywords({field.name: known[field.name] for field in unit.inputs})
        if not self.asynchronous:
            return cst.Call(dotted(unit.function), arguments)
        return cst.Await(self._started(unit, arguments))

    @staticmethod
    def _started(unit: Unit, arguments: Sequence[cst.Arg]) -> cst.Call:
        """Return what is to be awaited."""
        function = dotted(unit.function)
        if unit.bare:
            return cst.Call(dotted("asyncio.to_thread"), [cst.Arg(function), *arguments])
        return cst.Call(attribute(function, "acall"), arguments)

    def _unit(self, unit: Unit, scope: Scope) -> Written:
        wanted, result = unit.wanted(scope), self._call(unit, scope)
        if not wanted:
            return [called(result, block=scope.block)], {}
        if len(wanted) == 1:
            target = scope.target(wanted[0])
            value = unit.read(result, wanted[0])
            statement = assigned(name(target), value, block=scope.block)
            if unit.bare or fits(statement, block=scope.block):
                return [statement], {wanted[0]: name(target)}
            scope = replace(scope, targets={wanted[0]: target} if wanted[0] in scope.targets else {})
        variable = name(scope.names.new(unit.label))
        statements, known = _put(scope, {output: unit.read(variable, output) for output in wanted})
        return [assigned(variable, result, block=scope.block), *statements], known

    # --- one after another --------------------------------------------------------------------------------

    def _steps(self, steps: Sequence[Operation], scope: Scope) -> tuple[list[cst.BaseStatement], Scope]:
        needed, wants = scope.wanted, list[frozenset[str]]()
        for step in reversed(steps):
            wants.insert(0, needed & {field.name for field in step.outputs})
            needed |= {field.name for field in step.inputs}
        statements: list[cst.BaseStatement] = []
        for step, wanted in zip(steps, wants, strict=True):
            written, known = self.write(step, scope.wanting(wanted))
            statements += written
            scope = scope.knowing(known)
        return statements, scope

    # --- over a list --------------------------------------------------------------------------------------

    def _map(self, operation: Map, scope: Scope) -> Written:
        item, items = operation.each
        kept = {out: name(scope.target(into)) for out, into in operation.into if into in scope.wanted}
        known: Known = {into: kept[out] for out, into in operation.into if out in kept}
        unit = self.units.get(id(operation.body))
        if unit and len(kept) == 1:
            each = name(scope.names.free(item))
            ((out, target),) = kept.items()
            element = unit.read(self._call(unit, scope, {item: each}), out)
            if _has_room(element, scope):
                value = comprehension(element, each, scope.known[items])
                return [assigned(target, value, block=scope.block)], known
        each = name(scope.names.new(item))
        inner = scope.inside({item: each}, kept)
        body, given = self.write(operation.body, inner)
        body += [_append(target, given[out], inner.block) for out, target in kept.items()]
        starts = [assigned(target, sequence([]), block=scope.block) for target in kept.values()]
        return [*starts, cst.For(each, scope.known[items], block(body))], known

    def _filter(self, operation: Filter, scope: Scope) -> Written:
        item, items = operation.each
        wanted = operation.into in scope.wanted
        unit = self.units.get(id(operation.body))
        target = name(scope.target(operation.into) if wanted else operation.into)
        known: Known = {operation.into: target}
        if unit and wanted:
            each = name(scope.names.free(item))
            condition = unit.read(self._call(unit, scope, {item: each}), operation.keep)
            if _has_room(condition, scope, before="if "):
                value = comprehension(each, each, scope.known[items], condition)
                return [assigned(target, value, block=scope.block)], known
        each = name(scope.names.new(item))
        inner = scope.inside({item: each}, [operation.keep] if wanted else [])
        body, given = self.write(operation.body, inner)
        if not wanted:
            return [cst.For(each, scope.known[items], block(body))], {}
        append = _append(target, each, inner.block + INDENT)
        loop = cst.For(
            each, scope.known[items], block([*body, cst.If(given[operation.keep], block([append]))])
        )
        return [assigned(target, sequence([]), block=scope.block), loop], known

    def _reduce(self, operation: Reduce, scope: Scope) -> Written:
        item, items = operation.each
        out, accumulator = operation.carry
        target, each = name(scope.target(operation.into)), name(scope.names.new(item))
        inner = replace(scope.inside({item: each, accumulator: target}, [out]), targets={out: target.value})
        value = self.annotations.value(operation.start, operation.outputs[0].type)
        body, _ = self.write(operation.body, inner)
        loop = cst.For(each, scope.known[items], block(body))
        return [assigned(target, value, block=scope.block), loop], {operation.into: target}

    # --- one of several -----------------------------------------------------------------------------------

    def _branch(self, operation: Branch, scope: Scope) -> Written:
        outputs = [field.name for field in operation.outputs if field.name in scope.wanted]
        scope = replace(scope, targets={output: scope.target(output) for output in outputs})
        known: Known = {output: name(target) for output, target in scope.targets.items()}
        subject = scope.known[operation.on.name]
        if (two := _two_ways(operation)) is not None:
            return self._either(subject, two, scope), known
        *cases, (_, last) = [
            *operation.cases,
            *([(None, operation.otherwise)] if operation.otherwise else []),
        ]
        inner = scope.deeper(2)
        written = [
            cst.MatchCase(_pattern(value, scope.block + INDENT), block(self.write(case, inner)[0]))
            for value, case in cases
        ]
        # The last one takes what is left: of a closed type that is its own value.
        written.append(cst.MatchCase(cst.MatchAs(), block(self.write(last, inner)[0])))
        return [cst.Match(subject, written)], known

    def _either(
        self, subject: cst.BaseExpression, two: tuple[Operation, Operation], scope: Scope
    ) -> list[cst.BaseStatement]:
        """Write `x = a if subject else b` when that is all and has room, else `if` and `else`."""
        units = [self.units.get(id(each)) for each in two]
        if len(scope.targets) == 1:
            ((output, target),) = scope.targets.items()
            values = [unit.read(self._call(unit, scope), output) for unit in units if unit]
            if len(values) == 2:
                chosen = cst.IfExp(subject, body=values[0], orelse=values[1])
                statement = assigned(name(target), chosen, block=scope.block)
                if fits(statement, block=scope.block):
                    return [statement]
        yes, no = (block(self.write(each, scope.deeper())[0]) for each in two)
        return [cst.If(subject, yes, orelse=cst.Else(no))]

    # --- side by side -------------------------------------------------------------------------------------

    def _parallel(self, operation: Parallel, scope: Scope) -> Written:
        units = [self.units[id(branch)] for branch in operation.branches]
        results = [name(self._result(unit, scope)) for unit in units]
        write = self._gathered if self.asynchronous else self._threaded
        statements = write(units, results, scope)
        values = {
            output: unit.read(result, output)
            for unit, result in zip(units, results, strict=True)
            for output in unit.wanted(scope)
        }
        put, known = _put(scope, values)
        return [*statements, *put], known

    @staticmethod
    def _result(unit: Unit, scope: Scope) -> str:
        """Return the variable of a branch's result; one that nobody reads begins with an underscore."""
        wanted = unit.wanted(scope)
        if not wanted:
            return scope.names.new(f"_{unit.label}")
        return scope.target(wanted[0]) if unit.bare else scope.names.new(unit.label)

    def _threaded(
        self, units: Sequence[Unit], results: Sequence[cst.Name], scope: Scope
    ) -> list[cst.BaseStatement]:
        """Return `a, b = parallel([(self.a, {...}), (self.b, {...})])`. The first error ends it."""
        options = {"num_threads": len(units), "max_errors": 1, "disable_progress_bar": True}
        runner = name(scope.names.new("parallel"))
        made = call(dotted("dspy.Parallel"), **{key: scalar(value) for key, value in options.items()})
        pairs = [
            cst.Tuple([cst.Element(dotted(unit.function)), cst.Element(_inputs(unit, scope))])
            for unit in units
        ]
        room = layout.Room(scope.block, scope.block)
        args = layout.listed([cst.Arg(layout.opened(sequence(pairs), room.inside))], room)
        value = cst.Call(runner, args, whitespace_before_args=room.inside.here)
        return [assigned(runner, made, block=scope.block), _unpack(results, value)]

    def _gathered(
        self, units: Sequence[Unit], results: Sequence[cst.Name], scope: Scope
    ) -> list[cst.BaseStatement]:
        """Return `a, b = await asyncio.gather(...)`."""
        calls = [
            self._started(unit, keywords({field.name: scope.known[field.name] for field in unit.inputs}))
            for unit in units
        ]
        room = layout.Room(scope.block, scope.block)
        return [_unpack(results, cst.Await(layout.opened(call(dotted("asyncio.gather"), *calls), room)))]

    # --- again and again ----------------------------------------------------------------------------------

    def _repeat(self, operation: Repeat, scope: Scope) -> Written:
        """Write the first round, and then a loop of those that may follow it."""
        unit = self.units[id(operation.body)]
        result = name(scope.names.new(unit.label))
        statements: list[cst.BaseStatement] = [assigned(result, self._call(unit, scope), block=scope.block)]
        if operation.times > 1:
            inner = scope.deeper()
            carried = {into: unit.read(result, out) for out, into in operation.carry}
            stop = unit.read(result, operation.until) if operation.until else None
            body = [
                *([cst.If(stop, block([layout.line(cst.Break())]))] if stop else []),
                assigned(result, self._call(unit, inner, carried), block=inner.block),
            ]
            statements.append(
                cst.For(name("_"), call(name("range"), scalar(operation.times - 1)), block(body))
            )
        put, known = _put(scope, {output: unit.read(result, output) for output in unit.wanted(scope)})
        return [*statements, *put], known


def _put(scope: Scope, values: Known) -> Written:
    """Assign to variables what must be in one; the rest is read where it is."""
    kept = {output: scope.targets[output] for output in values if output in scope.targets}
    statements: list[cst.BaseStatement] = [
        assigned(name(target), values[output], block=scope.block)
        for output, target in kept.items()
        if code(values[output]) != target
    ]
    return statements, {**values, **{output: name(target) for output, target in kept.items()}}


def _inputs(unit: Unit, scope: Scope) -> cst.Dict:
    return cst.Dict([cst.DictElement(literal(field.name), scope.known[field.name]) for field in unit.inputs])


def _append(target: cst.Name, value: cst.BaseExpression, column: int) -> cst.SimpleStatementLine:
    return called(call(attribute(target, "append"), value), block=column)


def _has_room(element: cst.BaseExpression, scope: Scope, *, before: str = "") -> bool:
    """Tell whether an element of a comprehension fits on a line of its own."""
    return scope.block + INDENT + columns(before + code(element)) <= WIDTH


def _unpack(variables: Sequence[cst.Name], value: cst.BaseExpression) -> cst.SimpleStatementLine:
    """Return `a, b = value`."""
    target = cst.Tuple(list(map(cst.Element, variables)), lpar=[], rpar=[])
    return layout.line(cst.Assign([cst.AssignTarget(target)], value))


def _pattern(value: object, column: int) -> cst.MatchPattern:
    written = scalar(value)
    if isinstance(written, cst.Name):
        return cst.MatchSingleton(written)
    return cst.MatchValue(layout.fit(written, layout.Room(column, column, after=1).behind("case ")))


def _two_ways(operation: Branch) -> tuple[Operation, Operation] | None:
    """Return what to do when a boolean holds and when not, if it is about a boolean."""
    cases: dict[object, Operation | None] = {True: operation.otherwise, False: operation.otherwise}
    if operation.on.type != BOOLEAN:
        return None
    cases.update(operation.cases)
    yes, no = cases[True], cases[False]
    return (yes, no) if yes and no else None
