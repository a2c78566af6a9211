"""What there is to translate: every sentence of the pages and of the server, found in the code by the way it is marked.

python -m tests.annotate.missing_words de     # what annotate/languages/de.json lacks, as JSON to fill in
python -m tests.annotate.missing_words        # how much each language lacks, and has without need
"""

import ast
import json
import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

from annotate.api.words import LANGUAGES
from annotate.services.refusals import RULES
from annotate.services.rights import WORDS

ANNOTATE = LANGUAGES.parent
STATIC = ANNOTATE / "web" / "static"
PLACE = re.compile(r"\{(\w+)\}")
# Calls whose literal arguments are sentences, and of refusals the second.
SAYS = {"say", "told", "later", "message_page"}
REFUSES = {"Refused", "problem"}
# Where BadInput says what people of the pages meet, not only who works at a command line.
MENDED = ("services/people.py", "services/links.py", "services/tokens.py", "services/projects.py")
_STRING = r'"(?:[^"\\\n]|\\.)*"'
_CALL = re.compile(r"(?<![\w$])(?:t|tn|later)\(")


def used() -> dict[str, str]:
    """Every sentence -> the last of the files in which it stands."""
    found: dict[str, str] = {"English": "annotate/languages"}
    found |= dict.fromkeys((title for _, title in RULES.values()), "services/refusals.py")
    found |= dict.fromkeys(WORDS.values(), "services/rights.py")
    for file in sorted(STATIC.rglob("*.js")):
        found |= dict.fromkeys(of_script(file.read_text(encoding="utf-8"), file.name), file.name)
    for file in sorted(STATIC.rglob("*.html")):
        found |= dict.fromkeys(of_page(file.read_text(encoding="utf-8")), file.name)
    for file in sorted([*ANNOTATE.glob("api/*.py"), *ANNOTATE.glob("services/*.py"), *ANNOTATE.glob("web/*.py")]):
        name = str(file.relative_to(ANNOTATE))
        found |= dict.fromkeys(of_python(file.read_text(encoding="utf-8"), mended=name in MENDED), name)
    return {sentence: name for sentence, name in found.items() if is_sentence(sentence)}


def is_sentence(text: str) -> bool:
    """Whether there is something to translate: words, and not those that a command line says."""
    return bool(re.search(r"[A-Za-z]", PLACE.sub("", text))) and "`annotate" not in text and "--" not in text


def of_script(text: str, name: str = "") -> Iterator[str]:
    """The strings in the first argument of t, tn and later; of `a ? b : c` those behind the question mark."""
    text = re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE)
    for call in _CALL.finditer(text):
        if text[: call.start()].endswith("function "):
            continue
        argument = _first_argument(text[call.end() :])
        assert "`" not in argument, f"{name}: a sentence is a plain string: {argument}"
        _, asked, answers = argument.partition("?")
        for string in re.findall(_STRING, answers if asked and not argument.startswith('"') else argument):
            yield json.loads(string)


def _first_argument(text: str) -> str:
    depth, within = 0, False
    for at, sign in enumerate(text):
        if sign == '"' and text[at - 1] != "\\":
            within = not within
        elif not within and sign in "([{":
            depth += 1
        elif not within and (sign == "," or sign in ")]}") and depth == 0:
            return text[:at]
        elif not within and sign in ")]}":
            depth -= 1
    return text


class _Page(HTMLParser):
    """Collects what `data-t` and its like mark."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.waits = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        own = dict(attrs)
        self.waits = "data-t" in own
        for mark, attribute in (("label", "aria-label"), ("title", "title"), ("placeholder", "placeholder")):
            if f"data-t-{mark}" in own:
                self.found.append(own[attribute] or "")

    def handle_data(self, data: str) -> None:
        if self.waits and data.strip():
            self.found.append(" ".join(data.split()))
            self.waits = False


def of_page(text: str) -> list[str]:
    page = _Page()
    page.feed(text)
    return page.found


def of_python(text: str, *, mended: bool = False) -> Iterator[str]:
    """The sentences that Python code says or refuses with; `mended`: and what its BadInputs say."""
    for function in _functions(ast.parse(text)):
        for call in _calls(function):
            name = getattr(call.func, "id", getattr(call.func, "attr", ""))
            if name in SAYS:
                for argument in call.args:
                    yield from _sentences(argument, function)
            elif name in REFUSES and len(call.args) > 1:
                yield from _sentences(call.args[1], function)
            elif name == "BadInput" and mended:
                for said in _sentences(call.args[0], function):
                    yield said[:1].upper() + said[1:] + "."


def _functions(tree: ast.Module) -> Iterator[ast.AST]:
    """Each function by itself, and the module without them, so that names are looked up where they belong."""
    inner = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    yield from inner
    yield ast.Module([node for node in tree.body if not isinstance(node, ast.FunctionDef | ast.ClassDef)], [])


def _calls(function: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(function) if isinstance(node, ast.Call))


def _sentences(node: ast.expr, function: ast.AST) -> Iterator[str]:
    """The strings that an expression may be; a name is looked up where the function gives it a value."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield _with_places(node)
    elif isinstance(node, ast.IfExp):
        yield from _sentences(node.body, function)
        yield from _sentences(node.orelse, function)
    elif isinstance(node, ast.Dict):
        for value in node.values:
            yield from _sentences(value, function)
    elif isinstance(node, ast.Subscript):
        yield from _sentences(node.value, function)
    elif isinstance(node, ast.Name):
        for other in ast.walk(function):
            if isinstance(other, ast.Assign) and any(getattr(to, "id", "") == node.id for to in other.targets):
                yield from _sentences(other.value, function)


def _with_places(node: ast.JoinedStr) -> str:
    """An f-string as a sentence with places, each named after the last name in its expression."""
    made = ""
    for part in node.values:
        if isinstance(part, ast.FormattedValue):
            names = re.findall(r"[a-z_]+", ast.unparse(part.value).lower())
            made += f"{{{names[-1] if names else 'value'}}}"
        else:
            assert isinstance(part, ast.Constant)
            made += str(part.value)
    return made


def read(language: Path) -> dict[str, str]:
    return json.loads(language.read_text(encoding="utf-8"))


def main(words: list[str]) -> None:
    sentences = used()
    for code in words:
        has = read(LANGUAGES / f"{code}.json") if (LANGUAGES / f"{code}.json").exists() else {}
        lacks = {sentence: "" for sentence in sorted(sentences) if sentence not in has}
        print(json.dumps(lacks, ensure_ascii=False, indent=2))
    if not words:
        for file in sorted(LANGUAGES.glob("*.json")):
            has = read(file)
            print(f"{file.stem}: lacks {len(sentences.keys() - has.keys())} of {len(sentences)} sentences", end="")
            print(f", has {len(has.keys() - sentences.keys())} that nothing says")


if __name__ == "__main__":
    main(sys.argv[1:])
