"""A task comes back from a file as it was; a file that holds none says where and why."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mkspy.errors import BadSpec
from mkspy.spec import Chain, Classify, Example, Map, Reduce, Step, Task, Tool, dumps, load
from mkspy.spec import toml as toml_writer
from mkspy.types import BOOLEAN, DATE, JSON, NULL, TEXT, Field, List, Literal, optional, union
from strategies import tasks, texts

TEN_LINES = """\
name = "triage"
description = "Sort a customer's message, so that it reaches the right team."

[inputs]
message = "text"

[outputs]
team = '"billing" | "shipping" | "technical"'
urgent = { type = "boolean", description = "Someone must look at it today." }
"""


def test_ten_lines_are_a_whole_spec() -> None:
    task = load(TEN_LINES)

    assert task.inputs == (Field("message", TEXT),)
    assert task.outputs == (
        Field("team", Literal(("billing", "shipping", "technical"))),
        Field("urgent", BOOLEAN, "Someone must look at it today."),
    )
    assert dumps(task) == TEN_LINES


@settings(max_examples=50)
@given(tasks())
def test_toml_brings_a_task_back_as_it_was(task: Task) -> None:
    text = dumps(task, "toml")

    assert load(text, "toml") == task
    assert dumps(load(text)) == text


@settings(max_examples=30)
@given(tasks())
def test_json_brings_a_task_back_as_it_was(task: Task) -> None:
    assert load(dumps(task, "json"), "json") == task


TREES = st.dictionaries(
    texts(6),
    st.recursive(
        st.booleans()
        | st.integers(-(2**62), 2**62)
        | st.floats(allow_nan=False, allow_infinity=False)
        | texts(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts(6), inner, max_size=3),
        max_leaves=8,
    ),
    max_size=4,
)


@settings(max_examples=100)
@given(TREES)
def test_the_toml_that_is_written_is_read_back_by_tomllib(tree: dict[str, Any]) -> None:
    text = toml_writer.dumps(tree)

    assert tomllib.loads(text) == tree


@settings(max_examples=100)
@given(
    st.dictionaries(st.sampled_from(["process", "body", "cases", "examples", "x"]), TREES | st.lists(TREES))
)
def test_tables_in_sections_are_read_back_too(tree: dict[str, Any]) -> None:
    assert tomllib.loads(toml_writer.dumps(tree)) == tree


# --- where a spec comes from --------------------------------------------------------------------------------


def test_a_spec_is_read_from_a_file_by_its_suffix_or_its_content(tmp_path: Path) -> None:
    task = load(TEN_LINES)
    for name, format in (("a.toml", "toml"), ("a.json", "json"), ("b", "toml"), ("c", "json")):
        (tmp_path / name).write_text(dumps(task, format), encoding="utf-8")

        assert load(tmp_path / name) == task
        assert load(str(tmp_path / name)) == task


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(TEN_LINES, encoding="utf-8-sig")

    assert load(tmp_path / "a.toml") == load(TEN_LINES)


def test_a_file_that_is_not_utf_8_says_in_which_line(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_bytes(b'name = "a"\n# caf\xe9\n')

    with pytest.raises(BadSpec, match=r"line 2"):
        load(tmp_path / "a.toml")


def test_a_file_that_is_not_there_is_the_usual_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('name = "a"\nname = "b"\n', "is no TOML: .*line 2"),
        ('name = "a\n', "is no TOML: .*line 1"),
        ('{"name": }', "is no JSON: .*line 1 column 10"),
        ('{"name": "a", "name": "b"}', "key 'name' twice"),
        ("[" * 100_000 + "\n", "is no|too deeply"),
        ('{"a":' * 100_000, "too deeply"),
        ('{"a": ' + "9" * 5_000 + "}", "is no JSON that can be read"),
        ("#" * 1_000_001 + "\n", "at most 1000000"),
        ("{}", "task has no 'name'"),
        ('name = "a"\n', "task has no 'description'"),
        ('name = 3\ndescription = "a"\n', "name is 3; expected text"),
        ('{"name": "a", "description": "b", "inputs": {}, "outputs": {"a": "text"}}', "has no inputs"),
    ],
    ids=range(12),
)
def test_a_file_that_holds_no_task_says_why(text: str, problem: str) -> None:
    with pytest.raises(BadSpec, match=problem):
        load(text)


# --- what stands in it --------------------------------------------------------------------------------------


def spec(rest: str, *, inputs: str = 'question = "text"', outputs: str = 'answer = "text"') -> str:
    head = 'name = "ask"\ndescription = "Answer."\n'
    return f"{head}{rest.partition('[[')[0]}\n[inputs]\n{inputs}\n[outputs]\n{outputs}\n" + _tables(rest)


def _tables(rest: str) -> str:
    return "".join(rest.partition("[[")[1:])


def test_names_alone_have_the_types_of_what_is_there() -> None:
    task = load(
        spec(
            """
