"""`dspy.config.yaml`: which model runs which program, and how the server behaves.

The file never holds a key: a model names the environment variable its key is in. What is wrong with the file
is told all at once, each with the file, line, column and key it is about.
"""

import os
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple, cast

import dotenv
import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    StrictBool,
    StrictInt,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from dspy_cli.errors import BadConfig, BadSetting, MissingKey

if TYPE_CHECKING:
    import dspy
    import streamll

FILE = "dspy.config.yaml"
LOCAL = "local"
"""The model that runs in this process: `streamll.local.lm()`."""

type Count = Annotated[int, Field(strict=True, ge=1)]
type Seconds = Annotated[float, Field(strict=True, gt=0)]
type Keys = tuple[str | int, ...]
type Problem = tuple[Keys, str]
"""What is wrong, and with the value of which keys."""

_MAX_SHOWN = 80
_MAX_DEPTH = 6  # nothing of ours is deeper; and an alias may stand inside of what it stands for


@dataclass(frozen=True)
class ServerSettings:
    """How the server listens and what it allows. Sizes are in bytes, times in seconds."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    host: str = "127.0.0.1"
    port: Annotated[int, Field(strict=True, ge=0, le=65535)] = 8000
    events: str = "sqlite:///.dspy-cli/events.db"
    concurrency: Count = 8
    """Runs of one program at a time."""
    queue: Annotated[int, Field(strict=True, ge=0)] = 32
    """Runs of one program that may wait; more are answered 429."""
    timeout_seconds: Seconds | None = 300.0
    max_request_bytes: Count = 10_000_000
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    shutdown_seconds: Seconds = 30.0
    lease_seconds: Seconds = 15.0
    heartbeat_seconds: Seconds = 15.0
    debug: StrictBool = False


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _without_empty_keys(cls, data: object) -> object:
        """`registry:` with nothing after it is what a commented-out section leaves."""
        if not isinstance(data, dict):
            return data
        return {key: value for key, value in cast("dict[object, object]", data).items() if value is not None}


class Model(_Section):
    """One entry of `models.registry`. What is not named here goes to `dspy.LM` as it is."""

    model_config = ConfigDict(frozen=True, extra="allow")

    model: Annotated[str, Field(min_length=1)]
    env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    """Name of the environment variable that holds the key."""
    api_base: str | None = None
    max_tokens: Count | None = None
    temperature: Annotated[float, Field(strict=True, ge=0)] | None = None
    model_type: Literal["chat", "text", "responses"] | None = None
    num_retries: Annotated[StrictInt, Field(ge=0)] | None = None
    cache: StrictBool | None = None

    def options(self) -> dict[str, Any]:
        """Return what was set, as keyword arguments of `dspy.LM`."""
        return self.model_dump(exclude={"model", "env"}, exclude_none=True)


class Models(_Section):
    """The models there are, by alias, and the one a program has unless `program_models` says otherwise."""

    default: str | None = None
    registry: dict[str, Model] = Field(default_factory=dict[str, Model])


class Config(_Section):
    """What `dspy.config.yaml` says; without a file, the defaults."""

    app_id: str = ""
    description: str = ""
    models: Models = Models()
    program_models: dict[str, str] = Field(default_factory=dict[str, str])
    server: ServerSettings = ServerSettings()

    _source: "_Source | None" = PrivateAttr(default=None)

    @property
    def path(self) -> Path | None:
        """The file this was read from."""
        return self._source.path if self._source else None

    def alias(self, program: str) -> str | None:
        """Return which model `program` runs on; None leaves it to `dspy.settings`."""
        return self.program_models.get(program, self.models.default)

    def where(self, *keys: str | int) -> str:
        """Return where `keys` stand, as `dspy.config.yaml:7:5`."""
        return self._source.where(keys) if self._source else FILE


def load(path: Path) -> Config:
    """Return what the file at `path` says.

    Raises:
        BadConfig: It cannot be read, is not YAML, or says what makes no sense; each line of the message is
            one problem with its place.
    """
    source = _Source.read(path)
    try:
        config = Config.model_validate({} if source.data is None else source.data)
    except ValidationError as error:
        problems = [_problem(detail) for detail in error.errors()]
        raise source.refused([*source.secrets(), *problems]) from None
    if problems := [*source.secrets(), *source.typos(), *_unknown_aliases(config)]:
        raise source.refused(problems)
    config._source = source  # pyright: ignore[reportPrivateUsage]
    return config


def make_lm(config: Config, alias: str) -> "dspy.BaseLM":
    """Return the language model `alias` stands for; `model: local` runs in this process.

    Raises:
        BadConfig: There is no such alias, or `dspy.LM` does not take its options.
        MissingKey: The environment variable it names is not set, or the extra `dspy-cli[local]` is missing.
    """
    import dspy

    keys = ("models", "registry", alias)
    if (entry := config.models.registry.get(alias)) is None:
        raise BadConfig(f"{config.where(*keys)}: {_unknown_alias(config, alias)}")
    if entry.model != LOCAL and (problem := missing_key(config, alias)):
        raise MissingKey(problem)
    try:
        if entry.model == LOCAL:
            return _local(entry.options())
        key = {"api_key": os.environ[entry.env]} if entry.env else {}
        return cast("Callable[..., dspy.BaseLM]", dspy.LM)(entry.model, **entry.options(), **key)
    except MissingKey:
        raise
    except (ValueError, TypeError) as error:
        raise BadConfig(f"{config.where(*keys)}: {_dotted(keys)}: dspy.LM refused it: {error}") from error


def load_environment(root: Path) -> None:
    """Load the `.env` of the project at `root`, if it has one; what the environment has already stays.

    Raises:
        BadConfig: It cannot be read.
    """
    try:
        dotenv.load_dotenv(root / ".env", override=False)
    except (OSError, ValueError) as error:
        raise BadConfig(f".env: cannot be read: {error}; it is to be text in UTF-8") from error


def event_log(settings: ServerSettings) -> "streamll.EventLog":
    """Return the log in which the server keeps runs; nothing is opened yet.

    Raises:
        BadSetting: The URL names no place for events, or what its backend needs is not installed.
    """
    import streamll
    from streamll.errors import MissingExtra

    try:
        return streamll.EventLog(settings.events)
    except (ValueError, MissingExtra) as error:
        raise BadSetting(f"`server.events`, or --events: {error}") from error


def missing_key(config: Config, alias: str) -> str | None:
    """Return what is wrong when the environment variable of `alias` is not set."""
    entry = config.models.registry.get(alias)
    if entry is None or entry.env is None or os.environ.get(entry.env):
        return None
    keys = ("models", "registry", alias, "env")
    return f"{config.where(*keys)}: {_dotted(keys)}: {entry.env} is not set; put it in .env, or export it"


def _local(options: dict[str, Any]) -> "dspy.BaseLM":
    from streamll import local

    try:
        return local.lm(**options)
    except (local.LocalRuntimeMissing, local.WeightsMissing) as error:
        raise MissingKey(f"the local model cannot run: {error}") from error


# --- The file, and where in it things stand -----------------------------------------------------------------


class _Source(NamedTuple):
    """A YAML document as plain data, with the place of every key in it."""

    path: Path
    data: object
    marks: Mapping[Keys, yaml.Mark]

    @classmethod
    def read(cls, path: Path) -> "_Source":
        try:
            loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
            node = loader.get_single_node()
            marks = dict(_marks(node, ()) if node else ())
            return cls(path, loader.construct_document(node) if node else None, marks)
        except _Duplicate as error:
            raise BadConfig(f"{_place(path, error.mark)}: {error}") from None
        except yaml.MarkedYAMLError as error:
            what = " ".join(filter(None, (error.context, error.problem)))
            raise BadConfig(f"{_place(path, error.problem_mark)}: not YAML: {what}") from None
        except RecursionError:
            raise BadConfig(f"{path.name}: cannot be read: its values are nested too deeply") from None
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise BadConfig(f"{path.name}: cannot be read: {error}") from None

    def where(self, keys: Keys) -> str:
        """Return the place of `keys`, or of the nearest of their parents the file has."""
        return _place(self.path, self._mark(keys))

    def _mark(self, keys: Keys) -> yaml.Mark | None:
        return next((self.marks[keys[:n]] for n in range(len(keys), 0, -1) if keys[:n] in self.marks), None)

    def _position(self, keys: Keys) -> tuple[int, int]:
        mark = self._mark(keys)
        return (mark.line, mark.column) if mark else (-1, -1)

    def refused(self, problems: Sequence[Problem]) -> BadConfig:
        """Return the error that tells `problems` in the order in which they stand in the file."""
        lines = {
            f"{self.where(keys)}: {': '.join(filter(None, (_dotted(keys), what)))}": keys
            for keys, what in problems
        }
        return BadConfig(*sorted(lines, key=lambda line: self._position(lines[line])))

    def secrets(self) -> Generator[Problem]:
        """Yield each key that must not be in a file."""
        for keys in self.marks:
            if keys[:2] == ("models", "registry") and str(keys[-1]).lower().replace("-", "_") in _SECRET:
                yield keys, "keys come from the environment: write env: OPENAI_API_KEY"

    def typos(self) -> Generator[Problem]:
        """Yield each option of a model that looks like a misspelt known one; others are `dspy.LM`'s."""
        known = tuple(Model.model_fields)
        for keys in self.marks:
            option = str(keys[-1]) if keys[:2] == ("models", "registry") and len(keys) == 4 else known[0]
            close = get_close_matches(option, known, 1, cutoff=0.8)
            if option not in known and close:
                yield keys, f"unknown key; did you mean {close[0]!r}?"


