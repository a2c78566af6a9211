"""Blind pairs of two models at a real browser: no model reaches the rater, and the owner gets what was said of them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from preferences.judgements import read_judgements
from tests.annotate.conftest import Server
from tests.e2e.conftest import House
from tests.e2e.test_steer import Steered

pytestmark = pytest.mark.browser

MODELS = ("aligned-model", "former-model")
SECRETS = (*MODELS, "tag-secret", "group-secret", "id-secret")


def pair(number: int) -> dict[str, Any]:
    """As `align evaluate --to-annotate` writes it."""
    responses = [{"text": "better", "model": MODELS[0]}, {"text": "worse", "model": MODELS[1]}]
    return {
        "id": f"id-secret-{number}",
        "prompt": f"Number {number}?",
        "responses": responses[::-1] if number % 2 else responses,
        "tags": ["tag-secret"],
        "group": f"group-secret-{number}",
    }


def test_no_model_reaches_the_rater_and_the_owner_gets_judgements(
    page: Any, browser: Any, server: Server, house: House, sign_in: Callable, begin: Callable
) -> None:
    place = Steered(server, house, "blind-pairs", [pair(number) for number in range(3)], overlap=1)
    received: list[str] = []
    page.on("requestfinished", lambda request: received.append(request.response().text()))
    begin(page, server.url + "/rate/", place.raters[0])
    for done in range(1, 4):
        page.keyboard.press("1" if page.locator(".response .body").all_inner_texts()[0] == "better" else "7")
        seen = page.content() + json.dumps(page.evaluate("[{...localStorage}, {...sessionStorage}]"))
        assert not any(secret in seen for secret in SECRETS)
        page.keyboard.press("Enter")
        if done < 3:
            page.wait_for_function(
                "said => document.querySelector('#count').innerText.startsWith(said)", arg=f"{done} of"
            )
    page.locator("#concord:not([data-view=work])").wait_for()
    assert any('"receipt"' in text for text in received)
    assert not any(secret in text for secret in SECRETS for text in received)

    owner = browser.new_context().new_page()
    sign_in(owner, place.url("export"), place.owner)
    with owner.expect_download() as downloaded:
        owner.get_by_role("button", name="Download the judgements").click()
    assert downloaded.value.suggested_filename == "blind-pairs.jsonl"
    copy = Path(downloaded.value.path()).with_suffix(".jsonl")
    downloaded.value.save_as(copy)
    rows = read_judgements(copy)
    assert [(row.prompt, row.candidate, row.baseline, row.preference) for row in rows] == [
        (f"id-secret-{number}", *MODELS[::-1], 0.0) for number in range(3)
    ]
    assert all(row.rater and row.rater.startswith("rater-") and row.order in (0, 1) for row in rows)
    owner.context.close()

    other = Steered(server, house, "no-models", [{"prompt": "?", "responses": ["one", "two"]}])
    found = server.visitor(other.owner).http.get(f"/api/v1/projects/{other.id}/exports/preview").json()
    assert found["models"] is False  # and then there is no such button
