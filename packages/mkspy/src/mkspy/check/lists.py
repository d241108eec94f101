"""The positive list: all that a candidate may import, name, read and call. What is not here is refused."""

import types

from mkspy.check.known import MODULE, PREDICT_METHODS, words

MODULES: dict[str, frozenset[str]] = {
    "__future__": frozenset(("annotations",)),
    "asyncio": frozenset(("gather", "to_thread")),
    "collections": frozenset(("Counter", "OrderedDict", "defaultdict", "deque")),
    "datetime": frozenset(("date", "datetime", "time", "timedelta")),
    "dspy": words(
        "Audio BestOfN ChainOfThought Code Example File History Image InputField Module"
        " MultiChainComparison OutputField Parallel Predict Prediction ProgramOfThought ReAct Refine"
        " Signature Tool majority"
    ),
    "enum": frozenset(("Enum", "IntEnum", "StrEnum")),
    "functools": frozenset(("reduce",)),
    "itertools": frozenset(("batched", "chain", "groupby", "islice", "pairwise", "takewhile", "zip_longest")),
    "math": words(
        "ceil e exp floor fsum hypot inf isclose isfinite isinf isnan log log10 log2 pi prod sqrt trunc"
    ),
    "pydantic": frozenset(("BaseModel", "Field")),
    "re": words("IGNORECASE MULTILINE compile escape findall finditer fullmatch match search split sub"),
    "statistics": frozenset(("fmean", "mean", "median", "mode", "stdev")),
    "textwrap": frozenset(("dedent",)),
    "typing": words(
        "Any Dict Final FrozenSet Iterable List Literal Mapping Optional Sequence Set Tuple Union"
    ),
}
"""Modules and the names they may be asked for; `datetime.sys` is as far away as `os`."""

BUILTINS = words(
    "False None True abs all any bool dict divmod enumerate filter float frozenset int isinstance len"
    " list map max min next range repr reversed round set sorted staticmethod str sum super tuple zip"
    " ArithmeticError AssertionError AttributeError Exception IndexError KeyError LookupError"
    " NotImplementedError OverflowError RuntimeError TypeError ValueError ZeroDivisionError"
)
"""Builtins a candidate may name; `print` and `open` are not among them, `getattr` and `type` even less."""

EXCEPTIONS = frozenset(name for name in BUILTINS if name.endswith("Error") or name == "Exception")

METHODS = words(
    "add append appendleft capitalize casefold clear copy count date day days difference discard end"
    " endswith extend find findall finditer from_iterable fromisoformat fromkeys fullmatch get group"
    " groupdict groups hour index insert intersection is_integer isalnum isalpha isascii isdecimal"
    " isdigit isdisjoint isidentifier islower isnumeric isoformat isprintable isspace issubset"
    " issuperset istitle isupper items join keys lower lstrip match minute model_dump month most_common"
    " now partition pop popitem popleft remove removeprefix removesuffix replace reverse rfind rindex"
    " rpartition rsplit rstrip search second seconds setdefault sort span split splitlines start startswith"
    " strftime strip strptime sub swapcase symmetric_difference title today total_seconds union update"
    " upper values weekday year"
)
"""Attributes of text, numbers, dates and collections; `format` is not one, it reads attributes by name."""

PREDICTIONS = words("acall code completions messages toDict with_inputs")
"""Attributes of predictors, predictions, examples, histories and code."""

HIDDEN = frozenset(
    name
    for kind in (
        *(
            types.GeneratorType,
            types.CoroutineType,
            types.AsyncGeneratorType,
            types.FrameType,
            types.CodeType,
        ),
        *(types.TracebackType, types.FunctionType, types.MethodType, types.ModuleType),
    )
    for name in dir(kind)
    if "_" in name and not name.startswith("_")
)
"""Attributes that lead from a value into the interpreter: no field may bear such a name."""

