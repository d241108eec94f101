"""Resources: loops, numbers and calls that a run may not come back from."""

from collections.abc import Iterator, Sequence

import libcst as cst

from mkspy.check.facts import calls_of, range_of
from mkspy.check.program import Program
from mkspy.check.report import Found, Rule
from mkspy.check.structure import entry
from mkspy.check.tree import Node, dotted, literal, number
from mkspy.check.values import Bound, ClassObject, Function, Instance, Predictor

MAX_TURNS = 10_000
MAX_POWER = 64
MAX_DIGITS = 15
MAX_WIDTH = 4
_GROWS = ("append", "extend", "insert", "add", "update", "setdefault")


def _loops(program: Program) -> Iterator[Found]:
    for node in program.tree.of(cst.While):
        body = list(program.tree.within(node.body))
        leaves = any(isinstance(one, cst.Break | cst.Return | cst.Raise) for one in body)
        tested = {one.value for one in program.tree.within(node.test) if isinstance(one, cst.Name)}
        changed = {one.value for one in body if isinstance(one, cst.Name) and one in program.tree.stored}
        shrunk = {
            dotted(one.value) for one in body if isinstance(one, cst.Attribute) and one.attr.value in _SHRINKS
        }
        if not (_counted(program, node, body) or (not leaves and tested & shrunk)):
            because = (
                "nothing it tests changes"
                if not (leaves or tested & (changed | shrunk))
                else "nothing counts its turns"
            )
            yield Found(
                node, f"this `while` may never end: {because}", "write `for _ in range(10):` with a `break`"
            )
    for node in program.tree.of(cst.For, cst.CompFor):
        yield from _turns(program, node)
    for node in program.tree.of(cst.For):
        name = dotted(node.iter)
        for one in program.tree.within(node.body):
            if (
                name
                and isinstance(one, cst.Attribute)
                and one.attr.value in _GROWS
                and dotted(one.value) == name
            ):
                yield Found(one, f"`{name}` grows while it is walked", "build another list")


_SHRINKS = ("pop", "popitem", "remove", "clear")


def _counted(program: Program, node: cst.While, body: list[Node]) -> bool:
    """Whether a name in the test is compared with something and counted up or down by the loop."""
    tested = {one.value for one in program.tree.within(node.test) if isinstance(one, cst.Name)}
    counted = {
        dotted(one.target)
        for one in body
        if isinstance(one, cst.AugAssign) and isinstance(one.operator, cst.AddAssign | cst.SubtractAssign)
    }
    compared = any(isinstance(one, cst.Comparison) for one in program.tree.within(node.test))
    either = any(isinstance(one, cst.Or) for one in _operators(program, node.test))
    return compared and not either and bool(tested & counted)


def _operators(program: Program, node: Node) -> Iterator[Node]:
    for one in program.tree.within(node):
        if isinstance(one, cst.BooleanOperation):
            yield one.operator


def _turns(program: Program, node: cst.For | cst.CompFor) -> Iterator[Found]:
    turns = range_of(node.iter) or 1
    if turns == 1:
        return
    for around in program.tree.around(node):
        if isinstance(around, cst.For | cst.CompFor):
            turns *= range_of(around.iter) or 1
    if turns > MAX_TURNS:
        yield Found(node, f"{turns:,} turns", f"at most {MAX_TURNS:,} are written down in a candidate")


def _numbers(program: Program) -> Iterator[Found]:
    for node in program.tree.of(cst.BinaryOperation, cst.AugAssign):
        if isinstance(node.operator, cst.Power | cst.PowerAssign):
            yield from _power(node)
        elif isinstance(node.operator, cst.LeftShift | cst.LeftShiftAssign):
            yield Found(node, "a number is shifted left", "multiply")
        elif isinstance(node.operator, cst.Multiply | cst.MultiplyAssign):
            yield from _repeated(program, node)
        elif (
            isinstance(node.operator, cst.Modulo)
            and isinstance(node, cst.BinaryOperation)
            and _is_text(node.left)
        ):
            yield Found(node, "text is formatted by `%`", "write an f-string")
    for node in program.tree.of(cst.Integer):
        if len(node.value) > MAX_DIGITS:
            yield Found(node, f"a number of {len(node.value)} digits", "compute with smaller ones")
    for node in program.tree.of(cst.Call):
        name, arguments = dotted(node.func), [number(arg.value) for arg in node.args]
        if name == "range" and any(one is not None and abs(one) > MAX_TURNS for one in arguments):
            yield Found(node, "a range with a large bound", f"at most {MAX_TURNS:,} turns")
    for node in program.tree.of(cst.FormattedStringExpression):
        yield from _width(program, node)


def _power(node: cst.BinaryOperation | cst.AugAssign) -> Iterator[Found]:
    exponent = number(node.right if isinstance(node, cst.BinaryOperation) else node.value)
    if (exponent is None or abs(exponent) > MAX_POWER) and not _is_root(node):
        yield Found(node, "a power whose exponent is large or not written down", f"at most {MAX_POWER}")


def _is_root(node: cst.BinaryOperation | cst.AugAssign) -> bool:
    return (
        isinstance(node, cst.BinaryOperation)
        and isinstance(node.right, cst.Float)
        and len(node.right.value) < 5
    )


def _is_text(node: Node) -> bool:
    return isinstance(node, cst.SimpleString | cst.ConcatenatedString | cst.FormattedString)


def _is_sequence(node: Node) -> bool:
    """Whether an expression is text or a list that is written down, or one of these repeated."""
    if isinstance(node, cst.BinaryOperation) and isinstance(node.operator, cst.Multiply):
        return _is_sequence(node.left) or _is_sequence(node.right)
    return _is_text(node) or isinstance(node, cst.List | cst.Tuple)


