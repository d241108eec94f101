"""How often a run asks a model at most, where a loop over data of any length counts once."""

from typing import TYPE_CHECKING

import libcst as cst

from mkspy.check.facts import AFTER, ITERATIONS
from mkspy.check.graph import Code
from mkspy.check.known import KINDS, WRAPPERS, words
from mkspy.check.lists import METHODS
from mkspy.check.origins import origins
from mkspy.check.tree import Entangled, Node, dotted, number
from mkspy.check.turns import MAX_CHAIN, around
from mkspy.check.values import Bound, ClassObject, Dspy, Function, Instance, Predictor, Value

if TYPE_CHECKING:
    from mkspy.check.program import Program

_MOST = 10**9
_CALL_EACH = words("map filter sorted sort max min reduce to_thread")


class Asks:
    """Counts the calls of a model in each function; made once for each check."""

    def __init__(self, program: "Program") -> None:
        self._program = program
        self._known: dict[Code, int] = {}
        self._busy: set[Node] = set()
        self._wraps = any(kind in WRAPPERS for _, kind in program.predictors)
        self._calls: dict[Code | None, list[cst.Call]] = {}
        for node in program.tree.of(cst.Call):
            self._calls.setdefault(program.graph.around(node), []).append(node)

    def of(self, code: Code) -> int:
        """Return how often one call of a function asks a model."""
        if len(self._busy) > MAX_CHAIN:
            raise Entangled
        if code not in self._known:
            self._known[code] = 0
            calls = self._calls.get(code, ())
            total = sum(around(self._program, node).factor * self._cost_of(node) for node in calls)
            self._known[code] = min(total, _MOST)
        return self._known[code]

    def _cost_of(self, node: cst.Call) -> int:
        """Return the cost of a call, and of what it may call with each item of its arguments."""
        on = self._program.value(node.func)
        cost = 0
        if self._wraps or (on is None and self._may_ask(node)):
            cost = self._most(node.func)
        elif on is not None:
            cost = self._cost_of_value(on)
        if dotted(node.func).rpartition(".")[2] not in _CALL_EACH:
            return cost
        given = [arg.value for arg in node.args]
        turns = max((self._program.sizes.turns(one).factor for one in given), default=1)
        return cost + turns * sum(map(self._most, given))

    def _may_ask(self, node: cst.Call) -> bool:
        """Whether a call of what is not known could be of a predictor; most are of text and of builtins."""
        func = node.func
        if isinstance(func, cst.Attribute):
            return func.attr.value not in METHODS
        return not (isinstance(func, cst.Name) and self._program.scope(func).find(func.value) is None)

    def _most(self, node: Node | None) -> int:
        """Return the cost of whatever an expression may stand for."""
        return max((self._cost(one.node) for one in origins(self._program, node)), default=0) if node else 0

    def _cost(self, node: Node) -> int:
        """Return what it costs to call what an expression makes or names."""
        if node in self._busy:
            return 0
        self._busy.add(node)
        try:
            return self._cost_of_made(node)
        finally:
            self._busy.discard(node)

    def _cost_of_made(self, node: Node) -> int:
        if isinstance(node, cst.Call):
            match self._program.value(node.func):
                case Dspy(name) if name in WRAPPERS:
                    return self._cost_of_tries(node)
                case Dspy(name) if name in KINDS:
                    return ITERATIONS.get(name, 1) + AFTER.get(name, 0)
                case ClassObject(one):
                    return self._run(Instance(one))
                case _:
                    return 0
        if isinstance(node, cst.Attribute) and node.attr.value in ("acall", "forward", "aforward"):
            return self._most(node.value)
        return self._cost_of_value(self._program.value(node))

    def _cost_of_value(self, value: Value) -> int:
        match value:
            case Function(code):
                return self.of(code)
            case Predictor(kind) | Bound(_, Predictor(kind)):
                return ITERATIONS.get(kind, 1) + AFTER.get(kind, 0)
            case Instance() | Bound(_, Instance()) as on:
                return self._run(on if isinstance(on, Instance) else on.value)
            case _:
                return 0

    def _run(self, on: Instance | Predictor) -> int:
        names = ("forward", "aforward") if isinstance(on, Instance) else ()
        methods = (on.value.method(name) for name in names) if isinstance(on, Instance) else ()
        return max((self.of(one) for one in methods if one), default=0)

    def _cost_of_tries(self, node: cst.Call) -> int:
        argument = self._program.argument
        tries = number(argument(node, "N", 1)) or 1
        return tries * (self._most(argument(node, "module", 0)) + self._most(argument(node, "reward_fn", 2)))
