"""Find the programs of a project. The only file that imports a user's code.

Whatever that code does when it is imported, short of ending the process, becomes a `Failure` of its file and
hides no other file.
"""

import ast
import importlib
import importlib.util
import inspect
import sys
import sysconfig
import traceback
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from difflib import get_close_matches
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, Never, TypeIs, cast

import dspy

from dspy_cli.errors import BadConfig, BadProgram, DspyCliError, MissingKey, NothingToServe
from dspy_cli.project import config as configuration
from dspy_cli.project.config import Config
from dspy_cli.project.programs import Program, program

_MODULES = "src/*/modules"
_MAX_REASON = 300
_SINGLE = "_served_"
_MARK = "__dspy_cli__"  # a module of a discovered project; the next discovery may have another of its name


class Failure(NamedTuple):
    """Something that cannot be served, and why."""

    path: Path
    error: str
    """The reason in one line."""
    hint: str = ""
    line: int | None = None
    cause: BaseException | None = None
    """What the user's code raised, with its traceback."""


class Discovery(NamedTuple):
    """What there is to serve."""

    programs: Sequence[Program]
    failures: Sequence[Failure]
    config: Config
    root: Path
    package: str | None = None
    files: Sequence[Path] = ()
    """The files that were looked into."""


class _Source(NamedTuple):
    """A file with programs, and how it is imported."""

    path: Path
    module: str
    folder: Path
    """What must be on `sys.path`."""


class _Found(NamedTuple):
    """A module that could be served, not made into a program yet."""

    name: str
    thing: "dspy.Module | type[dspy.Module]"
    path: Path


def discover(target: str | Path = ".", *, config: Config | None = None) -> Discovery:
    """Return the programs of a project directory, a `file.py`, or a `package.module:Name`.

    The project's `.env` is loaded first; what the environment has already stays. `config` is what
    `dspy.config.yaml` says unless given.

    Raises:
        NothingToServe: There is no such file, directory or name.
        BadConfig: `dspy.config.yaml` or `.env` cannot be used.
    """
    path, name = _split(str(target))
    root = root_of(path if path else Path.cwd())
    configuration.load_environment(root)
    if config is None:
        config = read_config(root)
    sources = _sources(path, root) if path else [_importable(str(target).partition(":")[0], root)]
    found, failures = _import_all(sources, name)
    programs, unusable = _programs([each for each in found if not _is_base(each.thing)], config)
    packages = {source.module.partition(".")[0] for source in sources if source.folder == root / "src"}
    return Discovery(
        programs=tuple(programs),
        failures=(*failures, *unusable),
        config=config,
        root=root,
        package=min(packages, default=None),
        files=tuple(source.path for source in sources),
    )


def root_of(path: Path) -> Path:
    """Return the project `path` is in: itself, else the nearest directory with a `dspy.config.yaml`."""
    folder = path if path.is_dir() else path.parent
    if any(folder.glob(_MODULES)):
        return folder
    return next((each for each in (folder, *folder.parents) if (each / configuration.FILE).is_file()), folder)


def read_config(root: Path) -> Config:
    """Return the configuration of the project at `root`; without a file, the defaults.

    Raises:
        BadConfig: The file cannot be used.
    """
    file = root / configuration.FILE
    return configuration.load(file) if file.exists() else Config()


# --- What to import -----------------------------------------------------------------------------------------


def _split(target: str) -> tuple[Path | None, str | None]:
    """Return the path and the name a target consists of; no path for a `package.module:Name`."""
    if (path := Path(target)).exists():
        return path.resolve(), None
    before, colon, name = target.rpartition(":")
    if colon and Path(before).is_file():
        return Path(before).resolve(), name
    if colon and name.isidentifier() and all(part.isidentifier() for part in before.split(".")):
        return None, name
    raise NothingToServe(
        f"No file or directory {target!r}. "
        "Expected a project directory, a file.py, or package.module:ClassName."
    )


