"""The 54 completions on which `dspy.streaming.StreamListener` was measured (docs: 23 exact, 21 wrong)."""

from typing import NamedTuple


class Case(NamedTuple):
    name: str
    adapter: str  # Chat, JSON or XML
    outputs: str  # the outputs of the signature, as DSPy writes them
    completion: str


ANSWER = "answer: str"
ANSWER_TAIL = "answer: str, tail: str"
CODE = "import numpy as np\nm = np.array([[1, 2], [3, 4]])\nif f:\n    print(m[0][1])"
JSON_CODE = CODE.replace("\n", "\\n")
DONE = "\n\n[[ ## completed ## ]]\n"


def _chat(name: str, value: str, outputs: str = ANSWER) -> Case:
    return Case(f"chat {name}", "Chat", outputs, f"[[ ## answer ## ]]\n{value}{DONE}")


def _whole(name: str, completion: str, outputs: str = ANSWER) -> Case:
    adapter = {"chat": "Chat", "json": "JSON", "xml": "XML"}[name.split()[0]]
    return Case(name, adapter, outputs, completion)


CASES = (
    _chat("plain prose", "The capital is Paris. It is big."),
    _chat("first field of two", "because of x\n\n[[ ## tail ## ]]\nParis", ANSWER_TAIL),
    _chat("markdown link", "See [docs](http://x.y/z) and x[0] = y[1] [note]."),
    _chat("code with [[ ]]", CODE),
    _chat("long array after [", f"v = [[{', '.join(map(str, range(30)))}]]"),
    _chat("mid-line header text", "Use the marker [[ ## foo ## ]] inline. Then go on."),
    _chat("[[ ## then text", "A heading [[ ## not a header, and then lots of words follow it."),
    _chat("unknown header ends field", "Paris\n[[ ## foo ## ]]\nbar"),
    _whole("chat value on header line", f"[[ ## answer ## ]] Paris{DONE}"),
    _whole("chat no completed marker", "[[ ## answer ## ]]\nParis, no marker"),
    _chat("leading and trailing whitespace", "\n  indented first line\n   second  \n \n"),
    _chat("paragraphs and blank lines", "para one\n\n\npara two\n\n- a\n- b"),
    _chat("trailing spaces on lines", "line one  \nline two\t\nend"),
    _whole("chat CRLF", "[[ ## answer ## ]]\r\none\r\ntwo\r\n\r\n[[ ## completed ## ]]\r\n"),
    _chat("separators of other scripts", "one\u2028two\x0bthree"),
    _whole("chat order swapped", f"[[ ## tail ## ]]\nt\n\n[[ ## answer ## ]]\nParis{DONE}", ANSWER_TAIL),
    _chat("first of two wins", "first\n\n[[ ## answer ## ]]\nsecond"),
    _whole("chat prose before header", f"Sure, here it is:\n\n[[ ## answer ## ]]\nParis{DONE}"),
    _chat("value ends with [1]", "as shown in [1]"),
    _whole(
        "chat [ in previous field",
        f"[[ ## tail ## ]]\na[0]\n\n[[ ## answer ## ]]\nParis [x]{DONE}",
        ANSWER_TAIL,
    ),
    _whole(
        "chat header quoted in previous field",
        f"[[ ## tail ## ]]\nthen [[ ## answer ## ]] is next\n\n[[ ## answer ## ]]\nParis{DONE}",
        ANSWER_TAIL,
    ),
    _chat("emoji and combining", "café 👩\u200d👩\u200d👧 Ω ≠"),
    _chat("empty value", "\n[[ ## tail ## ]]\nx", ANSWER_TAIL),
    _chat("list field", '["a", "b [c]"]', "answer: list[str]"),
    _chat("int field", "42", "answer: int"),
    _whole("json plain", '{"answer": "The capital is Paris."}'),
    _whole("json first of two", '{"answer": "because", "tail": "Paris"}', ANSWER_TAIL),
    _whole("json pretty printed", '{\n  "answer": "Paris is it"\n}\n'),
    _whole("json escapes", r'{"answer": "a\nb \"q\" c\\d \u00e9 \ud83d\ude00"}'),
    _whole("json braces in string", '{"answer": "f(x) { return {a: 1}; } done"}'),
    _whole("json braces, two fields", '{"answer": "if (x) { y } and } {", "tail": "t"}', ANSWER_TAIL),
    _whole("json quoted closing brace", r'{"answer": "say \"}\" or \"},\" ok"}'),
    _whole("json next key in value", '{"answer": "the tail of the dog, tail: x", "tail": "t"}', ANSWER_TAIL),
    _whole("json space before colon", '{"answer" : "Paris"}'),
    _whole("json markdown fence", '```json\n{"answer": "Paris"}\n```'),
    _whole("json prose around", 'Here is the answer:\n{"answer": "Paris"}\nHope it helps!'),
    _whole("json nested key before", '{"meta": {"answer": "no"}, "answer": "yes"}'),
    _whole("json unknown key first", '{"thought": "hm", "answer": "Paris"}'),
    _whole(
        "json object field", '{"answer": {"a": 1, "b": {"c": 2}}, "tail": "t"}', "answer: dict, tail: str"
    ),
    _whole("json list field last", '{"answer": ["a", "b}"]}', "answer: list[str]"),
    _whole("json number", '{"answer": 42, "tail": "t"}', "answer: int, tail: str"),
    _whole("json bool last", '{"answer": true}', "answer: bool"),
    _whole("json single quotes", "{'answer': 'Paris'}"),
    _whole("json code value", f'{{"answer": "{JSON_CODE}", "tail": "t"}}', ANSWER_TAIL),
    _whole("json truncated", '{"answer": "Paris is'),
    _whole("xml plain", "<answer>\nThe capital is Paris.\n</answer>"),
    _whole("xml inline", "<answer>Paris</answer>"),
    _whole("xml entities", "<answer>a &lt; b &amp;&amp; c &gt; d</answer>"),
    _whole("xml escaped tags", "<answer>use &lt;b>x&lt;/b> here</answer>"),
    _whole("xml raw <", "<answer>if a < b then </b></answer>"),
    _whole("xml CDATA", "<answer><![CDATA[a < b]]></answer>"),
    _whole("xml attribute on tag", '<answer type="text">Paris</answer>'),
    _whole("xml nested markup", "<answer>\nhello <b>bold</b> world\n</answer>"),
    _whole("xml list field", "<answer><item>a</item><item>b</item></answer>", "answer: list[str]"),
)

