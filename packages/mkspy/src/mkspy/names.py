"""Names that DSPy and generated programs have a use for, which a spec cannot give to something else.

The tables are copied from dspy 3.4 and pydantic 2, because this module imports neither; a test compares.
"""

import keyword
import re

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*", re.ASCII)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_PYDANTIC = _words(
    "construct copy dict from_orm json parse_file parse_obj parse_raw schema schema_json "
    "update_forward_refs validate model_computed_fields model_config model_construct model_copy model_dump "
    "model_dump_json model_extra model_fields model_fields_set model_json_schema "
    "model_parametrized_name model_post_init model_rebuild model_validate model_validate_json "
    "model_validate_strings"
)
_SIGNATURE = _words(
    "append append_instructions delete dump_state equals fields input_fields insert instructions "
    "load_state mro output_fields prepend register signature with_instructions with_updated_fields"
)
_PREDICTION = _words(
    "completions copy from_completions get get_lm_usage inputs items keys labels set_lm_usage toDict "
    "values with_inputs without"
)
_CALL = _words("config demos lm new_signature prediction signature traces")
_STRATEGIES = _words("reasoning trajectory next_thought next_tool_name next_tool_args")
_ANNOTATIONS = _words("dspy datetime typing bool dict float int list str tuple Any BaseModel Field Literal")
_SOURCE = _ANNOTATIONS | _words("self range enumerate zip any all isinstance super program asyncio")

RESERVED_FIELDS = _PYDANTIC | _SIGNATURE | _PREDICTION | _CALL | _STRATEGIES | _SOURCE
"""Not for fields: attributes of signatures and predictions, arguments of calls, names in generated files."""

RESERVED_RECORD_FIELDS = _PYDANTIC | _ANNOTATIONS
"""Not for fields of records: attributes of pydantic models, and what their annotations are written with."""

RESERVED_CODE_FIELDS = _words("code_output error final_generated_code generated_code previous_code")
"""Not for fields of a step whose strategy is program_of_thought: dspy.ProgramOfThought adds them."""

RESERVED_STEPS = _SOURCE | _words(
    "acall aforward batch callbacks deepcopy dump_state forward get_lm history inspect_history load "
    "load_state map_named_predictors named_parameters named_predictors named_sub_modules parameters "
    "predictors reset_copy save set_lm"
)
"""Not for steps: attributes of `dspy.Module`."""

RESERVED_RECORDS = _words(
    "Any BaseModel Dict Field Final List Literal Never NoReturn Optional Set Tuple Type Union None "
    "True False text number integer boolean date datetime json image audio file code history null "
    "optional list tuple str float int bool dict set dspy typing"
)
"""Not for records: names that the notation of types and generated files know."""

RESERVED_TOOLS = _SOURCE | frozenset(("finish", "print", "open", "len", "min", "max", "sum", "sorted"))
"""Not for tools: `dspy.ReAct` has a tool `finish` of its own, and a file that hid builtins would mislead."""


def why_not(name: str, reserved: frozenset[str] = RESERVED_FIELDS) -> str:
    """Return what keeps `name` from being a name here, or "" if nothing does."""
    if not _NAME.fullmatch(name):
        return "a name has letters, digits and underscores, and begins with a letter"
    if keyword.iskeyword(name):
        return f"{name!r} is a word of Python's own; choose another name"
    if name in reserved:
        return f"{name!r} means something in DSPy or in generated programs already; choose another name"
    return ""