_BUILT_IN = (*dir(str), *dir(bytes), *dir(int), *dir(float), *dir(list), *dir(dict), *dir(set), *dir(tuple))
_OF_DSPY = MODULE | PREDICT_METHODS | words("config demos kwargs lm signature traces train")
_OF_RECORDS = words("construct from_orm parse_file parse_obj parse_raw update_forward_refs")
TAKEN = (frozenset(_BUILT_IN) | _OF_DSPY | _OF_RECORDS) - (METHODS | PREDICTIONS)
"""What text, numbers and predictors have: a field of that name would open it on all of them."""

TYPES = words("Audio Code File History Image")
"""Names of `dspy` that are types: `dspy.Image(path)` reads files, so that they are annotations only."""

MADE = frozenset(("Code", "History"))
"""The types of `dspy` that hold only what they are given."""

CONFIG = words("max_tokens n rollout_id temperature top_p")
"""Settings of a model that a candidate may choose; `api_base` would send prompts and keys elsewhere."""

ARGUMENTS: dict[str, frozenset[str]] = {
    "Predict": frozenset(("signature",)) | CONFIG,
    "ChainOfThought": frozenset(("signature", "rationale_field_type")) | CONFIG,
    "ReAct": frozenset(("signature", "tools", "max_iters")),
    "ProgramOfThought": frozenset(("signature", "max_iters")),
    "MultiChainComparison": frozenset(("signature", "M")) | CONFIG,
    "BestOfN": words("module N reward_fn threshold fail_count"),
    "Refine": words("module N reward_fn threshold fail_count"),
    "Parallel": words("disable_progress_bar max_errors num_threads timeout"),
    "Signature": frozenset(("signature", "instructions")),
    "Tool": frozenset(("func", "name", "desc")),
    "InputField": words("desc description default ge gt le lt min_length max_length"),
    "OutputField": words("desc description default ge gt le lt min_length max_length"),
    "Field": words(
        "default default_factory description ge gt le lt min_length max_length title validate_default"
    ),
    "Code": frozenset(("code",)),
    "History": frozenset(("messages",)),
}
"""Arguments of what builds predictors and fields; the others of `dspy` take fields by any name."""

OPTIONS = words(
    "_trace callbacks demos interpreter interpreter_factory lm new_signature prediction signature tools"
)
"""Keywords by which a call reaches past the inputs of a signature."""

BUILTIN_TYPES = words("None bool dict float frozenset int list object set str tuple")
"""Builtins that may stand in an annotation."""

_STATEMENTS = words(
    "AnnAssign Assert Assign AssignTarget AugAssign Break Continue ClassDef Else ExceptHandler Expr"
    " Finally For FunctionDef If Import ImportFrom IndentedBlock Match MatchAs MatchCase MatchList"
    " MatchOr MatchOrElement MatchSequenceElement MatchSingleton MatchStar MatchTuple MatchValue Module"
    " Pass Raise Return SimpleStatementLine SimpleStatementSuite Try While"
)
_EXPRESSIONS = words(
    "Annotation Arg AsName Attribute Await BinaryOperation BooleanOperation Call CompFor CompIf"
    " Comparison ComparisonTarget ConcatenatedString Decorator Dict DictComp DictElement Element"
    " Ellipsis Float FormattedString FormattedStringExpression FormattedStringText From GeneratorExp"
    " IfExp Index Integer Lambda List ListComp Name NamedExpr Param ParamSlash ParamStar Parameters Set"
    " SetComp SimpleString Slice StarredDictElement StarredElement Subscript SubscriptElement Tuple"
    " UnaryOperation"
)
CONSTRUCTS = _STATEMENTS | _EXPRESSIONS
"""Types of LibCST nodes a candidate may be made of."""

SAYS = {
    "With": "`with`",
    "Del": "`del`",
    "Global": "`global`",
    "Nonlocal": "`nonlocal`",
    "Yield": "`yield`",
    "MatchClass": "a class pattern",
    "TypeAlias": "`type`",
    "TemplatedString": "a template string",
    "TryStar": "`except*`",
    "ImportStar": "`import *`",
    "TypeParameters": "a type parameter",
    "Imaginary": "an imaginary number",
}
"""How a refused construct is called in a message."""