[[process]]
step = "find"
inputs = "question"
outputs = ["notes: list[text]", "hint"]
[[process]]
map = "each_note"
each = { note = "notes" }
into = { gist = "gists" }
body = { step = "shorten", inputs = ["note", "hint"], outputs = ["gist"] }
[[process]]
reduce = "count_up"
each = { one = "gists" }
carry = { more = "so_far" }
start = 0
into = "total"
body = { step = "count", inputs = ["one", "so_far"], outputs = ["more: integer"] }
[[process]]
step = "finish_it"
inputs = ["gists", "total"]
outputs = ["answer"]
"""
        )
    )

    assert task.process == Chain(
        Step("find", {"question": "text"}, {"notes": "list[text]", "hint": "text"}),  # pyright: ignore
        Map(
            "each_note",
            Step("shorten", {"note": "text", "hint": "text"}, {"gist": "text"}),  # pyright: ignore
            ("note", "notes"),
            (("gist", "gists"),),
        ),
        Reduce(
            "count_up",
            Step("count", {"one": "text", "so_far": "integer"}, {"more": "integer"}),  # pyright: ignore
            ("one", "gists"),
            ("more", "so_far"),
            0,
            "total",
        ),
        Step("finish_it", {"gists": "list[text]", "total": "integer"}, {"answer": "text"}),  # pyright: ignore
    )


def test_an_output_alone_has_the_type_that_the_task_gives_it() -> None:
    task = load(
        spec(
            '[[process]]\nfree = "solve"\ninputs = ["question"]\noutputs = ["answer"]\n',
            outputs='answer = \'list["a" | "b"]\'',
        )
    )

    assert task.operation.outputs == (Field("answer", List(Literal(("a", "b")))),)


def test_a_single_table_is_an_operation_and_a_list_is_a_chain() -> None:
    one = load(spec('[[process]]\nstep = "a"\ninputs = ["question"]\noutputs = ["answer"]\n'))
    other = load(
        spec('[[process]]\nstep = "a"\ninputs = ["question"]\noutputs = ["answer"]\n').replace(
            "[[process]]", "[process]"
        )
    )

    assert one.process == Chain(other.process)  # pyright: ignore[reportArgumentType]
    assert isinstance(other.process, Step)


def test_null_comes_through_toml_which_has_none() -> None:
    anything = optional(JSON)
    task = Task(
        "ask",
        "Answer.",
        (Field("question", anything, default=[None, 1]), Field("due", optional(DATE), default=None)),
        (Field("answer", union(TEXT, NULL)),),
        examples=(Example({"question": {"a": [None]}}, {"answer": None}), Example({"question": 1}, {})),
    )

    text = dumps(task)

    assert load(text) == task
    assert 'default_json = "[null, 1]"' in text
    assert 'inputs_json = \'{"question": {"a": [null]}}\'' in text
    assert 'due = { type = "date | null", optional = true }' in text


def test_a_start_that_is_null_comes_through_toml() -> None:
    anything = optional(TEXT)
    body = Step("turn", (Field("one", TEXT), Field("before", anything)), (Field("after", TEXT),))
    loop = Reduce("fold", body, ("one", "several"), ("after", "before"), None, "answer")
    task = Task("ask", "Answer.", (Field("several", List(TEXT)),), (Field("answer", anything),), loop)

    assert 'start_json = "null"' in dumps(task)
    assert load(dumps(task)) == task


def test_dates_may_be_written_as_toml_has_them() -> None:
    task = load(
        spec(
            "[[examples]]\ninputs = { when = 2026-03-01 }\noutputs = { answer = 2026-03-01T10:00:00 }\n",
            inputs='when = "date"',
            outputs='answer = "datetime"',
        )
    )

    assert task.examples == (Example({"when": "2026-03-01"}, {"answer": "2026-03-01T10:00:00"}),)


def test_a_tool_of_the_task_is_called_by_its_name() -> None:
    task = load(
        spec(
            """
