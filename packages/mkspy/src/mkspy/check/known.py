"""What the gate knows of DSPy 3.4 without importing it; a test compares the tables with the library."""

from typing import NamedTuple


def words(text: str) -> frozenset[str]:
    """Return the words of a text: how the tables of names are written."""
    return frozenset(text.split())


class Kind(NamedTuple):
    """A predictor of DSPy: what it adds to a signature's outputs, and what it takes beside the inputs."""

    extras: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ("signature",)
    positional: int = 0


KINDS = {
    "Predict": Kind(arguments=("signature", "callbacks")),
    "ChainOfThought": Kind(
        ("reasoning",), arguments=("signature", "rationale_field", "rationale_field_type")
    ),
    "ReAct": Kind(
        ("trajectory", "reasoning"), ("max_iters",), ("tools",), ("signature", "tools", "max_iters")
    ),
    "ReActV2": Kind(
        ("history", "termination_reason", "trajectory"),
        ("max_iters", "history", "tools"),
        ("tools",),
        ("signature", "tools", "max_iters"),
    ),
    "ProgramOfThought": Kind(
        ("reasoning",),
        ("interpreter", "interpreter_factory"),
        (),
        ("signature", "max_iters", "interpreter_factory"),
        1,
    ),
    "CodeAct": Kind(
        ("trajectory", "reasoning"),
        ("max_iters", "interpreter"),
        ("tools",),
        ("signature", "tools", "max_iters", "interpreter_factory"),
        1,
    ),
    "MultiChainComparison": Kind(("rationale",), ("completions",), (), ("signature", "M", "temperature"), 1),
    "RLM": Kind(("trajectory", "final_reasoning"), ("interpreter",), (), ("signature", "max_iters"), 1),
}
"""Predictors that make a module of a signature."""

WRAPPERS = {
    "BestOfN": ("module", "N", "reward_fn", "threshold"),
    "Refine": ("module", "N", "reward_fn", "threshold"),
}
"""Modules that run another one, with the arguments they cannot do without."""

CALL_OPTIONS = frozenset(("config", "demos", "lm", "signature", "prediction", "_trace"))
"""Keywords every predictor takes beside its inputs."""

PREDICTION = words(
    "completions copy from_completions get get_lm_usage inputs items keys labels set_lm_usage toDict"
    " values with_inputs without"
)
"""Public attributes of every `dspy.Prediction`."""

SOMETIMES = frozenset(("logprobs",))
"""What a prediction has when the language model is asked for it."""

MODULE_METHODS = words(
    "acall batch deepcopy dump_state get_lm inspect_history load load_state map_named_predictors"
    " named_parameters named_predictors named_sub_modules parameters predictors reset_copy save set_lm"
)
MODULE_DATA = frozenset(("history", "callbacks"))
MODULE = MODULE_METHODS | MODULE_DATA
"""Public attributes of every `dspy.Module`."""

PREDICT_METHODS = words("forward aforward get_config get_criteria reset set_criteria update_config")

BREAKING = words("fields input_fields output_fields instructions signature")
"""Names no field can have: DSPy 3.4 fails to make the signature, or to call it."""

SUBMODULES = words(
    "adapters avatar base_module chain_of_thought clients datasets dsp evaluate experimental field lm15"
    " module predict prediction primitives propose react refine retrievers signature signatures"
    " streaming teleprompt types utils"
)
"""Modules inside DSPy: `dspy.predict.Predict` is `dspy.Predict`."""

NAMES = words(
    "Adapter AdapterParseError Audio AvatarOptimizer BaseLM BaseModule BestOfN BetterTogether"
    " BootstrapFewShot BootstrapFewShotWithOptuna BootstrapFewShotWithRandomSearch BootstrapFinetune"
    " BootstrapRS COPRO ChainOfThought ChatAdapter Code CodeAct CodeExecutionError CodeInterpreter"
    " CodeInterpreterError ColBERTv2 Completions ContextWindowExceededError DSPyError Embedder"
    " Embeddings EmbeddingsWithScores Ensemble Evaluate Example File FinalOutput Flex GEPA History Image"
    " InferRules InputField JSONAdapter KNN KNNFewShot LM LMAuthError LMBillingError"
    " LMCollectionLimitError LMConfigurationError LMError LMInvalidRequestError LMLockTimeoutError"
    " LMNotConfiguredError LMProviderError LMRateLimitError LMServerError LMStreamAssemblyError"
    " LMTimeoutError LMTransportError LMUnexpectedError LMUnsupportedFeatureError"
    " LMUnsupportedModelError LabeledFewShot LocalInterpreter MIPROv2 Module MultiChainComparison"
    " OldField OldInputField OldOutputField OutputField Parallel Predict Prediction ProgramOfThought"
    " Provider PythonInterpreter RLM ReAct ReActV2 Reasoning Refine Retrieve SIMBA SandboxSerializable"
    " Signature SignatureMeta Tool ToolCallResults ToolCalls TrainingJob TwoStepAdapter Type XMLAdapter"
    " adapters asyncify bootstrap_trace_data cache clients configure configure_cache"
    " configure_dspy_loggers context disable_litellm_logging disable_logging dsp enable_litellm_logging"
    " enable_logging ensure_signature evaluate experimental infer_prefix inspect_history"
    " is_retryable_lm_error lm15 load load_settings majority make_signature datasets predict primitives"
    " propose resolve_interpreter_factory retrievers settings signatures streamify streaming syncify"
    " teleprompt track_usage utils"
)
"""Public names of `dspy`."""

GONE = {
    "Assert": "dspy.Refine or dspy.BestOfN",
    "Suggest": "dspy.Refine or dspy.BestOfN",
    "OpenAI": "dspy.LM",
    "Cohere": "dspy.LM",
    "HFModel": "dspy.LM",
    "HFClientTGI": "dspy.LM",
    "HFClientVLLM": "dspy.LM",
    "OllamaLocal": "dspy.LM",
    "AzureOpenAI": "dspy.LM",
    "Anthropic": "dspy.LM",
    "Google": "dspy.LM",
    "Bedrock": "dspy.LM",
    "TypedPredictor": "dspy.Predict",
    "TypedChainOfThought": "dspy.ChainOfThought",
    "ChainOfThoughtWithHint": "dspy.ChainOfThought",
    "functional": "dspy.Signature classes",
    "BayesianSignatureOptimizer": "dspy.MIPROv2",
    "MIPRO": "dspy.MIPROv2",
}
"""What DSPy once had, and what took its place."""

TYPES = frozenset(("Image", "Audio", "File", "History", "Code", "Type", "Tool", "ToolCalls", "Reasoning"))
"""Names of `dspy` that annotate fields."""
