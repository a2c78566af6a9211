"""Code in colours: tokens by Pygments, as spans of a few classes of our own. A fence says the language; no guess."""

import re
from functools import cache, lru_cache
from html import escape
from typing import Any

from annotate.api.characters import is_odd, shown

LONGEST = 10_000  # characters of one block that is coloured
MOST = 20_000  # of all blocks of one text
LONGEST_LINE = 300
# Some lexers take a time that grows with the square of a run of spaces, of one character, or of bare words.
_RUN = re.compile(r"\s{150}|(.)\1{150}|\b(?:\w++\s++){80}")

# What a page may write over a block: the names that a fence may say (first the one that Pygments knows).
LANGUAGES: dict[str, str] = {
    "Assembly": "nasm asm assembly x86asm",
    "Bash": "bash sh shell zsh console",
    "C": "c h",
    "C#": "csharp cs c#",
    "C++": "cpp c++ cc cxx hpp",
    "Clojure": "clojure clj",
    "CSS": "css",
    "Dart": "dart",
    "Diff": "diff patch",
    "Dockerfile": "docker dockerfile",
    "Elixir": "elixir ex exs",
    "Erlang": "erlang erl",
    "F#": "fsharp f# fs",
    "Fortran": "fortran f90",
    "Go": "go golang",
    "GraphQL": "graphql gql",
    "Haskell": "haskell hs",
    "HTML": "html htm xhtml vue svelte",
    "INI": "ini cfg conf",
    "Java": "java",
    "JavaScript": "javascript js jsx mjs node",
    "JSON": "json jsonc json5 jsonl",
    "Julia": "julia jl",
    "Kotlin": "kotlin kt kts",
    "LaTeX": "tex latex",
    "Lisp": "common-lisp lisp cl elisp",
    "Lua": "lua",
    "Makefile": "make makefile mk",
    "Markdown": "markdown md",
    "MATLAB": "matlab octave",
    "Nginx": "nginx",
    "Objective-C": "objective-c objc objectivec",
    "OCaml": "ocaml ml",
    "Perl": "perl pl",
    "PHP": "php",
    "PowerShell": "powershell ps1 pwsh",
    "Protobuf": "protobuf proto",
    "Python": "python py python3 py3 ipython",
    "R": "r rlang",
    "Ruby": "ruby rb",
    "Rust": "rust rs",
    "Scala": "scala",
    "Scheme": "scheme racket",
    "SCSS": "scss sass less",
    "Solidity": "solidity sol",
    "SQL": "sql mysql postgresql postgres sqlite plsql tsql",
    "Swift": "swift",
    "Terraform": "terraform tf hcl",
    "TOML": "toml",
    "TypeScript": "typescript ts tsx",
    "Verilog": "verilog systemverilog sv",
    "VHDL": "vhdl",
    "XML": "xml svg xsl rss",
    "YAML": "yaml yml",
    "Zig": "zig",
}
_LABELS = {word: label for label, words in LANGUAGES.items() for word in words.split()}
CLASSES = {
    f"code-{kind}"
    for kind in ("comment", "keyword", "type", "name", "string", "number", "meta", "attribute", "added", "removed")
}
# Pygments' types to ours; the most special one that is here counts.
_KINDS = {
    "Comment": "comment",
    "Comment.Preproc": "meta",
    "Keyword": "keyword",
    "Keyword.Type": "type",
    "Literal": "number",
    "Literal.String": "string",
    "Literal.Number": "number",
    "Name.Attribute": "attribute",
    "Name.Builtin": "type",
    "Name.Class": "name",
    "Name.Constant": "number",
    "Name.Decorator": "meta",
    "Name.Exception": "type",
    "Name.Function": "name",
    "Name.Tag": "keyword",
    "Operator.Word": "keyword",
    "Generic.Deleted": "removed",
    "Generic.Heading": "name",
    "Generic.Inserted": "added",
    "Generic.Subheading": "name",
}


def language_of(info: str) -> str | None:
    """The language that a fence's info string names: a key of LANGUAGES, or None."""
    words = info.split(maxsplit=1)
    return _LABELS.get(words[0].lower().strip("{}.,:")) if words else None


def coloured(code: str, language: str) -> str:
    """Code -> HTML of the same code, its tokens in spans with one of CLASSES."""
    if len(code) > LONGEST or max(map(len, code.split("\n"))) > LONGEST_LINE or is_odd(code) or _RUN.search(code):
        return shown(code, code=True)
    runs: list[list[str]] = []  # [kind, text], neighbours of one kind as one
    for _, token, text in _lexer(language).get_tokens_unprocessed(code):
        kind = _kind(token)
        if runs and (runs[-1][0] == kind or text.isspace()):
            runs[-1][1] += text
        else:
            runs.append([kind, text])
    if "".join(text for _, text in runs) != code:
        return shown(code, code=True)
    return "".join(
        f'<span class="code-{kind}">{escape(text, quote=False)}</span>' if kind else escape(text, quote=False)
        for kind, text in runs
    )


@lru_cache(maxsize=1000)
def _kind(token: Any) -> str:
    while token is not None:
        name = str(token).removeprefix("Token.")
        if name in _KINDS:
            return _KINDS[name]
        token = token.parent
    return ""


@cache
def _lexer(language: str) -> Any:
    from pygments.lexers import get_lexer_by_name  # type: ignore[import-untyped]

    # PHP between no tags is PHP, too; for other languages the option says nothing.
    return get_lexer_by_name(LANGUAGES[language].split()[0], startinline=True)
