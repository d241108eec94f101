"""What dspy-cli raises on purpose. Each says what was given, what was expected and what to do."""


class DspyCliError(Exception):
    """Base of every error dspy-cli raises on purpose; the command line prints it without a traceback."""


class BadName(DspyCliError, ValueError):
    """A name that cannot be what it is to become: a directory, a package, a class."""


class BadModel(DspyCliError, ValueError):
    """Text that does not name a language model."""


class BadSignature(DspyCliError, ValueError):
    """Text that is no signature; `column` is where, and `problem` why."""

    def __init__(self, message: str, *, column: int, problem: str) -> None:
        super().__init__(message)
        self.column, self.problem = column, problem


class BadInput(DspyCliError, ValueError):
    """A value for an input of a program that is missing, unknown or of another type."""


class Occupied(DspyCliError, FileExistsError):
    """There is something where a file or a project is to be written."""


class NotAProject(DspyCliError, FileNotFoundError):
    """A command that works inside a project was run outside one."""


class InvalidGateway(DspyCliError, ValueError):
    """A gateway declares what cannot be served."""


class MissingExtra(DspyCliError, ImportError):
    """What was asked for needs an optional dependency that is not installed."""


class BadConfig(DspyCliError, ValueError):
    """`dspy.config.yaml` cannot be used. `problems` has a line for each thing that is wrong with it."""

    def __init__(self, *problems: str) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class MissingKey(BadConfig, LookupError):
    """The config is right, but what a model needs is not here: a key, or an extra."""


class ExposedBinding(DspyCliError, PermissionError):
    """The server was to listen beyond this machine without asking anyone for a key."""


class KeyFileError(DspyCliError, OSError):
    """The file of API keys cannot be made, read or written; `path` says which."""

    def __init__(self, message: str, *, path: str) -> None:
        super().__init__(message)
        self.path = path


class UnknownKey(DspyCliError, LookupError):
    """No API key has that id."""


class BadSetting(DspyCliError, ValueError):
    """A host, an origin, a name or a secret that would not protect anything, or match nothing."""


class BadProgram(DspyCliError, TypeError):
    """A module that cannot be served as it is."""


class NothingToServe(DspyCliError, LookupError):
    """The target names no project, no file and no module with a program in it."""


class CannotAnswer(DspyCliError, RuntimeError):
    """A language model, or DSPy, failed while a program ran; `__cause__` is what it raised."""


class PortTaken(DspyCliError, OSError):
    """The address to listen on is not to be had."""
