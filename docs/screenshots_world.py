"""The projects and people in the pictures, made in a database of their own; see screenshots.yaml for the words."""

import http.server
import json
import random
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from annotate.services.answers import submit
from annotate.services.assignment import next_assignment
from annotate.services.decisions import decide
from annotate.services.exchange import import_items
from annotate.services.people import give_part, new_person, start_login
from annotate.services.projects import ProjectSettings, create_project, find_project
from annotate.services.questions import ask, reply
from annotate.store.database import Database, open_database
from annotate.store.tables import Item as ItemRow
from annotate.store.tables import Member, Person, Project, Question
from preferences.contract import Answer, Item

WORDS = yaml.safe_load(Path(__file__).with_name("screenshots.yaml").read_text(encoding="utf-8"))
DAYS = 9  # for which the raters of the large project have been at work
VISITORS = ["mia", "leo", "ines", "noor", "tariq", "wen", "paulo", "yara", "olek", "zoe", "ivo", "suri"]
ALL = {
    "dimensions": [
        {"name": "helpful", "anchors": ["useless", "", "fine", "", "just right"]},
        {"name": "safe", "anchors": ["harmful", "doubtful", "safe"]},
    ],
    "all_bad": True,
    "rationale": "optional",
    "edit": True,
    "spans": True,
}


