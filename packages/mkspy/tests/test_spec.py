"""Operations and tasks: what each takes and gives, and what it says when it cannot be."""

from collections.abc import Callable
from typing import Any

import pytest
from mkspy.errors import BadSpec
from mkspy.spec import (
    Branch,
    Chain,
    Classify,
    Example,
    Extract,
    Filter,
    Free,
    Map,
    Operation,
    Parallel,
    Reduce,
    Repeat,
    Step,
    Task,
    Tool,
    default_measure,
    walk,
)
from mkspy.types import BOOLEAN, INTEGER, REQUIRED, TEXT, Field, List, Literal, Record, parse, to_text

LINE = Record("Line", (Field("sku", TEXT), Field("count", INTEGER)))
QUESTION = {"question": "text"}
SEARCH = Tool("search", {"query": "text"}, Field("passages", List(TEXT)))  # pyright: ignore[reportArgumentType]


def step(name: str, inputs: str, outputs: str, **rest: Any) -> Step:
    """A step written as DSPy writes signatures: `a: text, b -> c`."""
    return Step(name, _fields(inputs), _fields(outputs), **rest)


def _fields(text: str) -> tuple[Field, ...]:
    pairs = [each.partition(":") for each in text.split(";")]
    return tuple(Field(name.strip(), parse(type.strip() or "text")) for name, _, type in pairs)


def said(operation: Operation) -> str:
    sides = (operation.inputs, operation.outputs)
    return " -> ".join(", ".join(f"{each.name}: {to_text(each.type)}" for each in side) for side in sides)


SUMMARISE = step("summarise", "chapter; reader", "point")
JUDGE = step("judge", "passage; question", "good: boolean")
WEAVE = step("weave", "so_far; point", "longer")
IMPROVE = step("improve", "draft; notes", "better; done: boolean")


