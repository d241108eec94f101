"""What gateways share: they are classes, checked when they are defined, with hooks of a user."""

from abc import ABC
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from inspect import isawaitable, iscoroutinefunction
from typing import ClassVar, Protocol, cast

from pydantic import JsonValue

from dspy_cli.errors import InvalidGateway
from dspy_cli.project.programs import Program
from dspy_cli.threads import in_thread

type MaybeAwaitable[T] = T | Awaitable[T]


class Running(Protocol):
    """A run that was started."""

    @property
    def id(self) -> str: ...

    async def outputs(self) -> JsonValue:
        """Return what the program returned, as a JSON object, or raise why it did not."""
        ...


class Starts(Protocol):
    """What a gateway asks of the server: to start a run, once for each `key`."""

    async def start(
        self, program: Program, inputs: Mapping[str, object], *, key: str | None = None
    ) -> Running: ...


class Gateway(ABC):  # noqa: B024 - its subclasses have abstract methods
    """How the world reaches a program: subclass `APIGateway` or `CronGateway`."""

    requires_auth: ClassVar[bool] = True
    """False lets in callers without a key; only an API gateway can be public."""

    def __init_subclass__(cls) -> None:
        """Refuse a wrong declaration where it stands, so that discovery names its file."""
        super().__init_subclass__()
        for problem in cls.problems():
            raise InvalidGateway(f"{cls.__qualname__} {problem}")

    @classmethod
    def problems(cls) -> list[str]:
        """Return what is wrong with the class attributes, each the end of a sentence about the class."""
        return ["is neither; subclass APIGateway or CronGateway."]


async def call[**P, T](hook: Callable[P, MaybeAwaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a user's hook: a coroutine function here, a plain function in a thread, because it may block."""
    if iscoroutinefunction(hook):
        return await cast("Awaitable[T]", hook(*args, **kwargs))
    result = await in_thread(partial(hook, *args, **kwargs), name="gateway hook")
    return await cast("Awaitable[T]", result) if isawaitable(result) else cast("T", result)


def visible(inputs: object) -> object:
    """Return `inputs` without the keys that begin with `_`: they are notes from one hook to another."""
    if not isinstance(inputs, Mapping):
        return inputs
    items = cast("Mapping[object, object]", inputs).items()
    return {key: value for key, value in items if not str(key).startswith("_")}