[[tools]]
name = "search"
module = "shop.index"
description = "Find it."
inputs = { question = "text" }
output = "answer: text"
[[process]]
tool = "search"
[[process]]
tool = "now"
inputs = {}
output = "today: date"
"""
        )
    )

    tool = Tool("search", (Field("question", TEXT),), Field("answer", TEXT), "Find it.", "shop.index")
    assert task.tools == (tool,)
    assert task.process == Chain(tool, Tool("now", (), Field("today", DATE)))
    assert load(dumps(task)) == task


def test_classes_are_any_text() -> None:
    labels = ('it\'s "both"', "a\nb", "\\", "{}")
    classify = Classify("sort", (Field("question", TEXT),), labels)
    task = Task("ask", "Answer.", classify.inputs, classify.outputs, classify)

    assert load(dumps(task)).process == classify


IO = 'inputs = "question", outputs = "answer"'


@pytest.mark.parametrize(
    ("rest", "problem"),
    [
        ("colour = 3\n", "task has the unknown key 'colour'; there are name"),
        ("descriptoin = 3\n", "did you mean 'description'"),
        ("constraints = [3]\n", r"constraints\[0\] is 3; expected text"),
        ("constraints = true\n", "constraints is True; expected a list"),
        ("metric = { answer = 3 }\n", "metric.answer is 3"),
        ('metric = { answer = "close" }\n', "measures answer by close"),
        ("process = 3\n", "process is 3; expected a table"),
        ("process = {}\n", r"process has the keys \[\]; an operation says one of step"),
        ('process = { step = "a", map = "b" }\n', "says step and map"),
        ('process = { step = "a", outputs = "answer" }\n', "process has no 'inputs'; it needs one"),
        ('process = { step = "a", input = "question" }\n', "no 'inputs'; is 'input' meant to be it"),
        ('process = { stpe = "a" }\n', "did you mean 'step'"),
        ('process = { classify = "a", inputs = "question", labls = [] }\n', "is 'labls' meant to be it"),
        ('process = { step = "a", ' + IO + ", tool_s = 1 }\n", "did you mean 'tools'"),
        (
            'process = { step = "a", inputs = "query", outputs = "answer" }\n',
            r"process.inputs\[0\] wants query",
        ),
        (
            'process = { step = "a", inputs = 3, outputs = "answer" }\n',
            'process.inputs is 3; write `name = "type"`',
        ),
        ('process = { step = "a", inputs = "question: txt", outputs = "answer" }\n', "did you mean 'text'"),
        ('process = { step = "a", ' + IO + ', strategy = "x" }\n', "there are auto"),
        ('process = { step = "a", ' + IO + ', max_iters = "x" }\n', "expected an integer"),
        ('process = { tool = "search" }\n', "calls the tool 'search'; the tools of the task are none"),
        ('process = { extract = "a", inputs = "question", record = "text" }\n', "name of no record"),
        ('process = { extract = "a", inputs = "question", record = "Line" }\n', "'Line' is not known"),
        ('process = { parallel = [{ step = "a", ' + IO + " }] }\n", "has 1 branches"),
        ('process = { branch = ["question", "question"], cases = [] }\n', "process.branch has 2 fields"),
        (
            'process = { branch = "question", cases = [{ when = "a" }] }\n',
            r"process.cases\[0\] has no 'then'",
        ),
        ('process = { map = "m", each = {}, into = { a = "b" }, body = [] }\n', "process.each has 0 names"),
        ('process = { map = "m", each = { a = 1 }, into = { a = "b" }, body = [] }\n', "process.each.a is 1"),
        (
            'process = { map = "m", each = { a = "b" }, into = { a = "b" }, body = [] }\n',
            "process.body .Chain. has no",
        ),
        ("process = " + "{ chain = [" * 40 + "]}" * 40 + "\n", "30 operations deep"),
        ('examples = [{ inputs = { question = "a" } }]\n', r"examples\[0\] has no 'outputs'"),
        (
            "examples = [{ inputs = { question = inf }, outputs = {} }]\n",
            r"examples\[0\].inputs: inf is no value",
        ),
        ('examples = [{ inputs_json = "{", outputs = {} }]\n', r"inputs_json is '\{', which is no JSON"),
        (
            'examples = [{ inputs_json = "3", outputs = {} }]\n',
            r"examples\[0\].inputs is 3; expected a table",
        ),
        (
            "records = { A = { fields = { a = 'B' } }, B = { fields = { b = 'list[A]' } } }\n",
            "itself: A -> B -> A",
        ),
        ("records = { A = { fields = { a = 'Bee' } }, Bees = { fields = { a = 'text' } } }\n", "mean 'Bees'"),
        ("records = { A = { fields = {} } }\n", "records.A: the record 'A' has no field"),
        ("records = { text = { fields = { a = 'text' } } }\n", "cannot be a record"),
        (
            "tools = [{ name = 'search', inputs = 'question', output = 'a: text' }]\n",
            "does not say of what type",
        ),
    ],
)
def test_a_mistake_is_told_by_its_key(rest: str, problem: str) -> None:
    with pytest.raises(BadSpec, match=problem):
        load(spec(rest))


def test_the_place_of_a_mistake_deep_inside_is_its_place_in_the_file() -> None:
    text = spec(
        """
[[process]]
step = "split"
inputs = ["question"]
outputs = ["parts_of: list[text]"]
[[process]]
map = "m"
each = { part = "parts_of" }
into = { sum_of = "answers" }
[[process.body]]
step = "one"
inputs = ["part"]
outputs = ["number_of: integer"]
[[process.body]]
step = "two"
inputs = { number_of = "text" }
outputs = ["sum_of"]
"""
    )

    with pytest.raises(BadSpec) as caught:
        load(text)

    assert str(caught.value) == (
        "process[1].body[1] (Step 'two') wants number_of: text; "
        "process[1].body[0] (Step 'one') gives number_of: integer"
    )


@settings(max_examples=100)
@given(st.text(max_size=60) | TREES.map(toml_writer.dumps) | TREES.map(json.dumps))
def test_any_text_is_a_task_or_a_bad_spec(text: str) -> None:
    with pytest.raises(BadSpec):
        load(text + "\n")