class World:
    def __init__(self, folder: Path) -> None:
        self.file = str(folder / "annotate.db")
        self.database: Database = open_database(self.file, create=True)
        self.dice = random.Random("pictures")
        self.truth: dict[str, tuple[int, int]] = {}  # item: the better response, and how clearly
        self.visitors = 0
        short = _short()
        checks = [{**one, "gold": [1, 2] if one["better"] == 0 else [2, 1]} for one in short[-6:]]
        everyday = [{**one, "tags": ["explain"]} for one in WORDS["pairs"]]
        everyday += [*({**one, "tags": ["quick"]} for one in short[:-6]), *checks]
        self.project("Everyday questions", everyday, overlap=5, mask=["GPT-4"], pay=_pay(15.0), gold=True)
        first = [*short[:5], *WORDS["pairs"]]
        self.project("Helpful answers", first, overlap=1000, practice=0, pay=_pay(15.0), mask=["GPT-4"])
        self.project("إجابات مفيدة", [*WORDS["arabic"], *WORDS["pairs"]], overlap=1000, practice=0)
        self.project("Short texts", WORDS["fours"], overlap=1000, practice=0)
        self.project("Short texts, in depth", WORDS["fours"], overlap=1000, practice=0, **ALL)
        self.project("Helpful answers, in depth", WORDS["pairs"], overlap=1000, practice=0, **ALL)
        self.project("With practice", WORDS["pairs"], overlap=1000, gold=True)
        self.project("A study", WORDS["pairs"], overlap=1000, practice=0, consent=CONSENT, warnings=WARNINGS)
        with self.database.write() as session:
            create_project(session, "Side by side", guidelines=None, settings=ProjectSettings(arena=list(REPLIES)))
        self.member("Everyday questions", "olga", "owner", "Olga Brandt")
        self.member("Everyday questions", "rita", "reviewer", "Rita Moreau")
        for name in ("Short texts", "Helpful answers", "Side by side"):
            self.member(name, "olga", "owner")
        self._weeks_of_work()

    def project(self, name: str, items: list[dict[str, Any]], *, gold: bool = False, **settings: Any) -> None:
        lines = [*items, *(WORDS["practice"] if gold else [])]
        self.truth |= {one["id"]: (one["better"], one["clear"]) for one in items if "better" in one}
        keys = ("id", "prompt", "responses", "tags", "gold", "explanation")
        records = [Item.model_validate({key: one[key] for key in keys if key in one}) for one in lines]
        guidelines = None if name == "إجابات مفيدة" else WORDS["guidelines"]
        with self.database.write() as session:
            project = create_project(session, name, guidelines=guidelines, settings=ProjectSettings(**settings))
            import_items(session, project, records, "items.jsonl")

    def member(self, project: str, login: str, role: str = "rater", name: str | None = None) -> None:
        """Give somebody a part in a project. Nobody here has a password that anybody knows."""
        with self.database.write() as session:
            person = session.query(Person).filter_by(login=login).one_or_none()
            person = person or new_person(session, login, name=name, password_hash=secrets.token_hex(16))
            member = give_part(session, find_project(session, project).id, person, role=role)
            member.guideline = 1

    def rater(self, project: str, *, answered: int = 0, read: bool = True) -> str:
        """The login of somebody new, who has answered so many items of the project."""
        login = VISITORS[self.visitors % len(VISITORS)] + str(self.visitors // len(VISITORS) or "")
        self.visitors += 1
        self.member(project, login)
        with self.database.write() as session:
            if not read:
                session.query(Member).join(Person).filter(Person.login == login).one().guideline = None
        for number in range(answered):
            self.answer(project, login, 0.9, 20.0, now=time.time() - 60 * (answered - number))
        return login

    def token(self, login: str) -> str:
        """A login session of theirs, for the browser's cookie."""
        with self.database.write() as session:
            return start_login(session, session.query(Person).filter_by(login=login).one())

    def number(self, project: str) -> int:
        with self.database.read() as session:
            return find_project(session, project).id

    def item(self, project: str, key: str) -> int:
        with self.database.read() as session:
            return session.query(ItemRow).filter_by(project_id=find_project(session, project).id, key=key).one().id

    def answer(self, name: str, login: str, skill: float, seconds: float, *, now: float, left: float = 0.0) -> bool:
        """One answer of somebody who is right that often, and takes about so long; False when nothing is left."""
        dice = self.dice
        with self.database.write() as session:
            project, member = self._part(session, name, login)
            given = next_assignment(session, member, project, now=now)
            if given is None:
                return False
            item = session.get_one(ItemRow, given.item)
            better, clear = self.truth.get(item.key, (0, 2))
            if item.gold is not None:
                better, clear = (0 if item.gold[0] <= item.gold[1] else 1), 3
            count = len(given.shown)
            right = dice.random() < (skill if clear > 1 else 0.5 + (skill - 0.5) * (0.9 if clear else 0.1))
            chosen = better if right else 1 - better
            if dice.random() < left:
                chosen = given.shown[0]
            strength = dice.choice((1, 2, 2, 3) if right and clear > 1 else (1, 1, 2))
            if count > 2:
                ranks = [1 + (place != chosen) + (place > 1) for place in range(count)]
            elif (item.gold or [1, 2]) == [1, 1] or (clear == 0 and dice.random() < 0.3):
                ranks, strength = [1, 1], 0
            else:
                ranks = [1, 2] if chosen == 0 else [2, 1]
                strength = -strength if chosen == 0 else strength
            flags = ["cannot-judge"] if dice.random() < 0.02 else []
            took = round(max(1.1, seconds * dice.lognormvariate(0, 0.45)), 1)
            said = Answer(rater=login, ranks=ranks, strength=strength, seconds=took, flags=flags)
            key = secrets.token_hex(12)
            submit(session, member, project, given.assignment, said, key=key, guideline=1, now=now)
        return True

    def _part(self, session: Any, name: str, login: str) -> tuple[Project, Member]:
        project = find_project(session, name)
        person = session.query(Person).filter_by(login=login).one()
        return project, session.query(Member).filter_by(project_id=project.id, person_id=person.id).one()

    def _weeks_of_work(self) -> None:
        """Answers of the last days, some questions, and what a reviewer has decided."""
        name = "Everyday questions"
        for one in WORDS["people"]:
            self.member(name, one["login"], name=one["name"])
        today = time.time() - 3 * 3600
        moments = []
        for one in WORDS["people"]:
            for day in range(DAYS):
                at_work = self.dice.randint(0, 6) if day % 7 < 5 else self.dice.randint(0, 1)
                begin = today - (DAYS - 1 - day) * 86400 + self.dice.uniform(0, 7200)
                moments += [(begin + 90 * number, one["login"]) for number in range(at_work)]
        people = {one["login"]: one for one in WORDS["people"]}
        for now, login in sorted(moments):
            one = people[login]
            self.answer(name, login, one["skill"], one["seconds"], now=now, left=one.get("left", 0.0))
        with self.database.write() as session:
            for login, text, answer in QUESTIONS:
                project, member = self._part(session, name, login)
                given = next_assignment(session, member, project)
                if given is None:
                    continue
                number = ask(session, member, given.assignment, text)
                session.get_one(Question, number).asked_at -= 5 * 3600
                if answer:
                    owner = self._part(session, name, "olga")[1]
                    reply(session, project.id, number, answer, by=owner)
            rita = self._part(session, name, "rita")[1]
            for key in ("tortilla", "apology"):
                item = session.query(ItemRow).filter_by(project_id=rita.project_id, key=key).one().id
                decide(session, rita, item, [1, 2], -1, "It answers what was asked, and no more.")


CONSENT = """# A study of what makes a response helpful

You will compare texts that were written by language models. We keep your answers and how long they took, under a random
name. You can stop **at any time**, and have everything that names you deleted.

Questions? Write to the project's owner, Olga Brandt."""
WARNINGS = {"medical": "Describes wounds and operations", "violence": "Describes violence"}
QUESTIONS = [
    ("carla", "Both responses are wrong about the tenancy law. Do I say Same?", None),
    (
        "anna",
        "Is a response in another language than the question always worse?",
        "Yes, unless the question asks for it.",
    ),
    ("hana", "I know one of the sources quoted here. May I still rate it?", None),
]


def _pay(amount: float) -> dict[str, Any]:
    return {"amount": amount, "currency": "EUR", "per": "hour"}


def _short() -> list[dict[str, Any]]:
    rows = [[part.strip() for part in line.split("|")] for line in WORDS["short"].strip().splitlines()]
    return [
        {
            "id": f"short-{number:02}",
            "prompt": prompt,
            "responses": responses if number % 2 else responses[::-1],
            "better": 0 if number % 2 else 1,
            "clear": 3 if number % 3 else 1,
        }
        for number, (prompt, *responses) in enumerate(rows)
    ]


# --- two models for the arena -----------------------------------------------------------------------------------

REPLIES = {
    "pine-2b": "Boil them from cold water, and count from when it boils: **6 minutes** for a soft yolk, **10** for a "
    "hard one. Then cold water, or they go on cooking.",
    "harbour-3b": "It depends on how you like them:\n\n| yolk | minutes |\n|---|--:|\n| runny | 5 |\n| creamy | 7 |\n"
    "| hard | 10 |\n\nThis is for large eggs out of the fridge, put into water that boils already.",
}


@contextmanager
def models(folder: Path) -> Iterator[Path]:
    """A file for `annotate serve --models`: two models, which are ten lines of Python that always say the same."""

    class Model(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            pieces: list[dict[str, Any]] = [{"delta": {"content": REPLIES[asked["model"]]}, "finish_reason": None}]
            for choice in [*pieces, {"delta": {}, "finish_reason": "stop"}]:
                self.wfile.write(f"data: {json.dumps({'choices': [{'index': 0, **choice}]})}\n\n".encode())
            self.wfile.write(b"data: [DONE]\n\n")

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Model)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/v1"
    file = folder / "models.yaml"
    file.write_text(yaml.safe_dump({name: {"base_url": address, "model": name} for name in REPLIES}))
    try:
        yield file
    finally:
        server.shutdown()
