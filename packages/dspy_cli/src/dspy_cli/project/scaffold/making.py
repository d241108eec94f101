"""What `new` and `generate` do: check every word that was given, then write."""

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dspy_cli.errors import BadSignature, DspyCliError
from dspy_cli.project import names
from dspy_cli.project.scaffold.disk import create, find, write
from dspy_cli.project.scaffold.models import model as model_named
from dspy_cli.project.scaffold.strategies import strategy
from dspy_cli.project.scaffold.texts import (
    Files,
    Program,
    gateway_files,
    module_files,
    project_files,
    signature_files,
)
from dspy_cli.project.signature import Signature, parse

DEFAULT_SIGNATURE = "question -> answer"
_DEFAULT_DESCRIPTION = "Answer the question in one sentence."


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the flags said about a program."""

    signature: str | None = None
    strategy: str = "ChainOfThought"
    description: str = ""

    @property
    def note(self) -> str:
        """What who chose this strategy should know, "" if nothing."""
        return strategy(self.strategy).note

    def program(self, package: str, name: names.Program, signature: Signature | None = None) -> Program:
        usual = "" if signature or self.signature else _DEFAULT_DESCRIPTION
        return Program(
            package=package,
            name=name,
            signature=signature or parse(self.signature or DEFAULT_SIGNATURE),
            strategy=strategy(self.strategy),
            description=self.description or usual,
        )


def new_project(
    parent: Path, name: str, options: Options, *, program: str | None = None, model: str | None = None
) -> Sequence[Path]:
    """Write the project `name` into `parent`, and return its files.

    Raises:
        DspyCliError: A name, signature or model is refused, or the place is taken. Nothing was written.
    """
    project = names.project(name)
    written = options.program(project.package, names.program(program or name))
    files = project_files(project, written, model_named(model))
    create(parent / project.directory, files)
    return [parent / project.directory / path for path in files]


def new_scaffold(start: Path, name: str, options: Options, *, force: bool = False) -> Sequence[Path]:
    """Write a program's signature, module and test into the project that `start` is in."""
    return _new(start, name, force, lambda package, named: _scaffold_files(options.program(package, named)))


def new_signature(start: Path, name: str, options: Options, *, force: bool = False) -> Sequence[Path]:
    """Write a program's signature."""
    return _new(start, name, force, lambda package, named: signature_files(options.program(package, named)))


def new_module(start: Path, name: str, options: Options, *, force: bool = False) -> Sequence[Path]:
    """Write a program's module and test; without a signature given, on the one that is there."""
    root = find(start).root

    def files(package: str, named: names.Program) -> Files:
        there = root / f"src/{package}/signatures/{named.file}.py"
        if options.signature is None:
            return module_files(options.program(package, named, _read(there, named)))
        program = options.program(package, named)
        return module_files(program) if there.exists() and not force else _scaffold_files(program)

    return _new(start, name, force, files)


def new_gateway(start: Path, name: str, kind: str, *, force: bool = False) -> Sequence[Path]:
    """Write a gateway of one of `KINDS`."""
    return _new(start, name, force, lambda package, named: gateway_files(package, named, kind))


def how_to_attach(gateway: Path) -> str:
    """Return the two lines that let a program have the gateway in a file that `new_gateway` wrote."""
    name, package = names.program(gateway.stem), gateway.parents[1].name
    return (
        f"  from {package}.gateways.{name.file} import {name.class_name}Gateway\n\n"
        f"  class YourProgram(dspy.Module):\n      gateway = {name.class_name}Gateway"
    )


def _new(start: Path, name: str, force: bool, files: Callable[[str, names.Program], Files]) -> Sequence[Path]:
    workplace = find(start)
    return write(workplace.root, files(workplace.package, names.program(name)), force=force)


def _scaffold_files(program: Program) -> Mapping[str, str]:
    return {**signature_files(program), **module_files(program)}


# --- a signature that is there ------------------------------------------------------------------------------


def _read(path: Path, name: names.Program) -> Signature:
    """Return the signature that a file declares, by reading it; the file is not run."""
    if not path.is_file():
        raise DspyCliError(
            f'{name.class_name} has no signature yet: add -s "question -> answer", or make it first with '
            f"`dspy-cli generate signature {name.file}`."
        )
    try:
        return parse(_declared(ast.parse(path.read_text("utf-8"))))
    except (SyntaxError, ValueError) as error:
        problem = error.problem if isinstance(error, BadSignature) else error
        raise DspyCliError(
            f"{path.name} has a signature this command cannot read: {problem}. Say it with -s."
        ) from error


def _declared(tree: ast.Module) -> str:
    """Return `a: str -> b: str` of the first class in a file, from each `name: type = dspy.InputField()`."""
    sides: dict[str, list[str]] = {"InputField": [], "OutputField": []}
    first = next((node for node in tree.body if isinstance(node, ast.ClassDef)), None)
    for statement in first.body if first else ():
        match statement:
            case ast.AnnAssign(target=ast.Name(name), value=ast.Call(func=ast.Attribute(attr=kind))):
                sides.get(kind, []).append(f"{name}: {ast.unparse(statement.annotation)}")
            case _:
                pass
    return " -> ".join(map(", ".join, sides.values()))
