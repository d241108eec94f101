"""Resources: loops, numbers and calls that a run may not come back from."""

from collections.abc import Iterator, Sequence

import libcst as cst

from mkspy.check.amounts import RULES as AMOUNT_RULES
from mkspy.check.asks import Asks
from mkspy.check.graph import Code, name_of
from mkspy.check.known import KINDS
from mkspy.check.loops import RULES as LOOP_RULES
from mkspy.check.program import Program
from mkspy.check.report import Found, Rule
from mkspy.check.tree import Node, literal, number
from mkspy.check.values import Bound, Dspy, Predictor


def _recursion(program: Program) -> Iterator[Found]:
    graph = program.graph
    circles: list[set[Code]] = []
    for code in graph.edges:
        if any(code in circle for circle in circles) or code not in (reached := graph.reached(code)):
            continue
        circles.append({one for one in reached if code in graph.reached(one)})
        others = [f"`{name_of(one)}`" for one in circles[-1] if one is not code and name_of(one)]
        through = f", through {' and '.join(sorted(others)[:3])}" if others else ""
        said = f"`{name_of(code)}`" if name_of(code) else "a lambda"
        yield Found(code, f"{said} may call itself{through}", "write a `for` loop with a bound")


def _tries(program: Program) -> Iterator[Found]:
    for node, kind in program.predictors:
        yield from _limited(
            node, [(name, program.argument(node, name, _POSITIONS.get((kind, name), -1))) for name in _LIMITS]
        )
    for node, on in program.calls:
        if on == Dspy("Parallel"):
            yield from _limited(node, [("num_threads", program.argument(node, "num_threads", -1))])
        if isinstance(on, Predictor | Bound):
            options = _LIMITS.keys() - _inputs(on)
            yield from _limited(node, [(name, program.argument(node, name, -1)) for name in options])
        config = program.argument(node, "config", -1)
        for one in config.elements if isinstance(config, cst.Dict) else ():
            if isinstance(one, cst.DictElement):
                yield from _limited(node, [(literal(one.key) or "", one.value)])


def _inputs(on: Predictor | Bound) -> set[str]:
    """Return the inputs of a predictor that are nothing else to it."""
    value = on.value if isinstance(on, Bound) else on
    if not isinstance(value, Predictor) or value.signature.open:
        return set()
    return {*value.signature.names()[0]} - {*KINDS[value.kind].takes}


def _limited(node: Node, given: Sequence[tuple[str, Node | None]]) -> Iterator[Found]:
    for name, value in given:
        many = number(value)
        if value is not None and name in _LIMITS and (many is None or not 0 < many <= _LIMITS[name]):
            yield Found(
                node,
                f"`{name}` is no small number that is written down",
                f"write a number up to {_LIMITS[name]:,}",
            )


def _calls(program: Program) -> Iterator[Found]:
    one, asks = program.entry, Asks(program)
    methods = (one.method(name) for name in ("forward", "aforward")) if one else ()
    many = max((asks.of(method) for method in methods if method), default=0)
    if one and many > MAX_CALLS:
        hint = f"at most {MAX_CALLS} are for a candidate"
        yield Found(one.node, f"a run asks the model {many:,} times", hint)
    for code in program.graph.before if many else ():
        if asks.of(code):
            message = f"`{name_of(code)}` asks the model when the file is imported"
            yield Found(code, message, "ask in `forward`")


MAX_CALLS = 500
_LIMITS = {
    "max_iters": 50,
    "N": 50,
    "M": 50,
    "n": 50,
    "fail_count": 50,
    "max_tokens": 32_000,
    "num_threads": 64,
}
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
    *LOOP_RULES,
    *AMOUNT_RULES,
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
