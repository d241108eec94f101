"""Slips: names that are nearly another one."""

from collections.abc import Iterable
from difflib import get_close_matches

_COMPARED = 100
"""Options that a name is compared with at most: it is only for a hint."""


def nearest(name: str, options: Iterable[str]) -> str:
    """Return the option that `name` is most likely a slip of, "" when none is near."""
    near = sorted(option for option in options if option != name and _is_like(name, option))
    return next(iter(get_close_matches(name[:80], near[:_COMPARED], 1, 0.82)), "")


def _is_like(name: str, option: str) -> bool:
    """Whether it pays to compare two names, which takes long: they are as long, and of the same letters."""
    return abs(len(name) - len(option)) < 4 and len({*name} - {*option}) < 3


def misspelt(names: Iterable[str], meant: str) -> str:
    """Return the name that is a slip of `meant`, "" when there is none or `meant` itself is there."""
    given = list(names)
    slips = (one for one in given if _is_slip(one.strip("_").lower(), meant.strip("_")))
    return "" if meant in given else next(slips, "")


def _is_slip(one: str, other: str) -> bool:
    """Whether two words are one stroke apart: a letter left out, added, changed, or swapped with the next."""
    if len(one) > len(other):
        one, other = other, one
    at = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(one))
    left, right = one[at:], other[at:]
    return left in (right, right[1:]) or left[1:] == right[1:] or left[1:2] + left[:1] + left[2:] == right
