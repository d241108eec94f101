"""Which values fit where: subtyping by structure, and what two types have in common."""

from mkspy.types.model import (
    BOOLEAN,
    INTEGER,
    JSON,
    NULL,
    NUMBER,
    TEXT,
    Field,
    List,
    Literal,
    Primitive,
    Record,
    Scalar,
    Tuple,
    Type,
    Union,
    parts,
    union,
)
from mkspy.types.notation import to_text

_SCALARS: dict[type, Primitive] = {str: TEXT, bool: BOOLEAN, int: INTEGER}
_JSON_ABLE = frozenset((TEXT, NUMBER, INTEGER, BOOLEAN, NULL, JSON))


def is_subtype(a: Type, b: Type) -> bool:
    """Return whether every value of `a` is one of `b`.

    A literal is its primitive, an integer is a number, T is T or nothing, lists and tuples follow their
    items, a record with more fields, or narrower ones, is a record with fewer, and all that JSON can say is
    json. The names of records make no difference.
    """
    if a == b:
        return True
    if isinstance(a, Union):
        return all(is_subtype(option, b) for option in a.options)
    if isinstance(a, Literal):
        return all(_is_value(value, b) for value in a.values)
    if isinstance(b, Union):
        return any(is_subtype(a, option) for option in b.options)
    return _fits(a, b)


def _fits(a: Primitive | List | Tuple | Record, b: Type) -> bool:
    match a, b:
        case _, Primitive("json"):
            return _is_json(a)
        case Primitive("integer"), Primitive("number"):
            return True
        case List(narrow), List(wide):
            return is_subtype(narrow, wide)
        case Tuple(narrow), Tuple(wide):
            return len(narrow) == len(wide) and all(map(is_subtype, narrow, wide))
        case Record(), Record():
            return all(_has(a, each.name, each.type) for each in b.fields)
        case _:
            return False


def _is_value(value: Scalar, type: Type) -> bool:
    match type:
        case Literal():
            return any(value == each and value.__class__ is each.__class__ for each in type.values)
        case Union(options):
            return any(_is_value(value, option) for option in options)
        case _:
            own = _SCALARS[value.__class__]
            return own == type or _fits(own, type)


def _is_json(type: Type) -> bool:
    if isinstance(type, Primitive):
        return type in _JSON_ABLE
    return all(map(_is_json, parts(type)))


def _has(record: Record, name: str, type: Type) -> bool:
    own = record.field(name)
    return own is not None and is_subtype(own.type, type)


def why_not(a: Type, b: Type) -> str:
    """Return in one sentence what keeps `a` from fitting where `b` is wanted, "" if nothing does."""
    if is_subtype(a, b):
        return ""
    said = f"{to_text(a)} does not fit {to_text(b)}"
    return f"{said}: {reason}" if (reason := _reason(a, b)) else said


def _reason(a: Type, b: Type) -> str:
    match a, b:
        case Literal(), Literal():
            extra = [value for value in a.values if not _is_value(value, b)]
            return f"{to_text(Literal(tuple(extra)))} is not among the values"
        case Union(options), _:
            wrong = next(option for option in options if not is_subtype(option, b))
            return f"it can be {to_text(wrong)}"
        case List(narrow), List(wide):
            return _reason(narrow, wide)
        case Tuple(narrow), Tuple(wide) if len(narrow) != len(wide):
            return f"it has {len(narrow)} items, not {len(wide)}"
        case Record(), Record():
            return _record_reason(a, b)
        case _:
            return ""


def _record_reason(a: Record, b: Record) -> str:
    wanted = next(each for each in b.fields if not _has(a, each.name, each.type))
    own = a.field(wanted.name)
    if own is None:
        return f"{a.name} has no field {wanted.name}"
    return f"{a.name}.{wanted.name} is {to_text(own.type)}, not {to_text(wanted.type)}"


def meet(a: Type, b: Type) -> Type | None:
    """Return the type of what fits both `a` and `b`, None if nothing does.

    Of two records one must be the other with more; a record that is both has no name.
    """
    if is_subtype(a, b):
        return a
    if is_subtype(b, a):
        return b
    if isinstance(a, Union | Literal) or isinstance(b, Union | Literal):
        common = [type for x in _single(a) for y in _single(b) if (type := _both(x, y)) is not None]
        return union(*common) if common else None
    return _both(a, b)


def _single(type: Type) -> list[Type]:
    options = type.options if isinstance(type, Union) else (type,)
    return [
        one
        for option in options
        for one in ([Literal((v,)) for v in option.values] if isinstance(option, Literal) else [option])
    ]


def _both(a: Type, b: Type) -> Type | None:
    if is_subtype(a, b) or is_subtype(b, a):
        return a if is_subtype(a, b) else b
    match a, b:
        case List(x), List(y):
            item = meet(x, y)
            return None if item is None else List(item)
        case Tuple(x), Tuple(y) if len(x) == len(y):
            items = [item for pair in zip(x, y, strict=True) if (item := meet(*pair)) is not None]
            return Tuple(tuple(items)) if len(items) == len(x) else None
        case _:
            return None


def shape(type: Type) -> Type:
    """Return `type` as subtyping sees it: two types that fit each other have one shape.

    Records lose their names, their texts, their defaults and the order of their fields.
    """
    match type:
        case List(item):
            return List(shape(item))
        case Tuple(items):
            return Tuple(tuple(map(shape, items)))
        case Union(options):
            return union(*map(shape, options))
        case Record():
            bare = [Field(each.name, shape(each.type)) for each in type.fields]
            return Record("Shape", tuple(sorted(bare, key=lambda each: each.name)))
        case Primitive() | Literal():
            return type
