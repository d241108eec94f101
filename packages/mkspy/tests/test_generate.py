"""A task becomes one readable file: what each operation becomes, and that it is right for every task."""

import ast
import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from mkspy import library
from mkspy.check import check
from mkspy.generate import generate
from mkspy.spec import (
    Branch,
    Chain,
    Classify,
    Extract,
    Field,
    Filter,
    Map,
    Operation,
    Parallel,
    Reduce,
    Repeat,
    Step,
    Task,
    Tool,
    load,
    walk,
)
from mkspy.types import AUDIO, BOOLEAN, FILE, TEXT, List, Literal, Record, Type, parse, parts
from running import asks, inputs_of, loaded, named, write_tools
from strategies import tasks

ROOT = Path(__file__).parents[3]
LIBRARY = {name: library.get(name) for name in library.names()}


def fields(**types: str) -> tuple[Field, ...]:
    return tuple(Field(name, parse(type)) for name, type in types.items())


def task_of(process: Operation, **outputs: str) -> Task:
    given = tuple(Field(each.name, each.type) for each in process.inputs)
    wanted = fields(**outputs) or process.outputs
    return Task("work", "Do the work.", given, wanted, process)


def forward(task: Task, *, method: str = "forward") -> str:
    """Return the statements of a program's method, as they are written."""
    source = generate(task, asynchronous=method == "aforward")
    main = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)][-1]
    found = next(node for node in main.body if getattr(node, "name", "") == method)
    lines = source.splitlines()[found.body[0].lineno - 1 : found.end_lineno]
    return "\n".join(line[8:] for line in lines)


# --- what a task becomes ------------------------------------------------------------------------------------

TRIAGE = '''\
# pyright: basic
"""Sort a customer's message, so that it reaches the right team."""

from typing import Literal

import dspy


class Triage(dspy.Signature):
    """Sort a customer's message, so that it reaches the right team."""

    message: str = dspy.InputField()
    team: Literal["billing", "shipping"] = dspy.OutputField()
    urgent: bool = dspy.OutputField(desc="Someone must look at it today.")


class TriageProgram(dspy.Module):
    """Sort a customer's message, so that it reaches the right team."""

    def __init__(self) -> None:
        super().__init__()
        self.triage = dspy.ChainOfThought(Triage)

    def forward(self, message: str) -> dspy.Prediction:
        return self.triage(message=message)


program = TriageProgram()
'''


def test_a_bare_contract_is_one_chain_of_thought() -> None:
    outputs = (
        *fields(team='"billing" | "shipping"'),
        Field("urgent", BOOLEAN, "Someone must look at it today."),
    )
    description = "Sort a customer's message, so that it reaches the right team."

    assert generate(Task("triage", description, fields(message="text"), outputs)) == TRIAGE


def test_a_bare_contract_with_tools_is_an_agent() -> None:
    tool = Tool("search", fields(query="text"), Field("passages", List(TEXT)), module="shop.tools")
    task = Task("agent", "Answer.", fields(question="text"), fields(answer="text"), tools=(tool,))

    source = generate(task)

    assert "from shop.tools import search" in source
    assert "self.agent = dspy.ReAct(Agent, tools=[search], max_iters=5)" in source


@pytest.mark.parametrize(
    ("step", "built"),
    [
        (Step("ask", fields(a="text"), fields(b="text")), "dspy.ChainOfThought(Ask)"),
        (Step("ask", fields(a="text"), fields(b="text"), strategy="predict"), "dspy.Predict(Ask)"),
        (
            Step("ask", fields(a="text"), fields(b="text"), strategy="program_of_thought", max_iters=2),
            "dspy.ProgramOfThought(Ask, max_iters=2)",
        ),
        (Classify("ask", fields(a="text"), ("x", "y")), "dspy.Predict(Ask)"),
        (Extract("ask", fields(a="text"), Record("Line", fields(sku="text"))), "dspy.Predict(Ask)"),
    ],
)
def test_each_step_stands_on_its_rung_of_the_ladder(step: Operation, built: str) -> None:
    assert f"self.ask = {built}" in generate(task_of(step))


