"""Another tool's file on the owner's page, gzipped: looked at, imported, and what was left out said."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.annotate.conftest import Server
from tests.e2e.conftest import House
from tests.e2e.test_steer import Steered

pytestmark = pytest.mark.browser

ROWS = [
    {"chosen": f"\n\nHuman: {word}?\n\nAssistant: Yes.", "rejected": f"\n\nHuman: {word}?\n\nAssistant: No.", "odd": 1}
    for word in ("First", "Second")
]


def test_another_tools_file_is_chosen_by_its_format(
    page: Any, server: Server, house: House, sign_in: Callable, tmp_path: Path
) -> None:
    sign_in(page, server.url, Steered(server, house, "elsewhere", []).owner)
    page.get_by_role("link", name="New project").click()
    page.get_by_label("Name", exact=True).fill("From elsewhere")
    file = tmp_path / "harmless.jsonl.gz"
    file.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in ROWS).encode()))
    page.locator("input[type=file]").set_input_files(file)
    page.get_by_role("alert").get_by_text("line 1").wait_for()
    page.get_by_label("Format of the file").select_option("hh-rlhf")
    page.get_by_text("Items: 2. No mistake found.").wait_for()
    page.get_by_text("`odd`: 2 rows say it").wait_for()
    assert page.locator(".sample").first.locator(".prompt").inner_text().strip() == "First?"
    page.get_by_role("button", name="Make the project").click()
    page.locator(".tile").filter(has_text="items with an answer").get_by_text("2 of 2").wait_for()

    torn = tmp_path / "torn.jsonl.gz"
    torn.write_bytes(file.read_bytes()[:30])
    page.goto(server.url + "/owner/#/new")
    page.locator("input[type=file]").set_input_files(torn)
    page.get_by_text("The file could not be unzipped.").wait_for()
