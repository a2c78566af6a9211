"""A database with rows in every table: texts of all alphabets, revisions, leases, drafts, a joined group."""

from sqlalchemy import insert
from sqlalchemy.orm import Session

from annotate.store import access
from annotate.store import tables as t

HASH = "0123456789abcdef" * 4
UNICODE = "Zoë 🙂 日本語 'quoted' \"twice\" \\n \u2028 e\u0301"


def fill(session: Session) -> None:
    """Two rows or more in every table, with what is odd and allowed."""
    session.execute(
        insert(t.Project),
        [
            {
                "name": name,
                "overlap": 2,
                "strength": True,
                "validation": 0.1,
                "test": 0.1 + 0.2,
                "simulated": name == "second",
                "created_at": 1700000000.123456,
                "closed_at": None,
                "skills": ["médecine"],
                "warnings": {"gore": UNICODE},
                "consent": UNICODE,
            }
            for name in ("first", "second")
        ],
    )
    session.execute(insert(t.Guideline), [{"project_id": 1, "version": version, "text": UNICODE} for version in (1, 2)])
    session.execute(
        insert(t.Person),
        [
            {
                "login": login,
                "name": UNICODE,
                "password_hash": "$argon2",
                "openid": f"https://id {login}",
                "created_at": 1.5,
            }
            for login in ("anna", "ben")
        ],
    )
    session.execute(
        insert(t.Member),
        [
            {
                "project_id": 1,
                "person_id": 1,
                "rater": "anna",
                "role": "rater",
                "pseudonym": "rater-1",
                "skills": ["x"],
            },
            {"project_id": 1, "person_id": 2, "rater": "ben", "role": "owner", "pseudonym": "rater-2", "skills": []},
        ],
    )
    session.execute(
        insert(t.Member), [{"project_id": 1, "rater": UNICODE, "role": "rater", "pseudonym": "rater-3", "version": 4}]
    )
    session.execute(insert(t.Group), [{"project_id": 1, "name": "part"}, {"project_id": 1, "name": UNICODE}])
    session.query(t.Group).filter_by(id=1).update({"joined_id": 2})  # a group of a higher id
    session.query(t.Group).filter_by(id=2).update({"split": "test"})
    session.execute(
        insert(t.Item),
        [
            {
                "project_id": 1,
                "group_id": 2,
                "key": f"q{number}",
                "prompt": [{"role": "user", "content": f"{UNICODE} {number}"}],
                "responses": [{"messages": [], "model": None, "id": None}] * 2,
                "tags": ["de", "Ähre", "zebra", "🙂"],
                "gold": [1, 2] if number == 3 else None,
                "priority": 0.0,
                "overlap": 2,
                "content_hash": HASH,
                "prompt_hash": HASH,
            }
            for number in (1, 2, 3)
        ],
    )
    session.execute(
        insert(t.ItemTag),
        [{"item_id": item, "tag": tag} for item in (1, 2, 3) for tag in ("de", "Ähre", "zebra", "Zebra", "🙂")],
    )
    session.execute(
        insert(t.Assignment),
        [
            {"item_id": 1, "member_id": 1, "state": "answered", "purpose": "item", "shown": [1, 0], "created_at": 2.0},
            {"item_id": 2, "member_id": 1, "state": "open", "purpose": "item", "shown": [0, 1], "created_at": 3.0},
            {"item_id": 3, "member_id": 1, "state": "answered", "purpose": "gold", "shown": [0, 1], "created_at": 4.0},
            {"item_id": 1, "member_id": 2, "state": "skipped", "purpose": "item", "shown": [0, 1], "created_at": 5.0},
        ],
    )
    slot = {"project_id": 1, "position": -0.0, "turn": 1.0, "assignment_id": None, "leased_until": None}
    session.execute(
        insert(t.Slot),
        [
            {**slot, "item_id": 1, "number": 1, "filled": True, "assignment_id": 1},
            {**slot, "item_id": 1, "number": 2, "filled": False},
            {**slot, "item_id": 2, "number": 1, "filled": False, "assignment_id": 2, "leased_until": 4e9},
        ],
    )
    answer = {
        "strength": -2,
        "ratings": {"ä": [1.0, 2.5]},
        "flags": [],
        "spans": [{"response": 0, "start": 0, "end": 1, "text": "ä", "mark": "bad"}],
        "shown": [1, 0],
        "seconds": 1 / 3,
        "guideline": 2,
    }
    answer |= {"item_id": 1, "member_id": 1, "kind": "rated", "submitted_at": 10.25, "ranks": [1, 2]}
    for row in (
        {"slot_id": 1, "idempotency_key": "one"},
        {"revision": 2, "supersedes_id": 1, "idempotency_key": "two", "ranks": [2, 1]},
        {"revision": 3, "supersedes_id": 2, "idempotency_key": "three"},
        {"item_id": 3, "kind": "gold", "idempotency_key": "one"},
        {"member_id": 3, "kind": "imported", "ratings": None, "shown": None, "seconds": None, "submitted_at": None},
    ):
        session.execute(insert(t.Answer).values(**{**answer, **row}))
    session.execute(
        insert(t.AnswerText),
        [
            {"answer_id": 1, "rationale": UNICODE, "edited": None},
            {"answer_id": 3, "rationale": None, "edited": {"response": 0, "text": UNICODE}},
        ],
    )
    session.execute(
        insert(t.Draft),
        [{"assignment_id": number, "body": {"why": UNICODE}, "version": 1, "saved_at": 1.0} for number in (2, 4)],
    )
    session.execute(
        insert(t.Skip),
        [
            {"item_id": 1, "member_id": 2, "reason": "unsafe", "text": UNICODE, "at": 1.0},
            {"item_id": 2, "member_id": 2, "reason": "other", "text": None, "at": 2.0},
        ],
    )
    for number in (1, 2):
        decided = {"item_id": number, "member_id": 2, "ranks": [1, 2], "shown": [1, 0], "at": 1.5}
        session.execute(insert(t.Decision).values(**decided, strength=-number, rationale=UNICODE))
        asked = {"item_id": number, "member_id": 1, "text": UNICODE, "asked_at": 1.0, "reply": UNICODE}
        session.execute(insert(t.Question).values(**asked, replied_by=2, replied_at=2.0))
        times = {"created_at": 1.0, "updated_at": 2.0}
        turns = [{"user": UNICODE, "replies": ["a", None]}]
        session.execute(
            insert(t.Chat).values(project_id=1, member_id=1, models=["x", "y"], turns=turns, item_id=number, **times)
        )
    session.execute(
        insert(t.Audit),
        [
            {"project_id": 1, "member_id": 1, "person_id": 9, "at": 1.0, "action": "a", "detail": {"n": n}}
            for n in (1, 2)
        ],
    )
    for number in (1, 2):
        common = {"token_hash": f"{number}{HASH[1:]}", "created_at": 1.0}
        session.execute(insert(access.Login).values(**common, person_id=1, csrf_token="c", expires_at=4e9))
        session.execute(insert(access.Token).values(**common, person_id=1, name=UNICODE, rights=["read"]))
        session.execute(
            insert(access.Link).values(
                **common,
                purpose=("join", "password")[number - 1],
                project_id=1,
                role="rater",
                skills=[],
                person_id=(None, 1)[number - 1],
                expires_at=4e9,
            )
        )
        session.execute(insert(access.FailedLogin).values(login=UNICODE, at=1.0))
        session.execute(insert(access.Setting).values(name=f"key {number}", value=UNICODE))
        session.execute(insert(access.Webhook).values(project_id=1, url="https://x", events=["e"], created_at=1.0))
        session.execute(
            insert(access.Delivery).values(webhook_id=1, event="e", body={"n": 1.5}, created_at=1.0, next_at=2.0)
        )
