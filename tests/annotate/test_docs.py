"""What the documents of the service list is what there is."""

import re
from pathlib import Path

from annotate.services.refusals import RULES

ROOT = Path(__file__).parents[2]


def test_every_rule_is_explained_and_used() -> None:
    document = (ROOT / "docs/api.md").read_text()
    rows = {
        rule: int(status)
        for rules, status in re.findall(r"^\| (`[a-z`, -]+`) \| (\d{3}) \|", document, re.MULTILINE)
        for rule in re.findall(r"`([a-z-]+)`", rules)
    }
    assert rows == {rule: status for rule, (status, _) in RULES.items()}
    code = "\n".join(path.read_text() for path in (ROOT / "annotate").rglob("*.py") if path.name != "refusals.py")
    unused = [rule for rule in RULES if f'"{rule}"' not in code and rule not in ("already-skipped", "already-answered")]
    assert not unused