@pytest.mark.parametrize(
    ("operation", "contract"),
    [
        (step("ask", "question", "answer; sure: boolean"), "question: text -> answer: text, sure: boolean"),
        (Classify("sort", _fields("message"), ("a", "b c")), 'message: text -> label: "a" | "b c"'),
        (
            Classify("sort", _fields("message"), ("a", "b"), "topics", multiple=True),
            'message: text -> topics: list["a" | "b"]',
        ),
        (Extract("read", _fields("document"), LINE), "document: text -> record: Line"),
        (
            Extract("read", _fields("document"), LINE, "lines", many=True),
            "document: text -> lines: list[Line]",
        ),
        (SEARCH, "query: text -> passages: list[text]"),
        (Tool("now", (), Field("today", parse("date"))), " -> today: date"),
        (Free("solve", _fields("question"), _fields("answer")), "question: text -> answer: text"),
        (
            Map("each", SUMMARISE, ("chapter", "chapters"), (("point", "points"),)),
            "chapters: list[text], reader: text -> points: list[text]",
        ),
        (
            Filter("keep", JUDGE, ("passage", "passages"), "good", "evidence"),
            "passages: list[text], question: text -> evidence: list[text]",
        ),
        (
            Reduce("tell", WEAVE, ("point", "points"), ("longer", "so_far"), "", "summary"),
            "points: list[text] -> summary: text",
        ),
        (
            Repeat("polish", IMPROVE, 3, (("better", "draft"),), "done"),
            "draft: text, notes: text -> better: text, done: boolean",
        ),
        (
            Chain(
                step("phrase", "question", "query"),
                SEARCH,
                step("answer", "question; passages: list[text]", "answer"),
            ),
            "question: text -> query: text, passages: list[text], answer: text",
        ),
        (
            Parallel(step("one", "given: text", "a"), step("two", "given: text | null; more", "b: integer")),
            "given: text, more: text -> a: text, b: integer",
        ),
        (
            Branch(
                Field("kind", Literal(("x", "y"))),
                (
                    ("x", step("one", "given", "answer: integer")),
                    ("y", step("two", "other", "answer: text; extra")),
                ),
            ),
            'kind: "x" | "y", given: text, other: text -> answer: integer | text',
        ),
        (
            Branch(
                Field("kind", TEXT), (("x", step("one", "given", "answer")),), step("two", "given", "answer")
            ),
            "kind: text, given: text -> answer: text",
        ),
        (
            Branch(Field("sure", BOOLEAN), ((True, step("one", "a", "b")), (False, step("two", "a", "b")))),
            "sure: boolean, a: text -> b: text",
        ),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else value[:40],
)
def test_an_operation_is_a_function_of_fields(operation: Operation, contract: str) -> None:
    assert said(operation) == contract


def test_two_readers_of_one_name_want_what_suits_both() -> None:
    together = Parallel(
        step("one", "given: text | integer", "a"), step("two", 'given: "x" | boolean | text', "b")
    )

    assert said(together) == "given: text -> a: text, b: text"


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: step("answer", "a", "a"), "Step 'answer'\\) gives a, which it takes as well"),
        (lambda: Step("answer", (), _fields("a")), "has no inputs"),
        (lambda: Step("answer", _fields("a"), ()), "has no outputs"),
        (lambda: step("answer", "a; a", "b"), "two fields 'a'"),
        (lambda: Step("answer", (Field("a", TEXT, default="x"),), _fields("b")), "'a' has a default"),
        (lambda: step("forward", "a", "b"), "cannot be called 'forward'"),
        (lambda: step("two words", "a", "b"), "letters, digits and underscores"),
        (lambda: step("answer", "a", "b", instructions="\ud800"), "surrogate"),
        (lambda: step("answer", "a", "b", strategy="guess"), "strategy 'guess'; there are auto, predict"),
        (lambda: step("answer", "a", "b", strategy="react"), "react and no tools"),
        (lambda: step("answer", "a", "b", strategy="predict", tools=("search",)), "predict does not call"),
        (lambda: step("answer", "a", "b", tools=("search", "search")), "tool 'search' twice"),
        (lambda: step("answer", "a", "b", max_iters=0), "max_iters 0; it is from 1 to 100"),
        (lambda: step("answer", "error", "b", strategy="program_of_thought"), "a field 'error' of its own"),
        (lambda: Step("answer", {"a": "txt"}, _fields("b")), "did you mean 'text'"),
        (lambda: Step("answer", {"values": "text"}, _fields("b")), "'values' means something"),
        (lambda: Classify("sort", _fields("a"), ("only",)), "needs two or more"),
        (lambda: Classify("sort", _fields("a"), ("x", " ")), "needs two or more, as text"),
        (lambda: Classify("sort", _fields("a"), ("x", "x")), "label 'x' twice"),
        (lambda: Classify("sort", _fields("a"), ("x", "\ud800")), "as text"),
        (lambda: Classify("sort", _fields("a"), ("x", "y"), "keys"), "'keys' means something"),
        (lambda: Extract("read", _fields("record"), LINE), "gives record, which it takes"),
        (lambda: Tool("search", _fields("a"), Field("b", TEXT), module="os"), "a function of your own"),
        (lambda: Tool("search", _fields("a"), Field("b", TEXT), module="a-b"), "named like `tools`"),
        (lambda: Tool("finish", _fields("a"), Field("b", TEXT)), "cannot be called 'finish'"),
        (lambda: Chain(), "Chain\\) has no steps"),
        (
            lambda: Chain(step("x", "a", "b"), step("x", "b", "c")),
            "process\\[1\\] \\(Step 'x'\\) has the name of process\\[0\\]",
        ),
        (lambda: Parallel(step("x", "a", "b")), "has 1 branches"),
        (lambda: Parallel(step("x", "a", "b"), step("y", "b", "c")), "gives b, which it takes as well"),
        (lambda: Parallel(step("x", "a", "b"), step("y", "a: integer", "c")), "no value is both"),
        (
            lambda: Parallel(step("x", "a", "b"), step("x", "a", "c")),
            "parallel\\[1\\] \\(Step 'x'\\) has the name of",
        ),
        (lambda: Branch(Field("k", TEXT), ()), "Branch on 'k'\\) has no cases"),
        (lambda: Branch(Field("k", TEXT), (("x", step("x", "a", "b")),)), "no case for the rest of text"),
        (lambda: Branch(Field("k", Literal(("x", "y"))), (("x", step("x", "a", "b")),)), 'no case for "y"'),
        (lambda: Branch(Field("k", BOOLEAN), ((True, step("x", "a", "b")),)), "no case for false"),
        (lambda: Branch(Field("k", Literal(("x",))), (("z", step("x", "a", "b")),)), "case 'z', but k is"),
        (lambda: Branch(Field("k", Literal((1,))), ((True, step("x", "a", "b")),)), "case True, but k is 1"),
        (
            lambda: Branch(Field("k", TEXT), (("x", step("x", "a", "b")), ("x", step("y", "a", "b")))),
            "two cases 'x'",
        ),
        (
            lambda: Branch(Field("k", Literal(("x",))), (("x", step("x", "a", "b")),), step("y", "a", "b")),
            "the otherwise is never used",
        ),
        (
            lambda: Branch(Field("k", BOOLEAN), ((True, step("x", "a", "b")), (False, step("y", "a", "c")))),
            "\\(Step 'y'\\) gives c; process.cases\\[0\\] \\(Step 'x'\\) gives b; cases give the same names",
        ),
        (
            lambda: Map("m", SUMMARISE, ("page", "pages"), (("point", "points"),)),
            "hands page to process.body",
        ),
        (
            lambda: Map("m", SUMMARISE, ("chapter", "chapter"), (("point", "points"),)),
            "calls an item what the list",
        ),
        (
            lambda: Map("m", SUMMARISE, ("chapter", "chapters"), (("gist", "points"),)),
            "wants gist of process.body",
        ),
        (
            lambda: Map("m", SUMMARISE, ("chapter", "chapters"), (("point", "reader"),)),
            "gives reader, which it takes",
        ),
        (lambda: Map("m", SUMMARISE, ("chapter", "chapters"), ()), "Map 'm'\\) has no outputs"),
        (lambda: Map("m", SUMMARISE, "ab", (("point", "points"),)), "a pair of names"),
        (
            lambda: Filter("f", SUMMARISE, ("chapter", "chapters"), "point", "kept"),
            "point, which is text and not boolean",
        ),
        (
            lambda: Reduce("r", WEAVE, ("point", "points"), ("longer", "so_far"), 0, "summary"),
            "0 is not text",
        ),
        (
            lambda: Reduce(
                "r",
                step("add", "sum_so_far: integer; n: integer", "next_sum: number"),
                ("n", "ns"),
                ("next_sum", "sum_so_far"),
                0,
                "total",
            ),
            "wants sum_so_far: integer; process.body \\(Step 'add'\\) gives next_sum: number",
        ),
        (lambda: Repeat("p", IMPROVE, 0, (("better", "draft"),)), "repeats 0 times"),
        (lambda: Repeat("p", IMPROVE, True, (("better", "draft"),)), "repeats True times"),
        (lambda: Repeat("p", IMPROVE, 2, ()), "carries nothing"),
        (lambda: Repeat("p", IMPROVE, 2, (("better", "draft"), ("better", "draft"))), "into one name"),
        (
            lambda: Repeat("p", IMPROVE, 2, (("better", "draft"),), "better"),
            "decides by better, which is text",
        ),
        (lambda: Repeat("p", IMPROVE, 2, (("done", "draft"),)), "wants draft: text; process.body"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_operation_that_cannot_be_says_why(make: Callable[[], Operation], problem: str) -> None:
    with pytest.raises(BadSpec, match=problem):
        make()


def test_what_is_nested_without_end_is_refused() -> None:
    operation: Operation = step("innermost", "given", "x_0")
    for at in range(29):
        operation = Parallel(operation, step(f"beside_{at}", "given", f"y_{at}"))

    with pytest.raises(BadSpec, match="30 operations deep"):
        Parallel(operation, step("one_more", "given", "z"))


def test_a_tool_may_be_called_at_two_places_and_is_still_one() -> None:
    cases = (
        (True, Chain(step("ask", "a", "query"), SEARCH)),
        (False, Chain(step("copy_it", "a", "query"), SEARCH)),
    )

    chosen = Branch(Field("sure", BOOLEAN), cases)

    assert [each.name for each in chosen.outputs] == ["query", "passages"]


def test_walking_names_every_place() -> None:
    loop = Map(
        "m", Chain(SUMMARISE, step("shorten", "point", "gist")), ("chapter", "chapters"), (("gist", "gists"),)
    )
    process = Chain(loop, Parallel(step("x", "gists: list[text]", "b"), step("y", "gists: list[text]", "c")))

    assert [path for path, _ in walk(process)] == [
        "process",
        "process[0]",
        "process[0].body",
        "process[0].body[0]",
        "process[0].body[1]",
        "process[1]",
        "process[1].parallel[0]",
        "process[1].parallel[1]",
    ]


# --- tools from Python --------------------------------------------------------------------------------------


def weather(city: str, days: int = 3, *, unit: str | None = None) -> list[str]:
    """Tell the weather of the next days.

    From the nearest station.
    """
    return [city] * days + [unit or ""]


def untyped(city, days: int) -> str:  # type: ignore[no-untyped-def]
    return city * days


def silent(city: str):  # type: ignore[no-untyped-def]
    return city


def many(*cities: str) -> str:
    return "".join(cities)


def odd(city: bytes) -> str:
    return str(city)


def test_a_python_function_is_a_tool_by_its_annotations_and_docstring() -> None:
    tool = Tool.of(weather, into="forecast")

    assert said(tool) == "city: text, days: integer, unit: text | null -> forecast: list[text]"
    assert [each.default for each in tool.inputs] == [REQUIRED, 3, None]
    assert (tool.name, tool.description) == ("weather", "Tell the weather of the next days.")
    assert tool.module == weather.__module__


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (untyped, "of what type 'city' is"),
        (silent, "what it returns"),
        (many, r"takes \*cities: str"),
        (odd, "no type for"),
    ],
)
def test_a_function_that_does_not_say_what_it_takes_is_no_tool(function: Any, problem: str) -> None:
    with pytest.raises(BadSpec, match=problem):
        Tool.of(function)


