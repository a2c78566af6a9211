"""What every page that `align` writes must be, whatever stands in the data: text stays text, and nothing loads."""

import contextlib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

HOSTILE = (
    "</div></details><script>document.title='owned'</script>"
    "<img src=http://198.51.100.7/x onerror=\"document.title='owned'\">"
    "<svg onload=document.title='owned'><iframe src=//198.51.100.7></iframe><style>body{display:none}</style>"
    '{{7*7}} {% raw %} "onmouseover="x" \'; javascript:alert(1) \u202e \x00 \ud800'
)


class Tags(HTMLParser):
    """Every tag and attribute of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[tuple[str, str | None]] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(attrs)


def assert_text_stays_text(page: str) -> None:
    """HOSTILE is in this page, as what it says and nothing else; the page has a policy, and names nothing to load."""
    assert "&lt;script&gt;document.title=" in page and "{{7*7}}" in page
    assert "<script" not in page and "<img" not in page
    parsed = Tags()
    parsed.feed(page)
    assert not parsed.tags & {"script", "img", "iframe", "object", "embed", "form", "link", "base", "a"}
    names = {name for name, _ in parsed.attributes}
    assert not [name for name in names if name.startswith("on")]
    assert not names & {"src", "href", "srcset", "action", "style"}
    assert ("http-equiv", "Content-Security-Policy") in parsed.attributes
    assert "url(" not in page and "@import" not in page


@contextlib.contextmanager
def on_a_phone(browser: Any, path: Path) -> Iterator[tuple[Any, list[str]]]:
    """The page in a real browser, and what its console says: nothing runs, nothing loads, nothing scrolls sideways."""
    tab = browser.new_page(viewport={"width": 420, "height": 900})
    requests: list[str] = []
    said: list[str] = []
    tab.on("request", lambda request: requests.append(request.url))
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.goto(path.as_uri())
    tab.wait_for_timeout(300)
    assert requests == [path.as_uri()] and said == []
    assert tab.title() != "owned"
    assert tab.locator("h1").is_visible()
    assert tab.locator("script, img, iframe").count() == 0
    assert tab.evaluate("document.documentElement.scrollWidth") <= 420
    yield tab, said
    tab.close()