class _Duplicate(Exception):
    def __init__(self, message: str, mark: yaml.Mark) -> None:
        super().__init__(message)
        self.mark = mark


def _marks(node: yaml.Node, keys: Keys) -> Generator[tuple[Keys, yaml.Mark]]:
    """Yield where each key begins.

    Raises:
        _Duplicate: A mapping has a key twice, of which YAML would silently take the last.
    """
    if len(keys) > _MAX_DEPTH:
        return
    seen = dict[str, yaml.Mark]()
    for name, mark, child in _children(node):
        if isinstance(name, str) and (first := seen.setdefault(name, mark)) is not mark:
            raise _Duplicate(f"{name!r} is given twice, first in line {first.line + 1}", mark)
        yield (*keys, name), mark
        yield from _marks(child, (*keys, name))


def _children(node: yaml.Node) -> Generator[tuple[str | int, yaml.Mark, yaml.Node]]:
    if isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(cast("list[yaml.Node]", node.value)):
            yield index, child.start_mark, child
    elif isinstance(node, yaml.MappingNode):
        for key, child in cast("list[tuple[yaml.Node, yaml.Node]]", node.value):
            yield str(key.value), key.start_mark, child


def _place(path: Path, mark: yaml.Mark | None) -> str:
    return f"{path.name}:{mark.line + 1}:{mark.column + 1}" if mark else path.name


