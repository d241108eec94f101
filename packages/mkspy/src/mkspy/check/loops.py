"""Resources, loops: each counts its turns or walks what is there, and few are around each other."""

from collections.abc import Iterator

import libcst as cst

from mkspy.check.fresh import is_fresh, items_of_each
from mkspy.check.graph import Code, name_of
from mkspy.check.growth import GROWS
from mkspy.check.kept import changed
from mkspy.check.known import words
from mkspy.check.origins import origins, sources
from mkspy.check.program import Program
from mkspy.check.report import Found, Rule
from mkspy.check.sizes import MAX_TURNS, Size
from mkspy.check.tree import Node, dotted, number
from mkspy.check.turns import Loads, Loop, around, conditions, together

_SHRINKS = words("pop popitem popleft remove clear")
_MAX_DEGREE = 2
_UP = (cst.LessThan, cst.LessThanEqual)
_DOWN = (cst.GreaterThan, cst.GreaterThanEqual)


# --- `while` ------------------------------------------------------------------------------------------------


def _endless(program: Program) -> Iterator[Found]:
    for node in program.tree.of(cst.While):
        if not any(_ends(program, node, one) for one in conditions(node.test)):
            message = "this `while` may never end: nothing in its test is counted up to a bound on every turn"
            yield Found(node, message, "write `for _ in range(10):`, with a `break` inside")


def _ends(program: Program, node: cst.While, condition: Node) -> bool:
    match condition:
        case cst.Name():
            return _shrinks(program, node, condition.value) or _counts_to_zero(program, node, condition)
        case cst.Call(func=cst.Name(value="len"), args=[cst.Arg(value=cst.Name(value=name))]):
            return _shrinks(program, node, name)
        case cst.Comparison(
            left=left, comparisons=[cst.ComparisonTarget(operator=operator, comparator=right)]
        ):
            up = isinstance(operator, _UP)
            if not (up or isinstance(operator, _DOWN)):
                return False
            return (
                _counts(program, node, left, right, up=up)
                or _counts(program, node, right, left, up=not up)
                or (
                    not up
                    and number(right) == 0
                    and isinstance(left, cst.Call)
                    and _ends(program, node, left)
                )
            )
        case _:
            return False


def _counts(program: Program, node: cst.While, name: Node, limit: Node, *, up: bool) -> bool:
    """Whether every turn brings a name nearer to a limit that stays where it is."""
    found = program.scope(name).find(name.value) if isinstance(name, cst.Name) else None
    if found is None or not isinstance(name, cst.Name):
        return False
    starts = [program.sizes.of(one.node) for one in sources(program, found[1]) if one.how != "grown"]
    end = program.sizes.of(limit)
    bounded = end is not None and end.is_small and all(one and one.is_small for one in starts)
    return bounded and _steps(program, node, name.value, up=up) and not _moves(program, node, limit)


def _counts_to_zero(program: Program, node: cst.While, name: cst.Name) -> bool:
    """Whether a name starts at a number that is written down, and only the body takes one away from it."""
    found = program.scope(name).find(name.value)
    given = list(sources(program, found[1])) if found else []
    starts = [number(one.node) for one in given if one.how == "whole"]
    steps = [program.tree.parents[one.node] for one in given if one.how == "grown"]
    inside = len(steps) == 1 and any(one is steps[0] for one in program.tree.within(node.body))
    fine = len(starts) + len(steps) == len(given) and all(one is not None and one >= 0 for one in starts)
    by_one = all(number(one.node) == 1 for one in given if one.how == "grown")
    return fine and inside and by_one and _counts(program, node, name, cst.Integer("0"), up=False)


def _steps(program: Program, node: cst.While, name: str, *, up: bool) -> bool:
    """Whether the body changes a name once, always, and in one direction."""
    stored = [
        one for one in program.tree.within(node.body) if isinstance(one, cst.Name) and one.value == name
    ]
    if sum(one in program.tree.stored for one in stored) != 1:
        return False
    for statement in node.body.body:
        for one in statement.body if isinstance(statement, cst.SimpleStatementLine) else ():
            if isinstance(one, cst.AugAssign) and dotted(one.target) == name:
                right = isinstance(one.operator, cst.AddAssign if up else cst.SubtractAssign)
                return right and _is_positive(program, one.value)
        if any(isinstance(one, cst.Continue) for one in program.tree.within(statement)):
            return False
    return False


def _is_positive(program: Program, node: Node) -> bool:
    if isinstance(node, cst.Float):
        return node.evaluated_value >= 0.01
    found = program.scope(node).find(node.value) if isinstance(node, cst.Name) else None
    if found:
        made = list(sources(program, found[1]))
        return bool(made) and all(one.how == "whole" and (number(one.node) or 0) > 0 for one in made)
    return (number(node) or 0) > 0


def _moves(program: Program, node: cst.While, limit: Node) -> bool:
    """Whether the body changes what a limit is made of."""
    names = {one.value for one in program.tree.within(limit) if isinstance(one, cst.Name)}
    return any(_grows(program, node.body, name) for name in names)