# --- tasks --------------------------------------------------------------------------------------------------


def task(**changes: Any) -> Task:
    """A small task, changed."""
    given: dict[str, Any] = {
        "name": "ask",
        "description": "Answer a question.",
        "inputs": {"question": "text"},
        "outputs": {"answer": "text"},
    }
    return Task(**{**given, **changes})


def test_a_task_without_a_process_is_its_contract() -> None:
    inputs = (Field("question", TEXT, "What one asks."), Field("tone", TEXT, default="kind"))
    free = task(inputs=inputs).operation

    assert free == Free(
        "ask", (inputs[0], Field("tone", TEXT)), (Field("answer", TEXT),), "Answer a question."
    )


def test_the_process_may_take_more_and_give_less_than_the_task_says() -> None:
    process = step("answer_it", "question: text | null", 'answer: "yes" | "no"')

    assert task(process=process).operation is process


RAG = Chain(
    step("phrase", "question", "query"), SEARCH, step("read", "question; passages: list[text]", "answer")
)
LOOP = Map("m", step("x", "item", "out"), ("item", "list_of"), (("out", "outs"),))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"description": "  "}, "has no description"),
        ({"description": "\ud800"}, "surrogate"),
        ({"name": "two words"}, "cannot be called 'two words'"),
        ({"inputs": {}}, "has no inputs"),
        ({"outputs": {"question": "text"}}, "gives question, which it takes"),
        ({"outputs": (Field("answer", TEXT, default="x"),)}, "'answer' has a default"),
        (
            {"inputs": {"q": "text"}, "process": RAG},
            r"process\[0\] \(Step 'phrase'\) wants question: text, but nothing",
        ),
        (
            {"inputs": {"question": "integer"}, "process": RAG},
            r"process\[0\] \(Step 'phrase'\) wants question: text; inputs gives question: integer",
        ),
        ({"outputs": {"reply": "text"}, "process": RAG}, "outputs has reply, but process"),
        (
            {"outputs": {"answer": "integer"}, "process": RAG},
            r"outputs wants answer: integer; process\[2\] \(Step 'read'\) gives answer: text",
        ),
        (
            {"process": step("read", "question", "answer", tools=("search",))},
            "names the tool 'search'; tools has none",
        ),
        ({"tools": (SEARCH, SEARCH)}, "one tool twice"),
        (
            {"tools": (Tool("search", _fields("query"), Field("found", TEXT)),), "process": RAG},
            "is another tool than",
        ),
        ({"inputs": {"question": "text", "search": "text"}, "process": RAG}, "has the name of a field"),
        (
            {
                "inputs": {"question": "text", "list_of": "list[text]", "item": "text"},
                "process": Chain(LOOP, step("read", "question; outs: list[text]", "answer")),
            },
            r"process\[0\] \(Map 'm'\) gives item, and so does inputs",
        ),
        (
            {
                "inputs": {"question": "text", "list_of": "list[text]"},
                "process": Chain(LOOP, step("read", "question; outs: list[text]", "answer; out")),
            },
            r"process\[1\] \(Step 'read'\) gives out, and so does process\[0\].body",
        ),
        (
            {"outputs": (Field("answer", LINE), Field("more", Record("Line", (Field("a", TEXT),))))},
            "two different records",
        ),
        (
            {"examples": (Example({"question": 1}, {"answer": "a"}),)},
            r"examples\[0\].inputs.question: 1 is not text",
        ),
        ({"examples": (Example({}, {"answer": "a"}),)}, r"examples\[0\].inputs lacks question: text"),
        ({"examples": (Example({"question": "a"}, {"reply": "b"}),)}, "has 'reply'; the outputs are answer"),
        ({"metric": (("reply", "exact"),)}, "measures 'reply', which is not among the outputs"),
        ({"metric": (("answer", "roughly"),)}, "by 'roughly'; there are exact"),
        ({"metric": (("answer", "close"),)}, "by close, which text cannot be"),
        ({"metric": (("answer", "items"),)}, "no list"),
        ({"metric": (("answer", "f1"), ("answer", "exact"))}, "one output twice"),
        ({"constraints": ("\ud800",)}, "constraints: .* surrogate"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_task_that_cannot_be_says_why(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(BadSpec, match=problem):
        task(**changes)


def test_an_example_may_leave_out_what_has_a_default_or_can_be_null() -> None:
    inputs = (Field("question", TEXT), Field("tone", TEXT, default="kind"))
    examples = (Example({"question": "a"}, {}),)

    assert task(inputs=inputs, outputs={"answer": "text | null"}, examples=examples).examples == examples


@pytest.mark.parametrize(
    ("type", "measure"),
    [
        ("text", "f1"),
        ("text | null", "f1"),
        ('"a" | "b"', "exact"),
        ("boolean", "exact"),
        ("number", "close"),
        ("integer | null", "close"),
        ("list[text]", "items"),
        ("date", "exact"),
        ("null", "exact"),
        ("json", "exact"),
        ("code", "exact"),
    ],
)
def test_an_output_is_measured_by_its_type_unless_the_task_says(type: str, measure: str) -> None:
    assert default_measure(parse(type)) == measure
    assert task(outputs={"answer": type}).measures == (("answer", measure),)
    assert task(metric=(("answer", "contains"),)).measures == (("answer", "contains"),)


def test_a_record_may_have_fields_that_a_step_may_not() -> None:
    record = Record("Basket", (Field("items", List(TEXT)), Field("values", INTEGER)))

    assert task(outputs=(Field("basket", record),)).records == {"Basket": record}


def test_the_records_of_a_task_stand_in_the_order_they_need_each_other() -> None:
    order = Record("Order", (Field("lines", List(LINE)), Field("note", TEXT)))

    assert list(task(outputs=(Field("order", order),)).records) == ["Line", "Order"]