# --- What is said about it ----------------------------------------------------------------------------------

_SECRET = frozenset({"api_key", "apikey", "key", "token", "secret", "password", "api_token", "access_token"})
_UNKNOWN_KEY = frozenset({"extra_forbidden", "unexpected_keyword_argument"})
_EXPECTED: Mapping[str, Callable[[dict[str, Any]], str]] = {
    "int_type": lambda _: "expected a whole number",
    "int_from_float": lambda _: "expected a whole number",
    "float_type": lambda _: "expected a number",
    "string_type": lambda _: "expected text (put it in quotes)",
    "string_too_short": lambda _: "expected text",
    "string_pattern_mismatch": lambda _: "expected the name of an environment variable, like OPENAI_API_KEY",
    "bool_type": lambda _: "expected true or false",
    "dict_type": lambda _: "expected a mapping",
    "model_type": lambda _: "expected a mapping",
    "model_attributes_type": lambda _: "expected a mapping",
    "dataclass_type": lambda _: "expected a mapping",
    "tuple_type": lambda _: "expected a list",
    "literal_error": lambda about: f"expected {about['expected']}",
    "greater_than": lambda about: f"expected more than {about['gt']:g}",
    "greater_than_equal": lambda about: f"expected {about['ge']:g} or more",
    "less_than_equal": lambda about: f"expected {about['le']:g} or less",
}


def _problem(detail: ErrorDetails) -> Problem:
    keys = detail["loc"]
    if detail["type"] in _UNKNOWN_KEY:
        return keys, _unknown_key(keys)
    if detail["type"] == "missing":
        return keys, "is missing"
    expected = _EXPECTED.get(detail["type"], lambda _: detail["msg"].lower())(detail.get("ctx", {}))
    is_secret = keys[-1:] == ("env",)  # where people paste the key itself
    return keys, expected if is_secret else f"{expected}, got {_shown(detail['input'])}"


_KNOWN: Mapping[Keys, Sequence[str]] = {
    (): tuple(Config.model_fields),
    ("models",): tuple(Models.model_fields),
    ("server",): tuple(field.name for field in fields(ServerSettings)),
}


def _unknown_key(keys: Keys) -> str:
    known = _KNOWN[keys[:-1]]
    close = get_close_matches(str(keys[-1]), known, 1)
    return f"unknown key; did you mean {close[0]!r}?" if close else f"unknown key; known: {', '.join(known)}"


def _unknown_aliases(config: Config) -> Generator[Problem]:
    named: dict[Keys, str] = {
        ("program_models", name): alias for name, alias in config.program_models.items()
    }
    if config.models.default is not None:
        named["models", "default"] = config.models.default
    for keys, alias in named.items():
        if alias not in config.models.registry:
            yield keys, _unknown_alias(config, alias)


def _unknown_alias(config: Config, alias: str) -> str:
    known = list(config.models.registry)
    close = get_close_matches(alias, known, 1)
    hint = f"did you mean {close[0]!r}?" if close else f"it has: {', '.join(known) or 'nothing'}"
    return f"no model {_shown(alias)} in models.registry; {hint}"


def _dotted(keys: Sequence[str | int]) -> str:
    return ".".join(map(str, keys))


def _shown(value: object) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 1]}…"
