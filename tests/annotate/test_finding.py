"""Finding items and answers over the API, as owners and reviewers do; and guidelines as they were written."""

from collections.abc import Iterator

import pytest

from tests.annotate.conftest import Annotate, Server, Visitor

ITEMS = [
    {"id": "comet-1", "prompt": "What is a comet?", "responses": ["ice", "rock"], "tags": ["Space", "50%"]},
    {"id": "comet_2", "prompt": "And a star?", "responses": ["gas", "fire"], "tags": ["space", "größe"]},
    {"id": "cake", "prompt": "A cake?", "responses": ["yes", "no"], "tags": ["spaceship"]},
    {"id": "known", "prompt": "2 + 2?", "responses": ["4", "5"], "gold": [1, 2]},
]


@pytest.fixture(scope="module")
def server(shared_annotate: Annotate) -> Iterator[Server]:
    annotate = shared_annotate
    (annotate.folder / "g.md").write_text("Be *fair*.")
    annotate.ok("project", "create", "p", "--guidelines", "g.md", "--gold-rate", "0")
    annotate.person("p", "anna")
    annotate.person("p", "olga", "--role", "owner")
    annotate.person("p", "rita", "--role", "reviewer")
    annotate.write("items.jsonl", *ITEMS)
    annotate.ok("import", "p", "items.jsonl")
    with annotate.served(api_only=True) as running:
        yield running


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ("comet", ["comet-1", "comet_2"]),
        ("COMET-1", ["comet-1"]),
        ("comet_", ["comet_2"]),  # no wildcard
        ("space", ["comet-1", "comet_2"]),  # a whole tag, in upper or lower case
        ("größe", ["comet_2"]),
        ("50%", ["comet-1"]),
        ("spaceship", ["cake"]),
        ("%", []),
        ('"', []),
    ],
)
def test_items_are_found_by_id_or_tag(server: Server, search: str, found: list[str]) -> None:
    for login in ("olga", "rita"):
        visitor = server.visitor(login)
        page = visitor.http.get(f"{visitor.project}/items", params={"search": search}).json()
        assert [item["key"] for item in page["items"]] == found


def test_only_owners_may_know_which_items_are_gold(server: Server) -> None:
    olga, rita = server.visitor("olga"), server.visitor("rita")
    assert [item["key"] for item in olga.http.get(f"{olga.project}/items?gold=true").json()["items"]] == ["known"]
    assert len(olga.http.get(f"{olga.project}/items?gold=false").json()["items"]) == 3
    assert rita.http.get(f"{rita.project}/items?gold=true").json()["rule"] == "forbidden"
    assert all(item["gold"] is None for item in rita.http.get(f"{rita.project}/items").json()["items"])


def test_the_newest_answers_of_one_rater(server: Server) -> None:
    anna, rita = server.visitor("anna"), server.visitor("rita")
    anna.http.post(f"{anna.project}/guidelines/read", json={"version": 1})
    following, keys = anna.next(), []
    while following["task"]:
        answer = anna.submit(following["task"]["assignment"], [1, 2], key=f"a-key-{len(keys):03}").json()
        keys.append(answer["receipt"]["answer"])
        following = answer["next"]
    assert len(keys) >= 3

    def seen(visitor: Visitor, query: str) -> dict:
        return visitor.http.get(f"{visitor.project}/answers?{query}").json()

    pseudonym = seen(rita, "")["answers"][0]["rater"]
    first = seen(rita, f"rater={pseudonym}&newest=true&limit=2")
    assert [one["id"] for one in first["answers"]] == keys[::-1][:2]
    rest = seen(rita, f"rater={pseudonym}&newest=true&after={first['after']}")
    assert [one["id"] for one in rest["answers"]] == keys[::-1][2:] and rest["after"] is None
    assert seen(rita, "rater=nobody")["answers"] == []


def test_guidelines_can_be_read_as_they_were_written(server: Server) -> None:
    rita = server.visitor("rita")
    now = rita.http.get(f"{rita.project}/guidelines/1").json()
    assert now == {"version": 1, "text": "Be *fair*.", "html": "<p>Be <em>fair</em>.</p>\n"}
    assert rita.http.get(f"{rita.project}/guidelines/2").json()["rule"] == "not-found"
