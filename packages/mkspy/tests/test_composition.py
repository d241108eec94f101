"""Composing is orthogonal: what a part takes and gives never depends on what stands beside it."""

from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from mkspy.errors import BadSpec
from mkspy.spec import (
    Branch,
    Chain,
    Filter,
    Free,
    Map,
    Operation,
    Parallel,
    Repeat,
    Step,
    Task,
    Tool,
    bindings,
    walk,
)
from mkspy.types import BOOLEAN, TEXT, Field, List, Literal, Type, is_subtype, optional, to_text
from strategies import chains, described, operations, tasks, types, wider


def signature(operation: Operation) -> tuple[tuple[tuple[str, Type], ...], tuple[tuple[str, Type], ...]]:
    inputs, outputs = operation.inputs, operation.outputs
    return tuple((each.name, each.type) for each in inputs), tuple((each.name, each.type) for each in outputs)


def stand_in(operation: Operation, name: str = "stand_in") -> Operation:
    """The bare contract of an operation; tools when nothing comes in, as a model is always given a value."""
    if not operation.inputs:
        return Chain(*(Tool(f"{name}_{each.name}", (), each) for each in operation.outputs))
    return Free(name, operation.inputs, operation.outputs)


SETTINGS = settings(max_examples=25)


@SETTINGS
@given(operations())
def test_what_an_operation_takes_and_gives_is_all_there_is_to_know(operation: Operation) -> None:
    names = [each.name for each in (*operation.inputs, *operation.outputs)]

    assert operation.outputs
    assert len(set(names)) == len(names), described(operation)
    assert all(each.required for each in operation.outputs)
    assert hash(operation) == hash(operation)


@SETTINGS
@given(chains())
def test_how_a_chain_is_grouped_makes_no_difference(steps: tuple[Operation, ...]) -> None:
    a, b, c = steps

    assert Chain(Chain(a, b), c) == Chain(a, Chain(b, c)) == Chain(a, b, c) == Chain(Chain(a, b, c))
    assert signature(Chain(Chain(a, b), c)) == signature(Chain(a, Chain(b, c)))


@SETTINGS
@given(chains())
def test_a_group_stands_for_its_steps_by_its_contract_alone(steps: tuple[Operation, ...]) -> None:
    a, b, c = steps
    group = Chain(b, c)

    with_group, with_contract = Chain(a, group), Chain(a, stand_in(group))

    assert dict(signature(with_group)[1]) == dict(signature(with_contract)[1])
    assert dict(signature(with_group)[0]) == dict(signature(with_contract)[0])


@SETTINGS
@given(operations(), operations())
def test_what_stands_beside_an_operation_does_not_change_it(one: Operation, other: Operation) -> None:
    other = _renamed(other)

    together = Parallel(one, other)

    assert signature(together)[0] == signature(one)[0] + signature(other)[0]
    assert signature(together)[1] == signature(one)[1] + signature(other)[1]
    assert {*signature(Chain(one, other))[0]} == {*signature(Chain(other, one))[0]}
    assert {*signature(Chain(one, other))[1]} == {*signature(Parallel(other, one))[1]}


def _renamed(operation: Operation) -> Operation:
    """The contract of an operation under names that nothing else has."""
    inputs = [replace(each, name=f"other_{each.name}") for each in operation.inputs] or [Field("other", TEXT)]
    return Free(
        "other", tuple(inputs), tuple(replace(each, name=f"o_{each.name}") for each in operation.outputs)
    )


@SETTINGS
@given(chains())
def test_a_step_is_replaced_by_any_other_of_the_same_contract(steps: tuple[Operation, ...]) -> None:
    whole = Chain(*steps)

    for at, step in enumerate(steps):
        replaced = Chain(*steps[:at], stand_in(step), *steps[at + 1 :])

        assert signature(replaced) == signature(whole)


@SETTINGS
@given(chains(), st.data())
def test_a_step_is_replaced_by_one_that_takes_more_and_gives_less(
    steps: tuple[Operation, ...], data: st.DataObject
) -> None:
    first, *rest = steps
    assume(first.inputs)
    inputs = tuple(replace(each, type=data.draw(wider(each.type))) for each in first.inputs)

    whole = Chain(Free("tolerant", inputs, first.outputs), *rest)

    assert {each.name for each in whole.inputs} == {each.name for each in Chain(*steps).inputs}
    assert signature(whole)[1] == signature(Chain(*steps))[1]


@SETTINGS
@given(operations(depth=1))
def test_a_loop_lifts_the_contract_of_its_body_and_nothing_else(body: Operation) -> None:
    assume(body.inputs)
    item, *others = body.inputs
    loop = Map(
        "loop",
        body,
        (item.name, "all_of_them"),
        tuple((each.name, f"all_{each.name}") for each in body.outputs),
    )

    assert signature(loop) == signature(Map("loop", stand_in(body), loop.each, loop.into))
    assert signature(loop)[0] == (
        ("all_of_them", List(item.type)),
        *((each.name, each.type) for each in others),
    )
    assert signature(loop)[1] == tuple((f"all_{each.name}", List(each.type)) for each in body.outputs)


@SETTINGS
@given(operations(depth=1))
def test_a_filter_gives_what_it_takes(judge: Operation) -> None:
    assume(judge.inputs)
    keep = Chain(judge, Step("decide", judge.outputs, (Field("keep", BOOLEAN),)))
    item = judge.inputs[0]

    found = Filter("choose", keep, (item.name, "all_of_them"), "keep", "kept")

    assert found.outputs == (Field("kept", List(item.type), item.description),)


