"""Style: signatures say what a model is asked, and types say how its answer is read."""

from collections.abc import Iterator

import libcst as cst

from mkspy.check.origins import origins
from mkspy.check.program import Program
from mkspy.check.report import Found, Rule
from mkspy.check.tree import Node, literal
from mkspy.check.values import External, Instance, Predictor, Result

_MANY = 60
_PARSERS = ("json.", "ast.", "yaml.", "tomllib.", "xml.")


def _prompts(program: Program) -> Iterator[Found]:
    for node, on in program.calls:
        if not isinstance(on, Predictor):
            continue
        for arg in node.args:
            if _written(program, arg.value) > _MANY and not arg.star:
                said = f"`{arg.keyword.value}`" if arg.keyword else "an input"
                hint = "move the words into the signature's instructions and give the values as inputs"
                yield Found(arg, f"{said} is a prompt written by hand", hint)


def _written(program: Program, node: Node) -> int:
    """Return how many characters of prose an expression mixes with values; text alone is a value."""
    if isinstance(node, cst.Attribute) and isinstance(program.value(node.value), Result):
        return 0
    return max((_mixed(program, one.node) for one in origins(program, node) if not one.depth), default=0)


def _mixed(program: Program, value: Node) -> int:
    joined = isinstance(value, cst.Call) and _last(value.func) in ("join", "replace")
    if not (joined or isinstance(value, cst.FormattedString | cst.BinaryOperation | cst.ConcatenatedString)):
        return 0
    pieces = list(_pieces(program, value))
    prose = sum(map(len, filter(None, pieces)))
    return prose if None in pieces else 0


def _pieces(program: Program, value: Node) -> Iterator[str | None]:
    """Yield the texts that an expression is made of, `None` for what is not written down."""
    for one in program.tree.within(value):
        match one:
            case cst.FormattedStringText(value=text):
                yield text
            case cst.SimpleString():
                yield literal(one)
            case cst.Name() | cst.Attribute():
                made = [literal(each.node) for each in origins(program, one) if not each.depth]
                yield made[0] if len(made) == 1 else None
            case _:
                pass


def _last(func: Node) -> str:
    return func.attr.value if isinstance(func, cst.Attribute) else ""


def _parsing(program: Program) -> Iterator[Found]:
    for node, on in program.calls:
        if (
            isinstance(on, External)
            and on.path.startswith(_PARSERS)
            and on.path.endswith(("load", "loads", "literal_eval"))
        ):
            yield Found(
                node, "an answer is parsed by hand", "give the output a type, such as list[str] or a record"
            )
    for node in program.tree.of(cst.Attribute):
        if node.attr.value in ("choices", "raw_decode"):
            yield Found(node, "a model's raw response is read", "read the outputs of a predictor")


def _raw(program: Program) -> Iterator[Found]:
    for node in program.tree.of(cst.Call):
        func = node.func
        if (
            isinstance(func, cst.Attribute)
            and func.attr.value == "lm"
            and isinstance(program.value(func.value), Instance)
        ):
            yield Found(
                node, "the language model is called directly", "write a signature and call a predictor"
            )


RULES = (
    Rule(
        "prompt",
        "style",
        "Inputs are values; the words are in the signature.",
        _prompts,
        example='self.ask(question=f"You are a helpful assistant. Answer briefly and kindly: {question}")',
    ),
    Rule(
        "parsing", "style", "Answers are read by their types.", _parsing, example="json.loads(result.answer)"
    ),
    Rule("raw-model", "style", "A model is asked through a predictor.", _raw, example="self.lm(question)"),
)