SUMMARIZE = Step("summarize", fields(document="text"), fields(summary="text", title="text"))
JUDGE = Step("judge", fields(heading="text"), fields(good="boolean"))
FOLD = Step("fold", fields(part="text", so_far="text"), fields(whole="text"))
ANSWER = Step("answer", fields(question="text"), fields(reply="text"))
CALM = Step("calm", fields(question="text"), fields(reply="text"))
FACTS = Step("find_facts", fields(text="text"), fields(facts="list[text]"))
RISKS = Step("find_risks", fields(text="text"), fields(risks="list[text]"))
REVISE = Step("revise", fields(draft="text"), fields(better="text", done="boolean"))
SEARCH = Tool("search", fields(query="text"), Field("passages", List(TEXT)))
EACH_DOCUMENT = ("document", "documents")

RENDERED = {
    "chain": (
        task_of(
            Chain(SEARCH, Step("answer", fields(query="text", passages="list[text]"), fields(reply="text")))
        ),
        ["reply", "passages"],
        "passages = search(query=query)\n"
        "reply = self.answer(query=query, passages=passages).reply\n"
        "return dspy.Prediction(passages=passages, reply=reply)",
    ),
    "chain that ends in what is wanted": (
        task_of(
            Chain(SEARCH, Step("answer", fields(query="text", passages="list[text]"), fields(reply="text"))),
            reply="text",
        ),
        [],
        "passages = search(query=query)\nreturn self.answer(query=query, passages=passages)",
    ),
    "map": (
        task_of(Map("each", SUMMARIZE, EACH_DOCUMENT, (("summary", "summaries"),))),
        [],
        "summaries = [self.summarize(document=document).summary for document in documents]\n"
        "return dspy.Prediction(summaries=summaries)",
    ),
    "map of two": (
        task_of(Map("each", SUMMARIZE, EACH_DOCUMENT, (("summary", "summaries"), ("title", "titles")))),
        [],
        "summaries = []\ntitles = []\nfor document in documents:\n"
        "    summarize = self.summarize(document=document)\n"
        "    summaries.append(summarize.summary)\n    titles.append(summarize.title)\n"
        "return dspy.Prediction(summaries=summaries, titles=titles)",
    ),
    "filter": (
        task_of(Filter("keep", JUDGE, ("heading", "headings"), "good", "kept")),
        [],
        "kept = [heading for heading in headings if self.judge(heading=heading).good]\n"
        "return dspy.Prediction(kept=kept)",
    ),
    "reduce": (
        task_of(Reduce("join", FOLD, ("part", "texts"), ("whole", "so_far"), "", "story")),
        [],
        'story = ""\nfor part in texts:\n    story = self.fold(part=part, so_far=story).whole\n'
        "return dspy.Prediction(story=story)",
    ),
    "parallel": (
        task_of(Parallel(FACTS, RISKS)),
        [],
        "parallel = dspy.Parallel(num_threads=2, max_errors=1, disable_progress_bar=True)\n"
        "find_facts, find_risks = parallel(\n    [\n"
        '        (self.find_facts, {"text": text}),\n        (self.find_risks, {"text": text}),\n    ],\n)\n'
        "return dspy.Prediction(facts=find_facts.facts, risks=find_risks.risks)",
    ),
    "branch on a boolean": (
        task_of(Branch(Field("angry", BOOLEAN), ((True, CALM), (False, ANSWER)))),
        [],
        "reply = self.calm(question=question).reply if angry else self.answer(question=question).reply\n"
        "return dspy.Prediction(reply=reply)",
    ),
    "branch on a label": (
        task_of(Branch(*fields(mood='"calm" | "angry"'), (("calm", ANSWER), ("angry", CALM)))),
        [],
        'match mood:\n    case "calm":\n        reply = self.answer(question=question).reply\n'
        "    case _:\n        reply = self.calm(question=question).reply\n"
        "return dspy.Prediction(reply=reply)",
    ),
    "repeat": (
        task_of(Repeat("improve", REVISE, 3, (("better", "draft"),), "done"), better="text"),
        [],
        "revise = self.revise(draft=draft)\nfor _ in range(2):\n    if revise.done:\n        break\n"
        "    revise = self.revise(draft=revise.better)\nreturn dspy.Prediction(better=revise.better)",
    ),
}