def _sources(path: Path, root: Path) -> Sequence[_Source]:
    if path.is_file():
        return [_source(path, root)]
    found = [
        _source(file, root)
        for modules in sorted(root.glob(_MODULES))
        for file in sorted(modules.rglob("*.py"))
        if not any(part.startswith(("_", ".")) for part in file.relative_to(modules).parts)
    ]
    if not found and not any(root.glob(_MODULES)):
        raise NothingToServe(
            f"No DSPy project in {str(root)!r}: expected src/<package>/modules/*.py. "
            "Make one with `dspy-cli new NAME`, or name a file.py."
        )
    return found


def _source(path: Path, root: Path) -> _Source:
    folder = root / "src"
    if path.is_relative_to(folder) and path.parent != folder:
        return _Source(path, ".".join(path.relative_to(folder).with_suffix("").parts), folder)
    return _Source(path, f"{_SINGLE}{path.stem}", path.parent)  # `json.py` must not become `json`


def _importable(module: str, root: Path) -> _Source:
    """Return where `package.module` is; what is not the project's may be installed."""
    base = Path(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        for folder in (root / "src", root):
            if (folder / path).is_file():
                return _Source(folder / path, module, folder)
    return _Source(base, module, root)


# --- Importing it -------------------------------------------------------------------------------------------


def _import_all(sources: Sequence[_Source], name: str | None) -> tuple[Sequence[_Found], Sequence[Failure]]:
    for folder in dict.fromkeys(source.folder for source in sources):
        _make_importable(folder, {source.module.partition(".")[0] for source in sources})
    found, failures = list[_Found](), list[Failure]()
    for source in sources:
        try:
            found += _named(source, name) if name else _defined(source)
        except NothingToServe:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the user's file may raise anything
            failures.append(_failure(source.path, error))
    return found, failures


def _make_importable(folder: Path, modules: Iterable[str]) -> None:
    """Put `folder` first on `sys.path`, and forget what an earlier discovery left under its names."""
    sys.path[:] = [str(folder), *(entry for entry in sys.path if entry != str(folder))]
    files = folder.iterdir() if folder.is_dir() else ()
    own = {*modules, *(path.stem for path in files)}
    stale = {name for name in own if _is_projects(name)}
    for name in tuple(sys.modules):
        if name.partition(".")[0] in stale:
            del sys.modules[name]
    importlib.invalidate_caches()


def _is_projects(module: str) -> bool:
    return hasattr(sys.modules.get(module), _MARK)


def _load(source: _Source) -> ModuleType:
    before = set(sys.modules)
    try:
        return _import(source)
    finally:
        for name in set(sys.modules) - before:
            _mark(sys.modules[name], source.folder)


def _mark(module: ModuleType, folder: Path) -> None:
    """Note that `module` is the project's, not an installed one of the same name."""
    about = getattr(module, "__dict__", dict[str, Any]())
    places = [about.get("__file__"), *about.get("__path__", ())]
    if any(isinstance(place, str) and Path(place).is_relative_to(folder) for place in places):
        about[_MARK] = True


def _import(source: _Source) -> ModuleType:
    if not source.module.startswith(_SINGLE):
        _refuse_taken(source)
        return importlib.import_module(source.module)
    spec = importlib.util.spec_from_file_location(source.module, source.path)
    if spec is None or spec.loader is None:
        raise NothingToServe(f"{str(source.path)!r} is no Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[source.module] = module
    spec.loader.exec_module(module)
    return module


def _refuse_taken(source: _Source) -> None:
    """Refuse a project's package that has the name of one which is imported already."""
    package = source.module.partition(".")[0]
    other = sys.modules.get(package)
    if source.path.is_file() and other and not _is_projects(package):
        raise BadProgram(f"the name {package!r} is taken by {other!r}; rename the package in src/")


# --- What is in it ------------------------------------------------------------------------------------------


def _defined(source: _Source) -> Generator[_Found]:
    """Yield the module-level instances, and the classes defined in the file that have none."""
    names = vars(_load(source))
    imported = _imported(source.path)
    public = {
        name: value for name, value in names.items() if not name.startswith("_") and name not in imported
    }
    instances = {name: value for name, value in public.items() if isinstance(value, dspy.Module)}
    kinds = {type(value) for value in instances.values()}
    classes = {kind.__name__: kind for kind in public.values() if _is_served(kind, names["__name__"])}
    things = {name: kind for name, kind in classes.items() if kind not in kinds} | instances
    yield from (_Found(name, thing, source.path) for name, thing in things.items())


def _named(source: _Source, name: str) -> Generator[_Found]:
    names = vars(_load(source))
    path = Path(names.get("__file__") or source.path)
    if name not in names:
        close = get_close_matches(name, names, 1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise NothingToServe(f"There is no {name!r} in {path}.{hint}")
    thing: object = names[name]
    if not isinstance(thing, dspy.Module) and not _is_module_class(thing):
        raise NothingToServe(f"{name!r} in {path} is {thing!r:.80}; expected a dspy.Module.")
    yield _Found(name, cast("dspy.Module", thing), path)


def _is_module_class(value: object) -> TypeIs[type[dspy.Module]]:
    return isinstance(value, type) and issubclass(value, dspy.Module)


def _is_served(value: object, module: str) -> TypeIs[type[dspy.Module]]:
    """Return whether this is a class of programs that is defined in `module`."""
    return _is_module_class(value) and value.__module__ == module


def _is_base(thing: dspy.Module | type[dspy.Module]) -> bool:
    """Return whether this is a base of others, with nothing to run by itself."""
    if not isinstance(thing, type) or hasattr(thing, "forward") or hasattr(thing, "aforward"):
        return False
    return bool(thing.__subclasses__())


def _imported(path: Path) -> frozenset[str]:
    """Return the names that import statements bind in a file: what they stand for is served elsewhere."""
    imports = (node for node in ast.walk(ast.parse(path.read_bytes())) if isinstance(node, _IMPORTS))
    return frozenset(alias.asname or alias.name.partition(".")[0] for node in imports for alias in node.names)


_IMPORTS = (ast.Import, ast.ImportFrom)


# --- Making programs of it ----------------------------------------------------------------------------------


def _programs(found: Sequence[_Found], config: Config) -> tuple[Sequence[Program], Sequence[Failure]]:
    programs, failures = list[Program](), list(_twice(found))
    model_of = cache(partial(_model, config, failures))
    names = Counter(each.name for each in found)
    for each in found:
        if names[each.name] > 1:
            continue
        try:
            lm, model = model_of(config.alias(each.name))
            programs.append(_program(each, lm, model))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the user's `__init__` may raise anything
            failures.append(_failure(each.path, error, about=each.name))
    return programs, failures


def _program(found: _Found, lm: dspy.BaseLM | None, model: str) -> Program:
    if isinstance(found.thing, type) and (needed := _needed(found.thing)):
        raise BadProgram(f"{found.name}() needs {', '.join(needed)}; {_NEEDS_HINT.format(found.name)}")
    return program(found.thing, name=found.name, lm=lm, model=model, source=found.path)


_NEEDS_HINT = "give them defaults, or make one in the file: program = {}(...)"


def _needed(kind: type) -> Sequence[str]:
    """Return the arguments `kind` cannot be made without."""
    _, *parameters = inspect.signature(kind.__init__).parameters.values()
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [each.name for each in parameters if each.default is each.empty and each.kind not in variadic]


def _model(config: Config, failures: list[Failure], alias: str | None) -> tuple[dspy.BaseLM | None, str]:
    """Return the language model of `alias` and its name; one that cannot be made is a failure, told once."""
    if alias is None:
        return None, ""
    name = config.models.registry[alias].model
    try:
        lm = configuration.make_lm(config, alias)
    except BadConfig as error:
        failures.append(Failure(config.path or Path(configuration.FILE), str(error), cause=error))
        return (_Keyless(name, error), name) if isinstance(error, MissingKey) else (None, name)
    return lm, cast("str", lm.model)


class _Keyless(dspy.LM):
    """A model whose key is missing: everything else is served, and a run says which key."""

    def __init__(self, model: str, problem: MissingKey) -> None:
        super().__init__(model)
        self._problem = problem

    def __call__(self, *_: object, **__: object) -> Never:
        raise self._problem

    async def acall(self, *_: object, **__: object) -> Never:
        raise self._problem


def _twice(found: Sequence[_Found]) -> Generator[Failure]:
    """Refuse programs of one name: which of them `/name` is would depend on the order of files."""
    places = dict[str, list[Path]]()
    for each in found:
        places.setdefault(each.name, []).append(each.path)
    for name, paths in places.items():
        for path in paths if len(paths) > 1 else ():
            others = ", ".join(
                str(each.relative_to(path.parent, walk_up=True)) for each in paths if each != path
            )
            yield Failure(path, f"the name {name!r} is also in {others}", "rename one of them")


# --- Saying why not -----------------------------------------------------------------------------------------


def _failure(path: Path, error: BaseException, *, about: str = "") -> Failure:
    file, line = _origin(error, path)
    place = "" if file == path else f"{file.name}:{line}: "
    reason = f"{place}{_reason(error)}"
    shown = f"{about}: {reason}" if about and not isinstance(error, DspyCliError) else reason
    return Failure(path, shown[:_MAX_REASON], _hint(error), line if file == path else None, error)


def _origin(error: BaseException, path: Path) -> tuple[Path, int | None]:
    """Return the file and line of the project in which `error` began."""
    if isinstance(error, SyntaxError) and error.filename:
        return Path(error.filename), error.lineno
    frames = [(Path(frame.filename), frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    return next((frame for frame in reversed(frames) if _is_users(frame[0])), (path, None))


def _is_users(file: Path) -> bool:
    paths = sysconfig.get_paths()
    installed = (*(paths[kind] for kind in ("stdlib", "purelib", "platlib")), Path(__file__).parents[1])
    return file.is_file() and not any(file.is_relative_to(folder) for folder in installed)


def traceback_of(error: BaseException) -> str:
    """Return the traceback of what a user's code raised, from the first frame of theirs on."""
    stack = error.__traceback__
    while stack and not _is_users(Path(stack.tb_frame.f_code.co_filename)):
        stack = stack.tb_next
    return "".join(traceback.format_exception(type(error), error, stack))


def _reason(error: BaseException) -> str:
    match error:
        case DspyCliError():
            return str(error)
        case SystemExit():
            return f"it exits when it is imported: sys.exit({error.code!r})"
        case SyntaxError():
            return f"{type(error).__name__}: {error.msg}"
        case _:
            return ": ".join(filter(None, (type(error).__name__, _first_line(error))))


def _first_line(error: BaseException) -> str:
    try:
        return next(iter(str(error).strip().splitlines()), "")
    except Exception:  # noqa: BLE001 - the user's own `__str__`
        return ""


def _hint(error: BaseException) -> str:
    return next(hint(error) for kind, hint in _HINTS if isinstance(error, kind))


def _missing(error: ModuleNotFoundError) -> str:
    package = (error.name or "").partition(".")[0]
    return (
        f"there is no such file in src/{package}"
        if _is_projects(package)
        else f"install it: uv add {package}"
    )


_HINTS: Sequence[tuple[type[BaseException], Callable[[Any], str]]] = (
    (DspyCliError, lambda _: ""),  # says what to do itself
    (ModuleNotFoundError, _missing),
    (SyntaxError, lambda _: "correct the line"),
    (SystemExit, lambda _: "put what runs by itself under `if __name__ == '__main__':`"),
    (KeyError, lambda _: "if it is an environment variable, set it in .env"),
    (FileNotFoundError, lambda _: "a path is relative to where the command runs; use Path(__file__).parent"),
    (BaseException, lambda _: "`dspy-cli check --traceback` shows where it was raised"),
)
