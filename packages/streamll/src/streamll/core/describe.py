"""What an event says about a module, an LM call, a tool, an error. Reads DSPy's objects, changes nothing."""

import asyncio
import inspect
import re
import traceback
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from time import perf_counter
from typing import Any, cast
from urllib.parse import urlsplit

from streamll.core.context import Call
from streamll.core.values import freeze

type Data = dict[str, object]

# --- inputs and outputs -------------------------------------------------------------------------------------


def module_inputs(instance: Any, inputs: Mapping[str, Any]) -> Data:
    """Return the arguments of a module call by name; `forward` names the positional ones."""
    named: dict[str, Any] = dict(
        zip(_parameters(cast("type[object]", type(instance))), positional(inputs), strict=False)
    )
    return {"inputs": freeze(named | keywords(inputs))}


def positional(inputs: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the positional arguments of a call that DSPy wraps as `(*args, **kwargs)`."""
    return tuple(inputs.get("args") or ())


def keywords(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keyword arguments of a call that DSPy wraps as `(*args, **kwargs)`."""
    return dict(inputs.get("kwargs") or {})


@lru_cache(maxsize=1024)
def _parameters(kind: Any) -> tuple[str, ...]:
    forward = getattr(kind, "forward", None) or getattr(kind, "aforward", None)
    return tuple(inspect.signature(forward).parameters)[1:] if forward else ()


def tool_inputs(instance: Any, inputs: Mapping[str, Any]) -> Data:
    return {"arguments": freeze(inputs.get("kwargs", inputs))}


def tool_about(instance: Any, _inputs: Mapping[str, Any]) -> Data:
    function = getattr(instance, "func", None)
    return {
        "name": getattr(instance, "name", None),
        "description": getattr(instance, "desc", None),
        "class": type(instance).__name__ if function is None else _qualified(function),
    }


def _qualified(function: Any) -> str:
    named = function if hasattr(function, "__qualname__") else cast("type[object]", type(function))
    return f"{named.__module__}.{named.__qualname__}"


def lm_inputs(_instance: Any, inputs: Mapping[str, Any]) -> Data:
    return {"messages": freeze(inputs.get("messages") or [{"role": "user", "content": _prompt(inputs)}])}


def _prompt(inputs: Mapping[str, Any]) -> object:
    prompt = inputs.get("prompt")
    return (
        prompt if prompt is not None else cast("Mapping[str, Any]", inputs.get("kwargs") or {}).get("request")
    )


def lm_about(instance: Any, inputs: Mapping[str, Any]) -> Data:
    options = options_of(instance, inputs)
    endpoint = options.get("api_base") or options.get("base_url")
    return {
        "provider": provider_of(instance),
        "model": getattr(instance, "model", None),
        "endpoint": _without_credentials(str(endpoint)) if endpoint else None,
        "parameters": {name: freeze(value) for name, value in options.items() if name in _SHOWN_PARAMETERS},
    }


def options_of(instance: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of an LM call: the LM's own, and over them the call's."""
    own = cast("dict[str, Any]", getattr(instance, "kwargs", None) or {})
    return own | keywords(inputs)


_SHOWN_PARAMETERS = frozenset(
    {
        *("temperature", "max_tokens", "max_completion_tokens", "top_p", "top_k", "n", "stop", "seed"),
        *("presence_penalty", "frequency_penalty", "reasoning_effort", "rollout_id", "tool_choice"),
    }
)


def provider_of(instance: Any) -> str | None:
    model = getattr(instance, "model", None)
    if not isinstance(model, str):
        return None
    return model.split("/", 1)[0] if "/" in model else getattr(instance, "_provider_name", None)


def _without_credentials(url: str) -> str:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", f":{parts.port}" if parts.port else ""
    except ValueError:
        return "unreadable"
    return f"{parts.scheme}://{host}{port}{parts.path}" if host else parts.path


def adapter_inputs(_instance: Any, inputs: Mapping[str, Any]) -> Data:
    return {"inputs": freeze(adapter_arguments(inputs))}


def adapter_arguments(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `format` or `parse` was called with, by name; DSPy wraps an inherited one as `(*args)`."""
    named: dict[str, Any] = dict(zip(("signature", "demos", "inputs"), positional(inputs), strict=False))
    given = {name: value for name, value in inputs.items() if name not in ("args", "kwargs")}
    return named | keywords(inputs) | given


def plain_inputs(_instance: Any, inputs: Mapping[str, Any]) -> Data:
    return {"inputs": freeze(dict(inputs))}


def outputs(value: object) -> Data:
    """Return what a call gave back, without the trace that an optimizer pairs it with."""
    pair = cast("tuple[object, ...]", value) if isinstance(value, tuple) else (value,)
    traced = len(pair) == 2 and hasattr(pair[0], "_store")
    return {"outputs": freeze(pair[0] if traced else cast("object", value))}


def result(value: object) -> Data:
    return {"result": freeze(value)}


# --- the cost of an LM call ---------------------------------------------------------------------------------


def lm_result(call: Call, finished: Any) -> Data:
    """Return model, tokens, cost and speed of a finished LM call.

    `finished` is DSPy's own record of it (`usage`, `cost`, `cost_details`, `cache_hit`, `response_model`).
    """
    tee, seconds = call.lm, perf_counter() - call.started
    usage = cast("dict[str, Any]", getattr(finished, "usage", None) or {})
    tokens = _tokens(usage)
    cached = bool(getattr(finished, "cache_hit", False))
    first = tee.first_token - call.started if tee.first_token else None
    written = seconds - first if first is not None else seconds
    return {
        "model": getattr(call.instance, "model", None),
        "response_model": _answered(finished) or tee.model,
        **tokens,
        **_cost(finished, cached),
        "cached": cached,
        "latency_ms": round(seconds * 1e3, 3),
        "time_to_first_token_ms": None if first is None else round(first * 1e3, 3),
        "tokens_per_second": _rate(tokens["output_tokens"], written),
        "retries": tee.retries,
        "finish_reason": _finish_reason(finished) or tee.finish_reason,
    }


def _answered(finished: Any) -> str | None:
    """Return the model that answered: the last frame of a native stream says; DSPy names it as asked."""
    frame = _get(getattr(finished, "raw", None), "provider_data")
    return _get(frame, "model") or getattr(finished, "response_model", None)


def _tokens(usage: Mapping[str, Any]) -> dict[str, Any]:
    asked = cast("dict[str, Any]", usage.get("prompt_tokens_details") or {})
    answered = cast("dict[str, Any]", usage.get("completion_tokens_details") or {})
    return {
        "input_tokens": usage.get("prompt_tokens", usage.get("input_tokens")),
        "output_tokens": usage.get("completion_tokens", usage.get("output_tokens")),
        "reasoning_tokens": _get(answered, "reasoning_tokens"),
        "cached_tokens": _get(asked, "cached_tokens"),
    }


def _get(holder: Any, name: str) -> Any:
    if isinstance(holder, Mapping):
        return cast("Mapping[str, Any]", holder).get(name)
    return getattr(holder, name, None)


def _cost(finished: Any, cached: bool) -> Data:
    """Return USD and how it is known: a cached call costs nothing, else a price or an estimate."""
    if cached:
        return {"cost_usd": 0.0, "cost_source": "cached"}
    cost = getattr(finished, "cost", None)
    kind = _get(getattr(finished, "cost_details", None), "kind")
    if cost is None:
        return {"cost_usd": None, "cost_source": "unknown"}
    return {"cost_usd": cost, "cost_source": "estimated" if kind == "estimate" else "priced"}


def _rate(tokens: int | None, seconds: float) -> float | None:
    return round(tokens / seconds, 1) if tokens and seconds > 0 else None


def _finish_reason(finished: Any) -> str | None:
    responses = getattr(finished, "responses", None)
    if responses:
        return responses[0].finish_reason
    choices = getattr(getattr(finished, "raw", None), "choices", None) or [None]
    return getattr(choices[0], "finish_reason", None)


# --- errors -------------------------------------------------------------------------------------------------

_CODES: Mapping[str, str] = {
    "Abandoned": "cancelled",
    "AdapterParseError": "parse",
    "APIConnectionError": "connection",
    "AuthenticationError": "authentication",
    "BudgetExceeded": "budget",
    "BudgetExceededError": "budget",
    "CancelledError": "cancelled",
    "ConnectError": "connection",
    "ConnectionError": "connection",
    "ConnectTimeout": "timeout",
    "ContentPolicyViolationError": "content_filter",
    "ContextLengthError": "context_length",
    "ContextWindowExceededError": "context_length",
    "GeneratorExit": "cancelled",
    "KeyboardInterrupt": "cancelled",
    "LMAuthError": "authentication",
    "LMBillingError": "authentication",
    "LMNotConfiguredError": "authentication",
    "LMRateLimitError": "rate_limit",
    "LMServerError": "connection",
    "LMStreamAssemblyError": "connection",
    "LMTimeoutError": "timeout",
    "LMTransportError": "connection",
    "PermissionDeniedError": "authentication",
    "RateLimitError": "rate_limit",
    "ReadTimeout": "timeout",
    "ServiceUnavailableError": "connection",
    "Timeout": "timeout",
    "TimeoutError": "timeout",
    "WriteTimeout": "timeout",
}
"""By class name: DSPy's, LiteLLM's and the standard library's errors, without importing them."""

HINTS: Mapping[str, str] = {
    "authentication": "Check the API key and that the account may use this model.",
    "budget": "Raise the budget, or make the program spend less.",
    "cancelled": "The caller stopped waiting or asked it to stop.",
    "connection": "The provider was unreachable or failed; check the endpoint, then try again.",
    "content_filter": "The provider refused the content; rephrase the input.",
    "context_length": "The prompt is too long for the model; shorten inputs or demos, or use another model.",
    "parse": "The model left the format; try another adapter, a simpler signature or a stronger model.",
    "program": "The program raised this itself.",
    "rate_limit": "Too many requests; wait, lower the concurrency or raise the account's limit.",
    "timeout": "No answer in time; raise the timeout or ask for less.",
    "tool": "The tool raised this; check its arguments and what it depends on.",
    "abandoned": "The program returned while this call was still running in another thread or task.",
    "interrupted": "The process ended before the program returned.",
}


def error(raised: BaseException, *, kind: str, private: bool, tracebacks: bool = False) -> Data:
    """Return `{"error": {type, code, message, hint}}`; a private message is withheld, it may quote data."""
    code = classify(raised, kind=kind)
    message = "withheld: inputs or outputs of this program are private" if private else _message(raised)
    described: Data = {"type": type(raised).__name__, "code": code, "message": message, "hint": HINTS[code]}
    if tracebacks and not private:
        described["traceback"] = scrubbed("".join(traceback.format_exception(raised)))
    return {"error": described}


def classify(raised: BaseException, *, kind: str) -> str:
    """Return the error's code: that of its first known class, else by the kind of call that raised it."""
    if getattr(raised, "provider_code", None) in ("content_filter", "content_policy_violation"):
        return "content_filter"
    if isinstance(raised, asyncio.CancelledError):
        return "cancelled"
    known = _known(raised)
    if known == "connection" and "timeout" in map(_known, _causes(raised)):
        return "timeout"  # DSPy's own client calls its timeout a transport error
    return known or ("tool" if kind == "tool" else "program")


def _known(raised: BaseException) -> str | None:
    return next((_CODES[c.__name__] for c in type(raised).__mro__ if c.__name__ in _CODES), None)


def _causes(raised: BaseException) -> Iterator[BaseException]:
    while raised.__cause__ is not None:
        raised = raised.__cause__
        yield raised


_MAX_MESSAGE = 10_000
_SECRETS = re.compile(
    r"(?<![^\s/:@])[^\s/:@]{0,256}:[^\s/@]{1,512}(?=@[\w\[])"  # user:password of a URL or an authority
    r"|\b(?:sk|pk|rk|gsk|xai|key)-[\w-]{8,}"
    r"|(?<=Bearer )[\w.~+/=-]{8,}"
)


def scrubbed(text: str) -> str:
    """Return `text` without what looks like a credential: URL passwords, API keys, bearer tokens.

    A text of more than 10,000 characters is cut there: this runs on the program's thread.
    """
    return _SECRETS.sub("***", text[:_MAX_MESSAGE]) + ("…" if len(text) > _MAX_MESSAGE else "")


def _message(raised: BaseException) -> str:
    try:
        return scrubbed(str(raised))
    except Exception:  # noqa: BLE001 - the exception's own `__str__`
        return "unreadable: its __str__ raises"


# --- tables -------------------------------------------------------------------------------------------------

type Describe = Callable[[Any, Mapping[str, Any]], Data]

INPUTS: Mapping[str, Describe] = {
    "module": module_inputs,
    "lm": lm_inputs,
    "tool": tool_inputs,
    "adapter_format": adapter_inputs,
    "adapter_parse": adapter_inputs,
}
"""What a call was given, by kind of call: hidden by `include_inputs=False`. Other kinds: `plain_inputs`."""

ABOUT: Mapping[str, Describe] = {"lm": lm_about, "tool": tool_about}
"""What ran, by kind of call; never private."""


def operation(instance: Any, kind: str) -> str:
    """Return the name of what runs: the model, the tool, or the class."""
    named = {"lm": "model", "tool": "name"}.get(kind)
    name = getattr(instance, named, None) if named else None
    return name if isinstance(name, str) else type(instance).__name__