MORE_CASES = (
    _chat("indented header keeps its tail", "x\n   [[ ## tail ## ]] t\nu", ANSWER_TAIL),
    _whole("chat header after wide indent", f"{' ' * 30}[[ ## answer ## ]] t  \nu{DONE}"),
    _chat("header line loses trailing spaces", "x\n[[ ## tail ## ]]  t  \n\n u ", ANSWER_TAIL),
    _chat("unfinished header at the end of a line", "x\n[[ ## tail ##\n]]"),
    _whole("chat unfinished header at the end", "[[ ## answer ## ]]\nx\n  [[ ## ta"),
    _chat("header with a letter too many", "x\n[[ ## tail ## ]\n[[[ ## tail ## ]]\n[[ ## ta il ## ]]"),
    _chat("lone carriage returns", "a\rb\nc\r\r\nd"),
    _chat("whitespace that is no line break", "\xa0x\x1f\n\x1f\u3000y\xa0"),
    _whole("json later key wins", '{"answer": "x", "tail": "t", "answer": "y"}', ANSWER_TAIL),
    _whole("json later object wins", '{"answer": "x"}\n{"answer": "y"}'),
    _whole("json other types in text", '{"answer": null, "tail": [1, {"a": ["}", -2.5e3]}]}', ANSWER_TAIL),
    _whole("json true, float", '{"answer": true, "tail": 1.50 }', ANSWER_TAIL),
    _whole("json other types in unknown keys", '{"a": 1, "b": [{}, "\\"]"], "answer": "x"}'),
    _whole("json lone surrogates", r'{"answer": "\ud83d \ud83d\u0041 \ude00 \ud83d\ud83d\ude00 \ud83d"}'),
    _whole("json surrogate and backslash", r'{"answer": "\ud83d\\ude00 \\ud83d\ude00 \ud83d\n"}'),
    _whole("json escaped key", r'{"\u0061nswer": "x\/y\f"}'),
    _whole("json line breaks in text", '{"answer": "one\n\n  two\t{x}, [1] ", "tail": "a\n"}', ANSWER_TAIL),
    _whole(
        "json line breaks and escapes",
        '{"answer": "one\n\\\\/ \\u00e9 \\/ \\ud83d\\ude00", "tail": "„"}',
        ANSWER_TAIL,
    ),
    _whole("json trailing whitespace", r'{"answer": "x \n ", "tail": "  "}', ANSWER_TAIL),
    _whole("json truncated in whitespace", r'{"answer": "x \n '),
    _whole("json truncated in escape", r'{"answer": "x\ud83d\ude'),
    _whole("json truncated after backslash", '{"answer": "x\\'),
    _whole("json truncated in list", '{"answer": "x", "tail": ["a", "b', ANSWER_TAIL),
    _whole("json truncated in number", '{"tail": "t", "answer": 12', ANSWER_TAIL),
    _whole("json truncated key", '{"answer": "x", "ta'),
    _whole("json trailing comma", '{"answer": "x", }'),
    _whole("json inner quotes", '{"answer": "say "hi" there"}'),
    _whole("json bad escape", r'{"answer": "a\'b \x41"}'),
    _whole("json unquoted key", '{answer: "x"}'),
    _whole("json python literal", '{"answer": None, "tail": "t"}', ANSWER_TAIL),
    _whole("json comment", '{"answer": "x", // why\n "tail": "t"}', ANSWER_TAIL),
    _whole("json missing comma", '{"answer": "x" "tail": "t"}', ANSWER_TAIL),
    _whole("json missing colon", '{"answer" "x", "tail": "t"}', ANSWER_TAIL),
    _whole("json in a list", '[{"answer": "x"}]'),
    _whole("json reference before", 'See [1]: {"answer": "a } b"} end'),
    _whole("json commented prose", '# for {"answer": "no"}\n{"answer": "x"}'),
    _whole("json braces after", '{"answer": "a } b"} and [1]'),
    _whole("json empty texts", '{"answer": "", "tail": ""}', ANSWER_TAIL),
    _whole(
        "json text for another type", '{"answer": "a", "tail": "t"}', "answer: Literal['a', 'b'], tail: str"
    ),
    _whole("json optional absent", '{"tail": "t"}', "answer: Optional[str], tail: str"),
    _whole("xml twice is a list", "<answer>x</answer><tail>t</tail><answer> y <b/></answer>", ANSWER_TAIL),
    _whole("xml twice, children first", "<answer>x<b/></answer><answer>y</answer>"),
    _whole("xml entry with key", '<entry key="answer">x</entry><entry>y</entry>'),
    _whole("xml whitespace before child", "<answer>  x  <b/>  </answer>"),
    _whole("xml whitespace only before child", "<answer>\n<b/>\n</answer>"),
    _whole("xml children", '<answer>a<b c="&lt;&quot;">d &amp; <e/>f</b> &lt; <g>h</g></answer>'),
    _whole("xml comment, instruction", "<answer>a<!-- < --> b <?php x ?>c</answer>"),
    _whole("xml namespaces", '<answer>x <a:b xmlns:a="u" a:c="1">y<a:d/></a:b> z</answer>'),
    _whole("xml inner namespace", '<answer>x <p>y<b xmlns="u"/></p></answer>'),
    _whole("xml language", '<answer>x <p xml:lang="fr">y</p></answer>'),
    _whole("xml same name inside", "<answer>x <answer>y</answer></answer>"),
    _whole("xml empty", "<answer/><tail></tail>", ANSWER_TAIL),
    _whole("xml prose around", "Sure &amp; well:\n<answer>x</answer>\n<other>y</other> done"),
    _whole("xml line ends, references", "<answer>\r\na\r\nb&#10;&#x1F600;]]</answer>".replace("]]<", "] ]<")),
    _whole("xml closes the root", "<answer>x</answer></dspy_root>"),
    _whole("xml unclosed", "<answer>x"),
    _whole(
        "xml object field",
        "<answer>\n  <a>1</a>\n</answer><tail>t</tail>",
        "answer: dict[str, int], tail: str",
    ),
)
