"""Causes: which findings only follow from another one, so that one mistake is told once."""

from collections.abc import Sequence

from mkspy.check.known import words
from mkspy.check.report import Found, Rule
from mkspy.check.tree import Node, Tree

_HERE = {
    "annotation": words("undefined-name"),
    "attribute": words("dspy-name misspelt-method result-field self-attribute undefined-name"),
    "class-base": words("construct dspy-name not-a-module undefined-name"),
    "class-body": words("class-base not-a-module"),
    "constructor": words("argument attribute class-base dspy-name method"),
    "dead-predictor": words("reserved-attribute"),
    "endless-loop": words("large-number"),
    "field-value": words("argument"),
    "kept": words("attribute store"),
    "large-number": words("recursion"),
    "method": words("misspelt-method"),
    "module-level": words("construct import no-program"),
    "name": words("argument class-body construct field-value"),
    "no-forward": words("class-base class-body"),
    "predictor-place": words("misspelt-method no-program not-a-module"),
    "returns-prediction": words(
        "attribute await call-inputs parallel predictor-place recursion result-field self-attribute signature"
        " store undefined-name"
    ),
    "signature-class": words("signature-use"),
    "signature-type": words("signature-import"),
    "signature-typed": words("signature-class"),
    "signature-use": words("construction default field-value store"),
    "signature-visible": words(
        "attribute construction dspy-name name rebinding signature-use undefined-name"
    ),
    "store": words("misspelt-method no-self not-a-module"),
    "undefined-name": words("no-self"),
}
"""By rule, what explains its finding when it is found in the same place, or around it, or inside."""

_ANYWHERE = {
    "construction": words("no-program"),
    "dead-predictor": words("raw-model recursion self-attribute undefined-name"),
    "many-calls": words("endless-loop large-number"),
    "no-dspy": words("undefined-name"),
    "no-module": words("class-base dspy-name not-a-module undefined-name"),
    "signature-use": words("dspy-name"),
    "signature-visible": words("signature-class"),
    "no-program": words("dspy-name no-module not-a-module undefined-name"),
}
"""By rule, what explains its finding wherever it is found."""

type Pairs = list[tuple[Rule, Found]]


def without_echoes(tree: Tree, found: Pairs) -> Pairs:
    """Return the findings that no other one explains."""
    places: dict[str, list[Node]] = {}
    for rule, one in found:
        places.setdefault(rule.name, []).append(one.node)
    kept = [pair for pair in found if not _is_echo(tree, pair, places)]
    return kept or found


def _is_echo(tree: Tree, pair: tuple[Rule, Found], places: dict[str, list[Node]]) -> bool:
    rule, one = pair
    if any(cause in places for cause in _ANYWHERE.get(rule.name, ())):
        return True
    nodes = [node for cause in _HERE.get(rule.name, ()) for node in places.get(cause, ())]
    return bool(nodes) and _touches(tree, one.node, nodes)


def _touches(tree: Tree, node: Node, others: Sequence[Node]) -> bool:
    above = {node, *tree.around(node)}
    return any(other in above or node in tree.around(other) for other in others)
