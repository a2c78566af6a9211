"""Texts from outside do nothing to the terminal that they are shown on."""

import pytest

from preferences.errors import BadInput, exit_on_bad_input
from preferences.terminal import on_one_line, shown


def test_what_can_not_be_seen_is_marked() -> None:
    assert on_one_line("red \x1b[31m, title \x9d0;x\x07, \u202eturned\u2066") == "red �[31m, title �0;x�, �turned�"
    assert on_one_line("pass\r\nFAIL\tx\u2028y") == "pass  FAIL x y"
    assert on_one_line("Ünïcödé 名前 👩‍👩‍👧 עברית") == "Ünïcödé 名前 👩‍👩‍👧 עברית"
    assert shown("one\n\x1btwo\n") == "one\n�two\n"
    assert on_one_line("\ud800").encode()


def test_errors_are_shown_so(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit), exit_on_bad_input():
        raise BadInput("http://x/v1: 401: \x1b]0;owned\x07\u202e")
    assert capsys.readouterr().err == "error: http://x/v1: 401: �]0;owned��\n"
