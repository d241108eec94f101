"""Writing: a project whole or not at all, and parts of one that is there."""

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dspy_cli.errors import NotAProject, Occupied
from dspy_cli.project.scaffold.texts import Files

CONFIG = "dspy.config.yaml"


class Workplace(NamedTuple):
    """A project that is there: its directory, and the package with its programs."""

    root: Path
    package: str


def create(directory: Path, files: Files) -> None:
    """Write a project. It is made beside `directory` and renamed: nobody sees half of one.

    Raises:
        Occupied: There is something at `directory` other than an empty directory.
    """
    _must_be_free(directory)
    try:
        making = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    except OSError as error:
        raise Occupied(f"{str(directory.parent)!r:.200} cannot be written to: {error.strerror}.") from error
    try:
        _write_all(making, files)
        making.chmod(0o777 & ~_umask())
        if directory.exists():
            directory.rmdir()
        making.rename(directory)
    except BaseException:  # Ctrl+C too leaves no half of a project
        shutil.rmtree(making, ignore_errors=True)
        raise


def write(root: Path, files: Files, *, force: bool = False) -> Sequence[Path]:
    """Write `files` into a project, and return where.

    Raises:
        Occupied: One of them is there already, and `force` is false. Then none was written.
    """
    there = [path for path in files if os.path.lexists(root / path)]
    if there and not force:
        raise Occupied(f"{', '.join(there)} would be overwritten. Choose another name, or add --force.")
    _write_all(root, files)
    return [root / path for path in files]


def find(start: Path) -> Workplace:
    """Return the project that `start` is in.

    Raises:
        NotAProject: There is no `dspy.config.yaml` here or above, or no package beside it.
    """
    root = next((path for path in (start, *start.parents) if (path / CONFIG).is_file()), None)
    if root is None:
        raise NotAProject(
            f"{str(start)!r:.200} is not in a project: expected {CONFIG} there or above. Go to one, or make "
            "one: dspy-cli new my-app"
        )
    packages = [path.parent.name for path in sorted(root.glob("src/*/modules")) if path.is_dir()]
    if len(packages) != 1:
        found = ", ".join(packages) or "none"
        raise NotAProject(f"{str(root)!r:.200} has to have one package src/NAME/modules; found {found}.")
    return Workplace(root, packages[0])


def _must_be_free(directory: Path) -> None:
    is_free = not os.path.lexists(directory) or (
        directory.is_dir() and not directory.is_symlink() and not any(directory.iterdir())
    )
    if not is_free:
        what = "is a directory with something in it" if directory.is_dir() else "is there already"
        raise Occupied(f"{directory.name!r} {what}; nothing was written. Choose another name, or remove it.")


def _write_all(root: Path, files: Files) -> None:
    for path, text in files.items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        # Who may read a file of keys is said when it is made, not after.
        mode = 0o600 if target.name == ".env" else 0o666
        with open(
            os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="utf-8"
        ) as file:
            file.write(text)


def _umask() -> int:
    """Return what new files are denied; it can only be read by setting it."""
    umask = os.umask(0o077)
    os.umask(umask)
    return umask