@SETTINGS
@given(operations(depth=1))
def test_repeating_something_once_is_doing_it(body: Operation) -> None:
    assume(body.inputs)
    inside = Chain(body, Step("improve", body.inputs[:1], (replace(body.inputs[0], name="improved"),)))

    loop = Repeat("loop", inside, 1, (("improved", body.inputs[0].name),))

    assert signature(loop) == signature(inside)


@SETTINGS
@given(operations(depth=1), types(3), types(3))
def test_a_branch_gives_what_any_of_its_cases_could(one: Operation, first: Type, second: Type) -> None:
    cases = [
        Step(name, (Field("given", TEXT),), (Field("result", type),))
        for name, type in (("a", first), ("b", second))
    ]

    found = Branch(Field("choice", Literal(("x",))), (("x", Chain(one, cases[0])),))
    both = Branch(Field("choice", BOOLEAN), ((True, Chain(one, cases[0])), (False, cases[1])))

    assert "result" in {each.name for each in found.outputs}
    assert [each.name for each in both.outputs] == ["result"]
    assert all(is_subtype(type, both.outputs[0].type) for type in (first, second))


@SETTINGS
@given(types(3), st.data())
def test_what_several_take_together_suits_each_of_them(type: Type, data: st.DataObject) -> None:
    wanted = [data.draw(wider(type)) for _ in range(2)]
    steps = [
        Step(f"s_{at}", (Field("given", each),), (Field(f"o_{at}", TEXT),)) for at, each in enumerate(wanted)
    ]

    for together in (Parallel(*steps), Chain(*steps)):
        assert [each.name for each in together.inputs] == ["given"]
        assert is_subtype(type, together.inputs[0].type)
        assert all(is_subtype(together.inputs[0].type, each) for each in wanted)


# --- what does not fit --------------------------------------------------------------------------------------


@SETTINGS
@given(operations(), types(), st.data())
def test_what_does_not_fit_fails_and_names_both_sides_and_both_places(
    giver: Operation, type: Type, data: st.DataObject
) -> None:
    given = data.draw(st.sampled_from(giver.outputs))
    assume(not is_subtype(given.type, type))
    reader = Step("reader", (Field(given.name, type),), (Field("answer", TEXT),))

    with pytest.raises(BadSpec) as caught:
        Chain(giver, reader)

    message = str(caught.value)
    assert f"(Step 'reader') wants {given.name}: {to_text(type)}" in message
    assert f"gives {given.name}: {to_text(given.type)}" in message
    assert [place.path for place in caught.value.places] == [
        f"process[{_steps(giver)}]",
        _giver(giver, given.name),
    ]


def _steps(operation: Operation) -> int:
    return len(operation.steps) if isinstance(operation, Chain) else 1


def _giver(operation: Operation, name: str) -> str:
    steps = operation.steps if isinstance(operation, Chain) else (operation,)
    at = next(at for at, step in enumerate(steps) if name in {each.name for each in step.outputs})
    return f"process[{at}]"


@SETTINGS
@given(tasks())
def test_a_task_without_an_input_that_its_process_wants_says_who_wants_it(task: Task) -> None:
    assume(task.process is not None and len(task.inputs) > 1)
    missing, *others = task.inputs
    assume(missing.name in {each.name for each in task.operation.inputs})

    with pytest.raises(BadSpec) as caught:
        replace(task, inputs=tuple(others), examples=())

    assert f"wants {missing.name}: " in str(caught.value)
    assert "nothing before it gives that" in str(caught.value)
    assert caught.value.places[0].path.startswith("process")


@SETTINGS
@given(tasks(), st.data())
def test_a_task_that_promises_what_its_process_does_not_give_says_so(task: Task, data: st.DataObject) -> None:
    assume(task.process is not None)
    output = data.draw(st.sampled_from(task.outputs))
    given = next(each.type for each in task.operation.outputs if each.name == output.name)
    wanted = data.draw(types())
    assume(not is_subtype(given, wanted))

    with pytest.raises(BadSpec) as caught:
        replace(task, outputs=(Field(output.name, wanted),), examples=(), metric=())

    assert f"outputs wants {output.name}: {to_text(wanted)}" in str(caught.value)
    assert f"gives {output.name}: {to_text(given)}" in str(caught.value)


@SETTINGS
@given(tasks())
def test_a_name_means_one_thing_in_a_task(task: Task) -> None:
    given = [each.name for each in task.inputs]
    given += [name for name, _ in bindings(task.operation)]
    names = [getattr(each, "name", "") for _, each in walk(task.operation)]

    assert len(set(given)) == len(given)
    assert len({name for name in names if name}) == len([name for name in names if name])


@SETTINGS
@given(operations(), st.data())
def test_two_steps_that_give_one_name_are_refused(operation: Operation, data: st.DataObject) -> None:
    twice = data.draw(st.sampled_from(operation.outputs))
    again = Step("again", (Field("unheard_of", TEXT),), (Field(twice.name, TEXT),))

    for compose in (Chain, Parallel):
        with pytest.raises(BadSpec, match=f"gives {twice.name}, and so does"):
            compose(operation, again)


@SETTINGS
@given(operations())
def test_a_step_that_wants_what_comes_later_is_refused(operation: Operation) -> None:
    early = Step("early", (operation.outputs[0],), (Field("answer", TEXT),))

    with pytest.raises(BadSpec, match=f"wants {operation.outputs[0].name}, which .* gives later"):
        Chain(early, operation)


@given(types())
def test_null_does_not_go_where_a_value_is_wanted(type: Type) -> None:
    assume(not is_subtype(optional(type), type))
    giver = Step("giver", (Field("question", TEXT),), (Field("found", optional(type)),))
    reader = Step("reader", (Field("found", type),), (Field("answer", TEXT),))

    with pytest.raises(BadSpec, match="it can be null"):
        Chain(giver, reader)
