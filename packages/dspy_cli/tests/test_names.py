"""Names: what becomes a directory, a package, a class, and what is refused."""

import keyword
import sys
from contextlib import suppress

import pytest
from dspy_cli.errors import BadName
from dspy_cli.project import names
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("text", "package"),
    [("demo", "demo"), ("my-app", "my_app"), ("MyApp", "myapp"), ("a1_b2", "a1_b2"), ("x" * 40, "x" * 40)],
)
def test_a_project_has_a_package_named_after_it(text: str, package: str) -> None:
    assert (text, package) == names.project(text)


@pytest.mark.parametrize(
    ("text", "class_name", "file"),
    [
        ("triage", "Triage", "triage"),
        ("ask-docs", "AskDocs", "ask_docs"),
        ("AskDocs", "AskDocs", "ask_docs"),
        ("QABot", "QABot", "qa_bot"),
        ("list", "List", "list"),
        ("v2", "V2", "v2"),
    ],
)
def test_a_program_has_a_class_and_a_file_named_after_it(text: str, class_name: str, file: str) -> None:
    assert (class_name, file) == names.program(text)


@pytest.mark.parametrize(
    ("text", "problem", "suggestion"),
    [
        ("", "it is empty", "'my-app'"),
        ("../x", "it is a path", "'x'"),
        ("/tmp/x", "it is a path", "'tmp-x'"),
        ("a\\b", "it is a path", "'a-b'"),
        ("c:x", "it is a path", "'c-x'"),
        ("~root", "it is a path", "'root'"),
        ("..", "it has a dot in it", "'my-app'"),
        ("a.b", "it has a dot in it", "'a-b'"),
        ("3d-app", "it begins with a digit", "'my-3d-app'"),
        ("my app", "it has a space in it", "'my-app'"),
        ("-x", "it begins like an option", "'x'"),
        ("_x", "a hyphen or underscore stands at an end", "'x'"),
        ("x-", "a hyphen or underscore stands at an end", "'x'"),
        ("a--b", "a hyphen or underscore stands at an end", "'a-b'"),
        ("café", "characters in it that a package cannot have", "'cafe'"),
        ("a\n", "it has a space in it", "'a'"),
        ("a;rm", "characters in it that a package cannot have", "'a-rm'"),
        ("class", "would hide a word of Python", "'my-class'"),
        ("Class", "would hide a word of Python", "'my-Class'"),
        ("print", "would hide a word of Python", "'my-print'"),
        ("match", "would hide a word of Python", "'my-match'"),
        ("json", "would hide a module of Python's standard library", "'my-json'"),
        ("JSON", "would hide a module of Python's standard library", "'my-JSON'"),
        ("dspy", "would hide a package that every project needs", "'my-dspy'"),
        ("dspy-cli", "would hide a package that every project needs", "'my-dspy-cli'"),
        ("tests", "would hide a package that every project needs", "'my-tests'"),
        ("nul", "would hide a device on Windows", "'my-nul'"),
    ],
)
def test_a_refusal_says_what_is_wrong_and_suggests_a_name(text: str, problem: str, suggestion: str) -> None:
    with pytest.raises(BadName) as refused:
        names.project(text)

    assert problem in str(refused.value)
    assert str(refused.value).rstrip(".").endswith(suggestion)


@pytest.mark.parametrize(
    "text", ["", "a/b", "1a", "class", "import", "Any", "Literal", "ValueError", "DummyLM"]
)
def test_a_program_may_not_hide_what_its_files_need(text: str) -> None:
    with pytest.raises(BadName, match=r"would hide|is not a program's name"):
        names.program(text)


@pytest.mark.parametrize("make", [names.project, names.program])
def test_a_long_name_is_refused(make: type) -> None:
    with pytest.raises(BadName, match="has 41 characters; expected 40 at most"):
        make("x" * 41)


@given(st.text() | st.from_regex(r"[\w./\\-]{1,50}"))
def test_what_is_accepted_is_a_package_that_hides_nothing(text: str) -> None:
    with suppress(BadName):
        package = names.project(text).package
        assert package.isidentifier()
        assert package.isascii()
        assert not keyword.iskeyword(package)
        assert package not in sys.stdlib_module_names


@given(st.text(min_size=1))
def test_what_is_suggested_is_accepted(text: str) -> None:
    try:
        names.project(text)
    except BadName as refused:
        if len(text) <= names.MAX_CHARACTERS:
            suggested = str(refused).rpartition(" '")[2].rstrip("'.")
            assert names.project(suggested)


@given(st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,20}", fullmatch=True))
def test_a_program_can_be_imported_by_its_names(text: str) -> None:
    try:
        class_name, file = names.program(text)
    except BadName:
        return
    assert class_name.isidentifier()
    assert not keyword.iskeyword(class_name)
    assert file.isidentifier()
    assert not keyword.iskeyword(file)
    assert names.program(file).file == file
