"""The progress that a rater sees, also where what is left was counted some time ago."""

from pathlib import Path

import pytest

from annotate.api import progress
from tests.annotate.house import House, item


@pytest.mark.parametrize("overlap", [1, 2])
@pytest.mark.parametrize("cheap", [-1.0, 60.0], ids=["counted once", "counted every time"])
def test_the_total_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overlap: int, cheap: float) -> None:
    monkeypatch.setattr(progress, "CHEAP", cheap)
    monkeypatch.setattr(progress, "KEPT_FOR", 1e9)
    house = House(tmp_path, *(item(f"i{number}", overlap=overlap) for number in range(4)))
    seen = []
    for done in range(3):
        task = house.ask("anna", "POST", "/next", {})["task"]
        body = {"assignment": task["assignment"], "key": f"key {done:05}", "ranks": [1, 2], "seconds": 1.0}
        seen.append(house.ask("anna", "POST", "/answers", body)["next"]["progress"])
    assert seen == [{"done": done, "total": 4} for done in (1, 2, 3)]
