"""Style: signatures say what a model is asked, and types say how its answer is read."""

from collections.abc import Iterator

import libcst as cst

from mkspy.check.program import Program
from mkspy.check.report import Found, Rule
from mkspy.check.tree import Node, literal
from mkspy.check.values import External, Instance, Predictor

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
    value = node
    if isinstance(node, cst.Name):
        found = program.tree.scopes[node].find(node.value)
        bindings = found[1] if found else []
        value = bindings[0].value if len(bindings) == 1 and bindings[0].kind == "assign" else None
    if not isinstance(value, cst.FormattedString | cst.BinaryOperation | cst.ConcatenatedString):
        return 0
    inside = list(program.tree.within(value))
    mixed = any(isinstance(one, cst.FormattedStringExpression | cst.Attribute | cst.Name) for one in inside)
    texts = [one.value for one in inside if isinstance(one, cst.FormattedStringText)]
    texts += [literal(one) or "" for one in inside if isinstance(one, cst.SimpleString)]
    return sum(map(len, texts)) if mixed else 0


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