@pytest.mark.parametrize("case", RENDERED)
def test_each_operation_reads_as_a_person_would_write_it(case: str) -> None:
    task, _, written = RENDERED[case]

    assert forward(task) == written


def test_aforward_awaits_what_forward_calls() -> None:
    parallel = Chain(
        SEARCH, Parallel(FACTS, Tool("count", fields(text="text"), Field("words", parse("integer"))))
    )

    assert forward(task_of(parallel), method="aforward") == (
        "passages = await asyncio.to_thread(search, query=query)\n"
        "find_facts, words = await asyncio.gather(\n"
        "    self.find_facts.acall(text=text),\n    asyncio.to_thread(count, text=text),\n)\n"
        "return dspy.Prediction(passages=passages, facts=find_facts.facts, words=words)"
    )
    assert forward(RENDERED["map"][0], method="aforward").startswith(
        "summaries = [(await self.summarize.acall(document=document)).summary for document in documents]"
    )


def test_what_is_called_as_a_whole_is_a_module_of_its_own() -> None:
    risky = Chain(RISKS, Step("weigh", fields(risks="list[text]"), fields(weight="integer")))
    task = task_of(Parallel(FACTS, risky))

    source = generate(task)

    assert "class WeightBranch(dspy.Module):" in source
    assert "self.weight_branch = WeightBranch()" in source
    with loaded(source, task) as program:
        assert {"find_facts", "weight_branch", "find_risks", "weigh"} <= named(program)


def test_a_default_that_has_to_be_made_is_made_for_each_call() -> None:
    inputs = (
        *fields(text="text"),
        Field("tags", List(TEXT), default=["a"]),
        Field("top", parse("integer"), default=3),
    )
    source = generate(Task("work", "Do it.", inputs, fields(reply="text")))

    assert (
        "def forward(self, text: str, tags: list[str] | None = None, top: int = 3) -> dspy.Prediction:"
        in source
    )
    assert 'if tags is None:\n            tags = ["a"]' in source


def test_a_record_has_its_defaults_and_what_may_be_left_out() -> None:
    day, note = Field("day", parse("date"), default="2026-03-31"), Field("note", parse("text | null"))
    line = Record(
        "Line", (Field("sku", TEXT, "Its number."), day, note, Field("count", parse("integer"), default=1))
    )
    task = task_of(Extract("read", fields(text="text"), line, "line"))

    source = generate(task)

    assert 'sku: str = Field(description="Its number.")' in source
    assert 'day: datetime.date = Field(default="2026-03-31", validate_default=True)' in source
    assert "note: str | None = None\n    count: int = 1\n" in source
    undescribed = Task("work", "Do it.", fields(text="text"), (Field("line", Record("Line", (day,))),))
    assert "from pydantic import BaseModel, Field" in generate(undescribed)
    assert check(generate(undescribed), undescribed).findings == ()


def test_constraints_are_told_to_whoever_gives_an_answer() -> None:
    process = Chain(RISKS, Step("tell", fields(risks="list[text]"), fields(reply="text"), "Tell them."))
    task = Task(
        "work", "Do it.", fields(text="text"), fields(reply="text"), process, constraints=("Be\nshort.",)
    )

    source = generate(task)

    assert source.count("Constraints:") == 1
    assert '"""Tell them.\n\n    Constraints:\n    - Be short.\n    """' in source


# --- and that it is right -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LIBRARY)
@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_each_spec_of_the_library_generates_checks_and_runs(name: str, asynchronous: bool) -> None:
    task = LIBRARY[name]
    source = generate(task, asynchronous=asynchronous)

    assert source == generate(library.get(name), asynchronous=asynchronous)
    assert_runs(task, source, asynchronous=asynchronous)


def assert_runs(task: Task, source: str, *, asynchronous: bool) -> None:
    """Hold that a file passes the gate, shows all its predictors, and gives every output."""
    assert check(source, task).findings == (), source
    with loaded(source, task) as program:
        assert asks(task) <= named(program)
        inputs = inputs_of(task)
        given = asyncio.run(program.acall(**inputs)) if asynchronous else program(**inputs)
    assert {field.name for field in task.outputs} <= set(given.keys())


