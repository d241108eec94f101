"""Eight tasks to start from: read them, run them, change them."""

from importlib.resources import files

from mkspy.errors import BadSpec, Place, clip
from mkspy.spec import Task, load


def names() -> tuple[str, ...]:
    """Return the names of the specs, sorted."""
    found = (entry.name for entry in files(__name__).iterdir())
    return tuple(sorted(name.removesuffix(".toml") for name in found if name.endswith(".toml")))


def read(name: str) -> str:
    """Return the text of a spec, comments and all.

    Raises:
        BadSpec: There is none of that name.
    """
    if name not in names():
        raise BadSpec(Place("library"), f" has no spec {clip(name)}; there are {', '.join(names())}")
    return (files(__name__) / f"{name}.toml").read_text(encoding="utf-8")


def get(name: str) -> Task:
    """Return the task of a spec."""
    return load(read(name), "toml")