def _repeated(program: Program, node: cst.BinaryOperation | cst.AugAssign) -> Iterator[Found]:
    sides = (node.left, node.right) if isinstance(node, cst.BinaryOperation) else (node.target, node.value)
    for sequence, times in (sides, sides[::-1]):
        if _is_sequence(sequence):
            count = None if isinstance(sequence, cst.BinaryOperation) else number(times)
            measured = isinstance(times, cst.Call) and dotted(times.func) == "len"
            if not measured and (count is None or count > MAX_TURNS):
                yield Found(
                    node, "something is repeated a large or unknown number of times", f"at most {MAX_TURNS:,}"
                )
        elif (number(times) or 0) > 10**9:
            yield Found(node, "a factor above a thousand million", "compute with smaller numbers")


def _width(program: Program, node: cst.FormattedStringExpression) -> Iterator[Found]:
    for part in node.format_spec or ():
        digits = (
            "".join(one for one in part.value if one.isdigit())
            if isinstance(part, cst.FormattedStringText)
            else ""
        )
        if len(digits) > MAX_WIDTH or isinstance(part, cst.FormattedStringExpression):
            yield Found(node, "text is padded to a large or computed width", "write a small width")


def _recursion(program: Program) -> Iterator[Found]:
    edges: dict[cst.FunctionDef, set[cst.FunctionDef]] = {}
    for node, _ in program.calls:
        function = program.function_of(node)
        called = _callee(program, node)
        if function and called:
            edges.setdefault(function, set()).add(called)
    for function in edges:
        if _reaches(edges, function):
            name = function.name.value
            yield Found(function, f"`{name}` calls itself", "write a `for` loop with a bound")


def _callee(program: Program, node: cst.Call) -> cst.FunctionDef | None:
    match program.value(node.func):
        case ClassObject(one):
            return one.method("__init__")
        case Function(cst.FunctionDef() as function):
            return function
        case Instance(one):
            return one.method("forward") or one.method("aforward")
        case _:
            func = node.func
            on = program.value(func.value) if isinstance(func, cst.Attribute) else None
            if isinstance(func, cst.Attribute) and isinstance(on, Instance):
                return on.value.method("aforward" if func.attr.value == "acall" else func.attr.value)
            return None


def _reaches(edges: dict[cst.FunctionDef, set[cst.FunctionDef]], start: cst.FunctionDef) -> bool:
    seen: set[cst.FunctionDef] = set()
    stack = list(edges[start])
    while stack:
        one = stack.pop()
        if one is start:
            return True
        if one not in seen:
            seen.add(one)
            stack += edges.get(one, ())
    return False


def _tries(program: Program) -> Iterator[Found]:
    for node, kind in program.predictors:
        yield from _limited(
            node, [(name, program.argument(node, name, _POSITIONS.get((kind, name), -1))) for name in _LIMITS]
        )
    for node, on in program.calls:
        if isinstance(on, Predictor | Bound):
            yield from _limited(node, [(name, program.argument(node, name, -1)) for name in _LIMITS])
        config = program.argument(node, "config", -1)
        for one in config.elements if isinstance(config, cst.Dict) else ():
            if isinstance(one, cst.DictElement):
                yield from _limited(node, [(literal(one.key) or "", one.value)])


def _limited(node: Node, given: Sequence[tuple[str, Node | None]]) -> Iterator[Found]:
    for name, value in given:
        many = number(value)
        if value is not None and name in _LIMITS and (many is None or many > _LIMITS[name]):
            yield Found(
                node, f"`{name}` is large or not written down", f"write a number up to {_LIMITS[name]:,}"
            )


def _calls(program: Program) -> Iterator[Found]:
    one = entry(program)
    many = calls_of(program, one) if one else None
    if one and many is not None and many > MAX_CALLS:
        yield Found(
            one.node, f"a run asks the model {many:,} times", f"at most {MAX_CALLS} are for a candidate"
        )


MAX_CALLS = 500
_LIMITS = {"max_iters": 50, "N": 50, "M": 50, "n": 50, "fail_count": 50, "max_tokens": 32_000}
_POSITIONS = {
    ("ReAct", "max_iters"): 2,
    ("BestOfN", "N"): 1,
    ("Refine", "N"): 1,
    ("MultiChainComparison", "M"): 1,
    ("ProgramOfThought", "max_iters"): 1,
}


def _literals(program: Program) -> Iterator[Found]:
    for node in program.tree.of(cst.SimpleString):
        text = literal(node)
        if text is not None and len(text) > 16_000:
            yield Found(node, f"a text of {len(text):,} characters", "a program says what it does in fewer")


RULES = (
    Rule(
        "endless-loop",
        "resources",
        "Every loop counts its turns, or walks what is there.",
        _loops,
        example="while True:\n    self.ask(question=question)",
    ),
    Rule(
        "large-number",
        "resources",
        "Powers, ranges, repetitions and widths are small.",
        _numbers,
        example="9 ** 9 ** 9",
    ),
    Rule(
        "recursion",
        "resources",
        "No function calls itself.",
        _recursion,
        example="return self(question=question)",
    ),
    Rule(
        "many-tries",
        "resources",
        "Tries and turns of predictors are few and written down.",
        _tries,
        example='dspy.ReAct("question -> answer", tools=[search], max_iters=10**6)',
    ),
    Rule("many-calls", "resources", "A run asks the model at most 500 times.", _calls),
    Rule("long-text", "resources", "Texts are short.", _literals),
)