def may_be_read_as_json(type: Type) -> bool:
    """Tell whether an answer may be a label such as `{x}`, which DSPy takes for broken JSON in a union."""
    labels = type.values if isinstance(type, Literal) else ()
    return any(str(each)[:1] in ("{", "[", '"') for each in labels) or any(
        map(may_be_read_as_json, parts(type))
    )


def starts_with_a_file(task: Task) -> bool:
    """Tell whether a sound or a file is written into a program: DSPy may refuse a spec's text."""
    operations = [each for _, each in walk(task.operation)]
    starts = [each.outputs[0].type for each in operations if isinstance(each, Reduce)]
    return any(holds(type) for type in (*starts, *(each.type for each in task.inputs if not each.required)))


def holds(type: Type) -> bool:
    return type in (AUDIO, FILE) or any(map(holds, parts(type)))


@settings(max_examples=30)
@given(tasks())
def test_every_task_becomes_a_program_that_passes_and_runs(task: Task) -> None:
    assume(not starts_with_a_file(task))
    assume(
        not any(may_be_read_as_json(field.type) for _, each in walk(task.operation) for field in each.outputs)
    )
    for asynchronous in (False, True):
        assert_runs(task, generate(task, asynchronous=asynchronous), asynchronous=asynchronous)


def test_a_program_is_copied_saved_and_loaded(tmp_path: Path) -> None:
    task = LIBRARY["rag"]
    with loaded(generate(task), task) as program:
        predictor = program.predictors()[0]
        predictor.signature = predictor.signature.with_instructions("Be brief.")
        program.save(tmp_path / "program.json")
        other = program.deepcopy()
        other.load(tmp_path / "program.json")

        assert other.predictors()[0].signature.instructions == "Be brief."
        assert other(**inputs_of(task)).keys() == program(**inputs_of(task)).keys()


def some_tasks(number: int) -> list[Task]:
    """Return random tasks, the same ones each time."""
    found: list[Task] = []

    @settings(max_examples=number, deadline=None, derandomize=True, database=None)
    @given(tasks())
    def collect(task: Task) -> None:
        found.append(task)

    collect()
    return found


def test_linters_and_formatters_have_nothing_to_say(tmp_path: Path) -> None:
    written = {**LIBRARY, **{f"random_{number}": task for number, task in enumerate(some_tasks(25))}}
    written |= {f"rendered_{number}": task for number, (task, _, _) in enumerate(RENDERED.values())}
    for name, task in written.items():
        for suffix, asynchronous in (("", False), ("_async", True)):
            path = tmp_path / f"{name}{suffix}.py"
            path.write_text(generate(task, asynchronous=asynchronous), encoding="utf-8")
    config = ROOT / "pyproject.toml"

    for command in (["check", "--no-cache", "--output-format=concise"], ["format", "--no-cache", "--diff"]):
        done = _tool("ruff", *command, "--config", str(config), ".", cwd=tmp_path)
        assert done.returncode == 0, done.stdout[:3000]
    write_tools(tmp_path, *written.values())
    (tmp_path / "pyproject.toml").write_text(_section(config, "[tool.basedpyright]"))
    done = _tool("basedpyright", "--pythonpath", sys.executable, ".", cwd=tmp_path)
    assert done.returncode == 0, done.stdout[:3000]


def _tool(name: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    path = Path(sys.executable).parent / name
    return subprocess.run([path, *arguments], cwd=cwd, capture_output=True, text=True, timeout=120)


def _section(config: Path, header: str) -> str:
    """Return a section of a TOML file without the line that says which files it is about."""
    _, _, rest = config.read_text().partition(header)
    lines = rest.partition("\n[")[0].splitlines()
    return "\n".join([header, *(line for line in lines if not line.startswith("include"))])


def test_the_spec_of_the_page_about_making_becomes_a_program_that_runs() -> None:
    (written,) = re.findall(r"^```toml\n(.*?)^```", (ROOT / "docs/making.md").read_text(), re.M | re.S)
    task = load(written)

    assert_runs(task, generate(task), asynchronous=False)


def test_what_a_task_says_of_a_field_is_told_to_the_steps_that_have_it() -> None:
    source = generate(library.get("rag"))

    assert source.count('desc="Two sentences at most."') == 1
    assert source.count('desc="What an employee wants to know."') >= 2
