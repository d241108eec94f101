"""What a parser says of a field, joined, is what the adapter reads; the adapter itself is the judge."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from statistics import median
from time import process_time

import dspy
import pytest
from field_cases import ANSWER_TAIL, CASES, MORE_CASES, Case
from hypothesis import given, settings
from hypothesis import strategies as st
from streamll.core.fields import ChatParser, Delta, FieldParser, JsonParser, XmlParser

ADAPTERS = {"Chat": dspy.ChatAdapter(), "JSON": dspy.JSONAdapter(), "XML": dspy.XMLAdapter()}
PARSERS: dict[str, Callable[[Mapping[str, bool]], FieldParser]] = {
    "Chat": ChatParser,
    "JSON": JsonParser,
    "XML": XmlParser,
}
TWO_TEXTS = {"answer": True, "tail": True}


def said(adapter: str, fields: Mapping[str, bool], chunks: Iterable[str]) -> list[Delta]:
    parser = PARSERS[adapter](fields)
    return [delta for deltas in (*map(parser.feed, chunks), parser.close()) for delta in deltas]


def joined(deltas: Iterable[Delta]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for delta in deltas:
        texts[delta.field] = delta.text if delta.reset else texts.get(delta.field, "") + delta.text
    return texts


def cut(text: str, at: Iterable[int]) -> list[str]:
    return [text[start:end] for start, end in pairwise([0, *sorted(at), len(text)])]


def read(adapter: str, outputs: str, completion: str) -> dict[str, str] | None:
    """The str fields as DSPy reads them; None if it refuses."""
    signature = dspy.Signature(f"question -> {outputs}")
    try:
        values = ADAPTERS[adapter].parse(signature, completion)
    except Exception:  # noqa: BLE001 - each adapter refuses in its own way
        return None
    return {name: values[name] for name, is_text in texts_of(outputs).items() if is_text}


def texts_of(outputs: str) -> dict[str, bool]:
    signature = dspy.Signature(f"question -> {outputs}")
    return {name: field.annotation is str for name, field in signature.output_fields.items()}


def differences(case: Case, cuts: Iterable[Sequence[int]]) -> list[tuple[Sequence[int], dict[str, str]]]:
    wanted, fields = read(*case[1:]), texts_of(case.outputs)
    found = [(at, joined(said(case.adapter, fields, cut(case.completion, at)))) for at in cuts]
    return [
        (at, texts)
        for at, texts in found
        if wanted is not None and any(texts.get(name, "") != text for name, text in wanted.items())
    ]


@pytest.mark.parametrize("case", [*CASES, *MORE_CASES], ids=lambda case: case.name)
def test_joined_deltas_are_what_the_adapter_reads_wherever_the_completion_is_cut(case: Case) -> None:
    length = len(case.completion)

    cuts = [(), tuple(range(1, length)), *((at,) for at in range(length + 1))]

    assert differences(case, cuts) == []


def test_the_table_has_every_case_that_was_measured() -> None:
    assert len({case.name for case in CASES}) == 54


def _completions(adapter: str) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(PIECES[adapter]) | st.text(max_size=3), max_size=24).map("".join)


_PLAIN = ["a", "word ", " b", "\n", "\n\n", "  ", "\r", "\t", "é😀", "[", "]", "\u2028", "x, y: z"]
PIECES = {
    "Chat": [
        *_PLAIN,
        *("[[ ## answer ## ]]", "\n[[ ## answer ## ]]\n", "\n[[ ## tail ## ]]\n", "\n[[ ## completed ## ]]"),
        *(
            "[[",
            "[[ ##",
            " ## ]]",
            "\n[[ ## ",
            "tail",
            "\n[[ ## tail",
            "\n  [[ ## tail ## ]] x",
            "]]",
            "##",
            " ",
        ),
    ],
    "JSON": [
        *_PLAIN,
        *(
            '{"answer": "',
            '", "tail": "',
            '"}',
            '"',
            "{",
            "}",
            ",",
            ":",
            "\\",
            "'",
            "[1, 2]",
            '["a"]',
            "true",
        ),
        *(
            "\\n",
            '\\"',
            "\\\\",
            "\\/",
            "\\f",
            "\\u00e9",
            "\\ud83d",
            "\\ude00",
            "\\ud83d\\ude00",
            "\\u00",
            "\\x41",
        ),
        *(
            '{"answer": ',
            '"tail": ',
            '"answer": ',
            ', "',
            "```json\n",
            "```",
            "42",
            "null",
            "#",
            "//",
            "„",
            '"x"',
        ),
    ],
    "XML": [
        *_PLAIN,
        *(
            "<answer>",
            "</answer>",
            "<tail>",
            "</tail>",
            "<b>",
            "</b>",
            "<i/>",
            "<answer",
            ">",
            "<",
            "</",
            "/>",
        ),
        *(
            "&amp;",
            "&lt;",
            "&",
            ";",
            "<![CDATA[",
            "]]>",
            "<!--",
            "-->",
            "<?p ?>",
            '<entry key="tail">',
            "</entry>",
        ),
        *('<b c="1">', '<n:b xmlns:n="u">', "</n:b>", "&#10;", "<answer>x</answer>", "<tail>y</tail>"),
    ],
}


@st.composite
def _documents(draw: st.DrawFn, adapter: str) -> str:
    """Completions the adapter mostly accepts, with random text where values and prose go."""
    texts = [draw(_completions(adapter)) for _ in range(4)]
    return {
        "Chat": "{}\n[[ ## answer ## ]]\n{}\n[[ ## tail ## ]]\n{}\n[[ ## completed ## ]]\n{}",
        "JSON": '{}{{"answer": "{}", "tail": "{}"}}{}',
        "XML": "{}<answer>{}</answer><tail>{}</tail>{}",
    }[adapter].format(*texts)


@pytest.mark.parametrize("adapter", ADAPTERS)
@settings(max_examples=250, deadline=None)
@given(data=st.data())
def test_any_completion_in_any_chunks_gives_what_the_adapter_reads_and_never_raises(
    adapter: str, data: st.DataObject
) -> None:
    completion = data.draw(_completions(adapter) | _documents(adapter))
    cuts = [data.draw(st.sets(st.integers(0, len(completion)))) for _ in range(3)]

    assert (
        differences(
            Case("", adapter, ANSWER_TAIL, completion), [(), range(len(completion)), *map(sorted, cuts)]
        )
        == []
    )


@pytest.mark.parametrize("adapter", ADAPTERS)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_where_chunks_are_cut_changes_no_text_the_adapter_accepts(adapter: str, data: st.DataObject) -> None:
    fields = {"answer": True, "tail": False}
    completion = data.draw(_documents(adapter))
    cuts = data.draw(st.sets(st.integers(0, len(completion))))

    whole = joined(said(adapter, fields, [completion]))
    pieces = joined(said(adapter, fields, cut(completion, cuts)))

    assert adapter != "Chat" or whole == pieces
    assert read(adapter, ANSWER_TAIL, completion) is None or whole.get("answer") == pieces.get("answer")


def _write(adapter: str, texts: Mapping[str, str]) -> str:
    if adapter == "JSON":
        return json.dumps(texts)
    signature = dspy.Signature("question -> " + ANSWER_TAIL)
    return ADAPTERS[adapter].format_assistant_message_content(signature, dict(texts))


_NO_LINE_BREAKS = st.characters(
    exclude_characters="[\r\v\f\x1c\x1d\x1e\x85\u2028\u2029", exclude_categories=["Cc", "Cs"]
)


@pytest.mark.parametrize("adapter", ADAPTERS)
@settings(max_examples=100, deadline=None)
@given(answer=st.text(_NO_LINE_BREAKS), tail=st.text(_NO_LINE_BREAKS))
def test_what_an_adapter_writes_is_said_once_in_order_and_without_markup(
    adapter: str, answer: str, tail: str
) -> None:
    deltas = said(adapter, TWO_TEXTS, _write(adapter, {"answer": answer, "tail": tail}))
    strip = str if adapter == "JSON" else str.strip

    assert not any(delta.reset or delta.raw for delta in deltas)
    assert "".join(delta.text for delta in deltas) == strip(answer) + strip(tail)


TEXT = "The answer: it is [1] (or x[[0]]), maybe. 50% = {y} #z / 'q'; é 😀!"
OPENED = [
    ("Chat", "[[ ## answer ## ]]\n|", TEXT),
    ("JSON", '{"answer": "|', TEXT),
    ("XML", "<answer>|", TEXT.replace("]", ")")),  # ]]> is markup
    ("XML", "<answer><b>|", TEXT.replace("]", ")")),
]


@pytest.mark.parametrize(("adapter", "opening", "text"), OPENED)
def test_nothing_waits_that_cannot_be_markup_or_trailing_space(adapter: str, opening: str, text: str) -> None:
    parser = PARSERS[adapter](TWO_TEXTS)
    parser.feed(opening)
    heard = ""

    for end, char in enumerate(text, 1):
        heard += "".join(delta.text for delta in parser.feed(char))

        assert heard.rstrip() == text[:end].rstrip()


@pytest.mark.parametrize(
    ("adapter", "before", "waits", "after", "heard"),
    [
        ("Chat", "[[ ## answer ## ]]\nx\n", "[[ ## ta", "xi]", "\n[[ ## taxi]"),
        ("Chat", "[[ ## answer ## ]]\nx\n", "[[ ## tail ##", " x", "\n[[ ## tail ## x"),
        ("JSON", '{"answer": "x', "\\", "n.", "\n."),
        ("JSON", '{"answer": "x', "\\u00", "e9", "é"),
        ("JSON", '{"answer": "x', "\\ud83d\\ud", "e00", "😀"),
        ("JSON", '{"answer": "x', " \\n", "y", " \ny"),
        ("XML", "<answer>x", "&l", "t;", "<"),
        ("XML", "<answer>x", "]]", "y", "]]y"),
    ],
)
def test_a_beginning_of_markup_waits_until_it_is_decided(
    adapter: str, before: str, waits: str, after: str, heard: str
) -> None:
    parser = PARSERS[adapter](TWO_TEXTS)
    parser.feed(before)

    assert parser.feed(waits) == []
    assert joined(parser.feed(after)) == {"answer": heard}


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_closing_twice_says_nothing_more(adapter: str) -> None:
    parser = PARSERS[adapter](TWO_TEXTS)
    parser.feed(
        {"Chat": "[[ ## answer ## ]]\nx\n[[ ##", "JSON": "{'answer': 'x'", "XML": "<answer>x"}[adapter]
    )

    parser.close()

    assert parser.close() == []


RAW = [
    ("Chat", "[[ ## answer ## ]]\n [1,\n 2] \n[[ ## tail ## ]]\nt", "[1,\n 2]"),
    ("JSON", '{"answer": [1, {"a": "]"} ], "tail": "t"}', '[1, {"a": "]"} ]'),
    ("JSON", '{"answer": "a\\n", "tail": "t"}', '"a\\n"'),
    ("JSON", '{"answer": -1.5e3, "tail": "t"}', "-1.5e3"),
    ("XML", "<answer><item>1</item><item>2</item></answer><tail>t</tail>", "<item>1</item><item>2</item>"),
    ("XML", "<answer> [1, 2] </answer><tail>t</tail>", "[1, 2]"),
]


@pytest.mark.parametrize(("adapter", "completion", "source"), RAW)
def test_a_field_of_another_type_is_said_as_written_and_marked_raw(
    adapter: str, completion: str, source: str
) -> None:
    for chunks in ([completion], list(completion)):
        deltas = said(adapter, {"answer": False, "tail": True}, chunks)

        assert joined(deltas) == {"answer": source, "tail": "t"}
        assert {(delta.field, delta.raw) for delta in deltas} == {("answer", True), ("tail", False)}


def test_a_later_json_key_of_the_same_name_voids_what_was_said() -> None:
    deltas = said("JSON", TWO_TEXTS, ['{"answer": "old", "ans', 'wer": "', 'new"}'])

    assert deltas == [Delta("answer", "old"), Delta("answer", "", reset=True), Delta("answer", "new")]


def test_text_is_taken_back_only_where_nothing_told_that_it_would_be() -> None:
    taken_back = {
        case.name
        for case in (*CASES, *MORE_CASES)
        if read(*case[1:]) is not None
        and any(delta.reset for delta in said(case.adapter, texts_of(case.outputs), case.completion))
    }

    assert taken_back == {
        "json later key wins",
        "json later object wins",
        "json braces after",
        "xml twice is a list",
        "xml nested markup",
        "xml whitespace before child",
        "xml inner namespace",
    }


def test_json_line_breaks_in_texts_are_said_as_they_come_and_never_taken_back() -> None:
    deltas = said("JSON", TWO_TEXTS, '{"answer": "def f(x):\n\treturn {x: [1]}\n", "tail": "two\n\nlines "}')

    assert not any(delta.reset for delta in deltas)
    assert joined(deltas) == {"answer": "def f(x):\n\treturn {x: [1]}", "tail": "two\n\nlines "}


@pytest.mark.parametrize(
    "completion",
    [
        "{" * 3000,
        '{"answer": ' + "[" * 5000,
        '{"answer": ' + "[" * 990 + "]" * 990 + "}",
        "[" * 9000 + "{",
        "{'a" * 50,
    ],
    ids=["braces", "deep", "nested", "array", "broken"],
)
def test_json_that_no_parser_can_follow_is_passed_over(completion: str) -> None:
    joined(said("JSON", TWO_TEXTS, [completion]))


@pytest.mark.parametrize("completion", ["<answer>" * 20_000, "<answer>\ud800", "<answer>\0", "<answer>&no;"])
def test_xml_that_no_parser_can_read_is_passed_over(completion: str) -> None:
    assert joined(said("XML", {"tail": True}, [completion, "<tail>x</tail>"])) == {}


def test_deeply_nested_xml_does_not_raise() -> None:
    depth = 50_000
    completion = "<answer>" + "<b>" * depth + "</b>" * depth + "</answer>"

    said("XML", TWO_TEXTS, [completion])


LONG: dict[str, tuple[str, Callable[[int], str]]] = {
    "chat": ("Chat", lambda n: "[[ ## answer ## ]]\n" + "a [[1]] \n" * (n // 2)),
    "chat, endless header": ("Chat", lambda n: "[[ ## answer ## ]]\n[[ ## " + "abcd" * n),
    "chat, endless space": ("Chat", lambda n: "[[ ## answer ## ]]\na" + "    " * n),
    "json": ("JSON", lambda n: json.dumps({"answer": "ab c" * n})),
    "json, escapes": ("JSON", lambda n: json.dumps({"answer": '"\n' * n})),
    "json, list": ("JSON", lambda n: json.dumps({"other": ["a"] * n})),
    "json, prose": ("JSON", lambda n: "# a " * n + "{"),
    "json, endless key": ("JSON", lambda n: '{"' + "abcd" * n),
    "xml": ("XML", lambda n: "<answer>" + "a &lt; " * (n // 2) + "</answer>"),
    "xml, children": ("XML", lambda n: "<answer>" + "<b>a</b>" * (n // 2) + "</answer>"),
    "xml, endless comment": ("XML", lambda n: "<answer><!--" + "abcd" * n),
    "xml, endless list": ("XML", lambda n: "<answer/>" * (n // 2)),
}


def _seconds(adapter: str, chunks: Sequence[str]) -> float:
    began = process_time()
    said(adapter, TWO_TEXTS, chunks)
    return process_time() - began


@pytest.mark.parametrize("name", LONG)
def test_ten_times_the_chunks_cost_ten_times_the_work(name: str) -> None:
    adapter, write = LONG[name]
    short, long = (cut(text, range(4, len(text), 4)) for text in (write(2_000), write(20_000)))

    ratios = [_seconds(adapter, long) / _seconds(adapter, short) for _ in range(3)]

    assert median(ratios) < 20
