"""Text as HTML: what Markdown, formulas and code look like, and that nothing else comes out, whatever goes in."""

import gc
import re
import time
from html.parser import HTMLParser
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotate.api import formulas, highlight, render
from annotate.api.render import CLASSES, MOST_TAGS, TAGS, to_html, turns_to_html
from tests.hostile import ATTACKS, Attack

LINK = {"target": "_blank", "rel": "noopener noreferrer nofollow"}


OTHERS = {"a": {"href"}, "ol": {"start"}, "p": {"data-length"}, "math": {"alttext"}}


class Harmless(HTMLParser):
    """Says what in some HTML is not on our own list, which is written here once more, by hand."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.wrong: list[str] = []
        self.depth = self.deepest = 0
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in TAGS:
            self.wrong.append(f"<{tag}>")
        for name, value in attrs:
            if not self.allowed(tag, name, value or ""):
                self.wrong.append(f"<{tag} {name}={value!r}>")
        if tag not in ("br", "hr"):
            self.depth += 1
            self.deepest = max(self.depth, self.deepest)

    def handle_endtag(self, tag: str) -> None:
        self.depth -= 1

    def allowed(self, tag: str, name: str, value: str) -> bool:
        if name == "class":
            return set(value.split()) <= CLASSES.get(tag, set())
        if name == "href":
            return urlsplit(value).scheme in ("http", "https", "mailto") and value.isascii()
        if name in LINK:
            return value == LINK[name]
        if name in ("start", "data-length"):
            return name in OTHERS.get(tag, ()) and value.isdigit()
        if name == "data-language":
            return tag == "pre" and value in highlight.LANGUAGES
        return name in OTHERS.get(tag, ()) or value in formulas.ATTRIBUTES.get(tag, {}).get(name, ())

    def handle_comment(self, data: str) -> None:
        self.wrong.append(f"<!--{data}")

    def handle_decl(self, decl: str) -> None:
        self.wrong.append(f"<!{decl}")

    unknown_decl = handle_decl

    def handle_pi(self, data: str) -> None:
        self.wrong.append(f"<?{data}")


# Overrides, embeddings, controls, what is invisible: never as they are, wherever they come from.
HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2060\u206a-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]")


def check(html: str) -> None:
    found = Harmless(html)
    assert found.wrong == []
    assert found.depth == 0, "every element that begins ends"
    assert found.deepest < 300 and html.count("<") <= MOST_TAGS
    assert not HIDDEN.search(html)
    html.encode()


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_no_attack_leaves_anything_but_harmless_elements(attack: Attack) -> None:
    check(to_html(attack.text))


@pytest.mark.parametrize(
    "around", ["> {}", "- {}", "|a|\n|-|\n|{}|", "```html\n{}\n```", "$\\text{{{}}}$", "[{}](http://a.b)"]
)
def test_no_attack_gets_further_inside_of_something(around: str) -> None:
    for attack in ATTACKS:
        check(to_html(around.format(attack.text[:20_000])))


@given(st.text())
@settings(max_examples=300, deadline=None)
def test_no_text_at_all_leaves_anything_but_harmless_elements(text: str) -> None:
    check(to_html(text))


PIECES = [
    "<script>",
    "$",
    "$$",
    "\\(",
    "\\)",
    "\\[",
    "\\]",
    "`",
    "```html\n",
    "\n",
    "\n\n",
    "|",
    "|-|\n",
    "*",
    "[",
    "](",
    ")",
]
PIECES += [
    "javascript:",
    "\\text{",
    "}",
    "\u202e",
    "\u200d",
    "a\u0300\u0300\u0300",
    "<!--",
    "&#x202e;",
    "- ",
    "> ",
    "a",
    "\\style{",
    "&",
]


@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join))
@settings(max_examples=500, deadline=None)
def test_no_mixture_leaves_anything_but_harmless_elements(text: str) -> None:
    check(to_html(text))


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("**bold** `code`", "<p><strong>bold</strong> <code>code</code></p>\n"),
        ("<b onclick=x>hi</b>", "<p>&lt;b onclick=x&gt;hi&lt;/b&gt;</p>\n"),
        ("```\n<i>\n```", "<pre><code>&lt;i&gt;\n</code></pre>\n"),
        ("[x](javascript:alert(1))", "<p>[x](javascript:alert(1))</p>\n"),
        (
            "[x](https://a.example)",
            '<p><a href="https://a.example" target="_blank" rel="noopener noreferrer nofollow">x</a></p>\n',
        ),
        (
            "[x](/logout)",
            '<p><a target="_blank" rel="noopener noreferrer nofollow">x</a></p>\n',
        ),  # leads nowhere of ours
        ("<!-- note -->", "<p>&lt;!-- note --&gt;</p>\n"),
        ("line one\nline two", "<p>line one<br>\nline two</p>\n"),
        ("~~gone~~", "<p><s>gone</s></p>\n"),
        ("", ""),
    ],
)
def test_markdown(text: str, html: str) -> None:
    assert to_html(text) == html


def test_markdown_drops_nothing_that_is_nested() -> None:
    lists = "\n".join("  " * depth + f"- item {depth}" for depth in range(30))
    assert "item 29" in to_html(lists) and "deep" in to_html("> " * 40 + "deep")
    assert "deep" in to_html("> " * 200 + "deep")


def test_no_image_is_loaded() -> None:
    assert "<img" not in to_html("![cat](https://a.example/cat.png)") and "cat" in to_html("![cat](https://a.example)")


# --- formulas ---


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("so $x^2$ is", '<p>so <math alttext="x^2"><mrow><msup><mi>x</mi><mn>2</mn></msup></mrow></math> is</p>'),
        (r"so \(a<b\) is", '<math alttext="a&lt;b"><mrow><mi>a</mi><mo>&lt;</mo><mi>b</mi></mrow></math>'),
        ("函数$f$的", '函数<math alttext="f">'),
        ("$$\nx\n- y\n$$\nmore", '<p><math display="block" alttext="x\n- y"><mrow><mi>x</mi><mo>−</mo><mi>y</mi>'),
        (
            "text\n\\[ x \\]\nmore",
            '<p>text</p>\n<p><math display="block" alttext="x"><mrow><mi>x</mi></mrow></math></p>\n<p>more',
        ),
        ("- a\n  $$\n  x\n  $$\n- b", '<math display="block" alttext="x">'),
        (
            r"$\begin{aligned}a&=b\\c&=d\end{aligned}$",
            '<mtr><mtd columnalign="right"><mi>a</mi></mtd><mtd columnalign="left">',
        ),
        (r"$\boxed{42}$", '<menclose notation="box"><mrow><mn>42</mn></mrow></menclose>'),
        (r"$\mathrm{d}x$", '<mi mathvariant="normal">d</mi><mi>x</mi>'),
        (r"$a\\b$", "<mtr><mtd><mi>b</mi></mtd></mtr>"),
    ],
)
def test_a_formula(text: str, inside: str) -> None:
    assert inside in to_html(text)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "costs $5 and $10",
            "US$5 is 6$",
            "$HOME/bin:$PATH",
            "$20,000-$30,000",
            "price: $$ – $$$",
            "$ a $",
            "$a\n\nb$",
        ),
        *(
            "`$x$`",
            r"\$x\$",
            "```\n$x$\n```",
            "$",
            "$$",
            "$$$$",
            r"\(",
            r"\[ \]",
            r"\[link\](http://a.b)",
            "~~~\n$$\nx\n$$",
        ),
    ],
)
def test_no_formula(text: str) -> None:
    assert "<math" not in to_html(text)


@pytest.mark.parametrize(
    "source",
    [
        *(
            r"\def\a{\a\a}\a",
            r"\newcommand{\a}{b}\a",
            r"\htmlClass{x}{y}",
            r"\includegraphics{x.png}",
            r"\frac{1}",
            "x_{",
        ),
        *(r"\unicode{x202e}", "a\u202eb", "{" * 100 + "x" + "}" * 100, r"\url{http://a.b}", r"\left("),
    ],
)
def test_what_is_no_formula_that_can_be_read_stays_as_it_was_written(source: str) -> None:
    html = to_html(f"${source}$")
    assert "<math" not in html and '<code class="formula">$' in html


def test_many_formulas_are_shown_as_far_as_they_take_a_bounded_time() -> None:
    html = to_html("$" + "x" * 99 + "$ " + "$y$ " * 8000)
    assert (1000 < html.count("<math") < formulas.MOST and 'class="formula"' in html) or 'class="long"' in html


@pytest.mark.parametrize(
    "source",
    [
        *(
            "x'" * 1000,
            "x_1^2" * 400,
            "x" * 2000,
            "∑" * 2000,
            r"\begin{matrix}" + "&" * 1900 + r"\end{matrix}",
            "{" * 2000,
        ),
        *(r"\frac{1}" * 250, r"{a\choose b}" * 160, r"\left(" * 300, r"\sqrt[" * 300, r"\begin{matrix}" * 140),
    ],
)
def test_no_formula_takes_long(source: str) -> None:
    formulas.to_mathml("x", block=True)  # imports what it needs
    gc.collect()  # the garbage of all tests before is none of this one's time
    gc.disable()
    try:
        began = time.process_time()
        formulas.to_mathml(source[: formulas.LONGEST], block=True)
        took = time.process_time() - began
    finally:
        gc.enable()
    assert took < 0.3


# --- code ---


def test_code_has_the_colours_of_its_language() -> None:
    html = to_html("```python title=x\ndef f():\n    return 'x'  # why\n```")
    assert html.startswith('<pre data-language="Python"><code><span class="code-keyword">def')
    assert "<span class=\"code-string\">'x'" in html and '<span class="code-comment"># why' in html
    assert re.sub("<[^>]+>", "", html) == "def f():\n    return 'x'  # why\n\n"


@pytest.mark.parametrize("info", ["", "nonsense", "<script>", 'python"onclick=x', "../python", "text", "__proto__"])
def test_code_of_no_known_language_is_plain(info: str) -> None:
    assert to_html(f"```{info}\nif x: pass\n```") == "<pre><code>if x: pass\n</code></pre>\n"


def test_long_code_is_plain() -> None:
    html = to_html("```python\n" + "x = 1\n" * 5000 + "```")
    assert 'data-language="Python"' in html and "<span" not in html


@pytest.mark.parametrize("language", highlight.LANGUAGES)
def test_every_language_is_known_to_pygments_and_loses_nothing(language: str) -> None:
    code = 'begin "a" \'b\' # c // d\n/* <e> */ (f: 1.5) [g] {h} @i $j %k <l m="n">&amp; -- o\n\tend;\n'
    assert re.sub("<[^>]+>", "", highlight.coloured(code, language)).count("&lt;e&gt;") == 1


# --- characters ---


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\u202eb", 'a<span class="odd">U+202E</span>b'),
        ("a&#x202e;b", 'a<span class="odd">U+202E</span>b'),
        ("\x1b[31mred", '<span class="odd">U+001B</span>[31mred'),
        ("a\u200bb", 'a<span class="odd">U+200B</span>b'),
        ("a" + "\U000e0041" * 40, 'a<span class="odd">U+E0041 ×40</span>'),
        ("`a\u2067b`", '<code>a<span class="odd">U+2067</span>b</code>'),
        ("\ufeffa", "a"),
        ("a\ud800b", "a\ufffdb"),
        ("a" + "\u0301" * 50, "a" + "\u0301" * 4 + '<span class="odd">U+0301 ×46</span>'),
    ],
)
def test_what_hides_or_reorders_is_shown(text: str, shown: str) -> None:
    assert to_html(text) == f"<p>{shown}</p>\n"


@pytest.mark.parametrize(
    "text",
    [
        *("👩‍👩‍👧 👨🏽‍💻 ❤️‍🔥 🏳️‍🌈 1️⃣", "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"),
        *("می\u200cخواهم", "क\u094d\u200dष", "สวัสดี\u200bครับ", "Straßen\xadbahn", "\u2067עברית\u2069 \u200f(a)"),
        *("Tiê\u0301\u0323ng", "בְּרֵאשִׁ֖ית", "葛\U000e0100", "नमस्ते", "བསྒྲུབས"),
    ],
)
def test_what_languages_need_stays(text: str) -> None:
    assert to_html(text) == f"<p>{text}</p>\n"


# --- much ---

MUCH = {
    **{
        f"a million of {text!r}": text * (1_000_000 // len(text))
        for text in ("a", "a ", "a\n", "\n", "[", "`", "*", "> ", "<")
    },
    **{
        f"a million of {text!r}": text * (1_000_000 // len(text))
        for text in ("\u200b", "a\u200b", "a\u0300\u0300", "你", "$x$ ")
    },
    "ten thousand tables": "|a|\n|-|\n|b|\n\n" * 10_000,
    "a thousand tables": "|a|\n|-|\n|b|\n\n" * 1000,
    "a table that fills itself up": "|" + "a|" * 50 + "\n|" + "-|" * 50 + "\n" + "|\n" * 20_000,
    "deep lists": "\n".join("  " * depth + "- a" for depth in range(200)),
    "deep emphasis": "*" * 20_000 + "a" + "*" * 20_000,
    "backticks": " ".join("`" * number for number in range(1, 300)),
    "brackets": "[" * 4_900,
    "brackets far apart": ("[" + "a" * 9) * 4_900,
    "links": "[a](http://b.c) " * 3_000,
    "references": "[a]: b\n" * 5_000 + "[a]" * 100,
    "entities": "&#x202e;" * 6_000,
    "emphasis": "a**b" * 12_000,
    "list items": "1. a\n" * 9_900,
    "formulas": "$" + "x'" * 900 + "$ " + ("$" + "y^2" * 600 + "$ ") * 25,
    "open formulas": r"\(" * 20_000,
    "dollars": "$a" * 20_000,
    "blocks of formulas": "$$\na\n" * 8_000,
    "fences": "```python\nx = 1\n```\n" * 2_000,
    "code": "```c\n" + "/* a */ int x = 1;\n" * 500 + "```\n",
}


@pytest.mark.parametrize("text", MUCH.values(), ids=MUCH.keys())
def test_any_text_takes_a_bounded_time_and_makes_a_bounded_page(text: str) -> None:
    began = time.process_time()
    html = render._to_html(text)
    assert time.process_time() - began < 1.5  # half a second, and room for a busy machine
    check(html)


def test_a_very_long_text_is_shown_in_pieces_with_its_length() -> None:
    text = "a line of words\n" * 65_536
    html = to_html(text)
    assert html.startswith(
        '<p class="long" data-length="1048576">Plain text; there are 1,048,576 characters in all.</p>'
    )
    pieces = re.findall('<pre class="piece">(.*?)</pre>', html, re.DOTALL)
    assert "".join(pieces) == text and max(map(len, pieces)) <= render.PIECE
    assert all(piece.endswith("\n") for piece in pieces)


def test_of_an_endless_text_the_beginning_is_shown() -> None:
    html = to_html("a" * 3_000_000)
    assert "The first 2,000,000 characters, as plain text; there are 3,000,000" in html
    assert html.count("a" * 100) == 20_000


def test_turns_are_masked_before_they_are_read() -> None:
    turns = [{"role": "assistant", "content": "As **GPT-4** I"}]
    assert turns_to_html(turns, ["gpt-4"]) == [{"role": "assistant", "html": "<p>As <strong>█████</strong> I</p>\n"}]
    assert turns_to_html(turns)[0]["html"] == "<p>As <strong>GPT-4</strong> I</p>\n"


def test_what_is_kept_to_be_shown_again_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = render._Kept()
    monkeypatch.setattr(kept, "SIZE", 1000)
    for number in range(100):
        kept.put(f"text {number}", "html" * 20)
    assert kept.get("text 0") is None and kept.get("text 99") == "html" * 20
    assert kept.size == sum(len(text) + len(html) for text, html in kept.found.items()) <= 1000