def _shrinks(program: Program, node: cst.While, name: str) -> bool:
    taken = (
        one
        for statement in node.body.body
        if isinstance(statement, cst.SimpleStatementLine)
        for one in program.tree.within(statement)
    )
    taken = (one for one in taken if isinstance(one, cst.Attribute) and one.attr.value in _SHRINKS)
    return any(dotted(one.value) == name for one in taken) and not _grows(program, node.body, name)


def _grows(program: Program, body: Node, name: str) -> bool:
    """Whether a name is bound again, or what it holds may get longer."""
    for one in program.tree.within(body):
        if isinstance(one, cst.Name) and one.value == name and one in program.tree.stored:
            return True
        if isinstance(one, cst.Attribute) and one.attr.value in GROWS and dotted(one.value) == name:
            return True
    return False


# --- `for` --------------------------------------------------------------------------------------------------


def _growing(program: Program) -> Iterator[Found]:
    """Yield where something is added to what is being walked, under whatever name."""
    grown = [(place, base) for place, base in changed(program) if _adds(program, place)]
    for loop in program.tree.of(cst.For, cst.CompFor) if grown else ():
        walked = _made(program, loop.iter)
        within = _held(program, loop)
        inside = {one for one in within for one in program.tree.within(one)}
        codes = {code for one in inside if isinstance(one, cst.Call) for code in _called(program, one)}
        for place, base in grown:
            if place in inside or program.graph.around(place) in codes:
                both = walked & {id(one.node) for one in origins(program, base) if not one.depth}
                name = dotted(base) or "the list"
                if both and isinstance(loop, cst.For) and is_fresh(program, loop, base):
                    if items_of_each(program, loop, name) > 1:
                        message = f"`{name}` gets several items for each one it is made of, on every turn"
                        yield Found(place, message, "put one item in, or what the model answers")
                elif both:
                    yield Found(place, f"`{name}` grows while it is walked", "build another list")


def _adds(program: Program, place: Node) -> bool:
    match place:
        case cst.Attribute(attr=cst.Name(value=name)):
            return name in GROWS
        case cst.Subscript(slice=[cst.SubscriptElement(slice=one)]):
            return isinstance(one, cst.Slice)
        case _:
            return isinstance(place, cst.AugAssign)


def _held(program: Program, loop: Loop) -> list[Node]:
    """Return what runs on every turn; a comprehension that is an argument of a call runs within that."""
    if isinstance(loop, cst.For):
        return [loop.body]
    around = program.tree.around(loop)
    whole = next(one for one in around if not isinstance(one, cst.CompFor))
    outer = list(program.tree.around(whole))[:2]
    return [whole, *(one for one in outer if isinstance(one, cst.Call))]


def _called(program: Program, node: cst.Call) -> set[Code]:
    known = {code for call, code in program.graph.calls.get(program.graph.around(node), ()) if call is node}
    return known.union(*(program.graph.reached(one) for one in known))


def _made(program: Program, walked: Node) -> set[int]:
    """Return where what a loop walks was made, through what hands on its items as they come."""
    found: set[int] = set()
    stack = [walked]
    while stack:
        for one in origins(program, stack.pop()):
            match one.node:
                case cst.Call(func=func, args=args) if dotted(func).rpartition(".")[2] in _LAZY:
                    stack += [arg.value for arg in args]
                case cst.GeneratorExp(for_in=loop):
                    stack.append(loop.iter)
                case node:
                    found |= set() if one.depth else {id(node)}
    return found


_LAZY = words("enumerate zip map filter iter reversed chain islice pairwise takewhile zip_longest batched")


def _turns(program: Program) -> Iterator[Found]:
    loads = Loads(program)
    for place, inner in loads.places():
        outside = around(program, place)
        total = together(program, place, outside, inner)
        if (
            _is_much(total)
            and not _is_much(outside)
            and not (isinstance(place, cst.Call) and _is_much(inner))
        ):
            if total.degree > _MAX_DEGREE:
                hint = "walk a part that is written down, such as `items[:20]`"
                yield Found(place, "three loops over data of any length are around each other", hint)
            else:
                hint = f"at most {MAX_TURNS:,} are written down in a candidate"
                yield Found(place, f"{total.factor:,} turns", hint)


def _chains(program: Program) -> Iterator[Found]:
    """Yield functions that call each other so often that, without any loop, they hardly end."""
    loads = Loads(program)
    much = [code for code in program.graph.callers if _is_much(loads.of(code))]
    for code in much:
        below = [called for _, called in program.graph.calls.get(code, ())]
        if below and not any(one in much for one in below) and loads.is_straight(code):
            message = f"`{name_of(code)}` and what it calls make {loads.of(code).factor:,} turns"
            yield Found(code, message, f"at most {MAX_TURNS:,}: call less often")


def _is_much(size: Size) -> bool:
    return size.degree > _MAX_DEGREE or size.factor > MAX_TURNS


def _loops(program: Program) -> Iterator[Found]:
    yield from _endless(program)
    yield from _growing(program)
    yield from _turns(program)
    yield from _chains(program)


RULES = (
    Rule(
        "endless-loop",
        "resources",
        "Every loop counts its turns, or walks what is there.",
        _loops,
        example="while True:\n    self.ask(question=question)",
    ),
)
