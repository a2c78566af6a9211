"""A typed client of the REST API, for scripts and tests: the shapes are the server's own.

    with Client("https://rate.example", token="concord_…") as client:
        project = client.project("my-project")
        client.import_items(project.id, "items.jsonl")
        print(client.report(project.id)["agreement"])
        client.export([project.id], "my-preferences")
        client.export_judgements([project.id], "people.jsonl")

What the server refuses is raised as `ProblemError`, whose `rule` a program can go by. What can be sent again without
harm, submitting an answer included, is sent again when the connection or the server fails.
"""

import io
import json
import secrets
import time
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel

from annotate.api.account import Me
from annotate.api.items import COUNTS, AnswerOut, AnswerPage, ImportedOut, ItemOut, ItemPage
from annotate.api.projects import GuidelinesOut, ProjectOut, ProjectPage
from annotate.api.steer import ContestedOut, ContestedPage, DecisionOut, ExportPreview, PreviewOut
from annotate.api.tasks import DraftOut, Task
from annotate.api.work import NextOut, OwnAnswer, OwnAnswers, SubmittedOut
from preferences.errors import BadInput
from preferences.files import read_json, whole_folder
from preferences.judgements import Judgement, write_judgements

M = TypeVar("M", bound=BaseModel)
TRIES = 6
WAIT = 0.25  # seconds before the second try; doubled before each further one


class ProblemError(BadInput):
    """The server refused. `rule` says by which rule (docs/api.md), `facts` is the whole problem document."""

    def __init__(self, status: int, facts: dict[str, Any]) -> None:
        super().__init__(str(facts.get("detail") or f"the server answered with status {status}"))
        self.status = status
        self.rule = str(facts.get("rule", ""))
        self.facts = facts


class Client:
    """The API of one server, for the person that a token stands for (or for a login session, see `sign_in`)."""

    def __init__(self, server: str, token: str | None = None, *, timeout: float = 60.0) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            self.http = httpx.Client(base_url=server.rstrip("/"), timeout=timeout, headers=headers)
        except (httpx.InvalidURL, UnicodeEncodeError, ValueError):
            raise BadInput(f"{server}: not the address of a server; write http://host:port") from None

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, _type: type | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        self.http.close()

    def sign_in(self, login: str, password: str) -> Me:
        """Begin a login session, as the page does. Raises BadInput for a wrong password."""
        form = {"login": login, "password": password}
        answer = self._send(lambda: self.http.post("/login", data=form))
        if answer.status_code != 303:
            raise BadInput(f"{login} can't sign in: the server answered with status {answer.status_code}")
        me = self.me()
        self.http.headers["X-CSRF-Token"] = me.csrf_token or ""
        return me

    # --- projects, for their owners and reviewers ---

    def me(self) -> Me:
        return self._get(Me, "/me")

    def projects(self) -> Iterator[ProjectOut]:
        """The projects that this person reviews or owns."""
        after: int | None = 0
        while after is not None:
            page = self._get(ProjectPage, "/projects", after=after)
            yield from page.projects
            after = page.after

    def project(self, name: str | int) -> ProjectOut:
        """A project by name or id. Raises BadInput that lists the known names."""
        if isinstance(name, int):
            return self._get(ProjectOut, f"/projects/{name}")
        known = {one.name: one for one in self.projects()}
        if name not in known:
            raise BadInput(f"no project {name!r} that you review or own there; there are {', '.join(known) or 'none'}")
        return known[name]

    def create_project(self, name: str, **settings: Any) -> ProjectOut:
        return self._ask(ProjectOut, "POST", "/projects", {"name": name, **settings}, again=False)

    def change_project(self, project: ProjectOut, **settings: Any) -> ProjectOut:
        """Change a project that is still as it was when it was read. Raises ProblemError "wrong-version" if not."""
        match = {"If-Match": f'"{project.version}"'}
        return self._ask(ProjectOut, "PATCH", f"/projects/{project.id}", settings, headers=match, again=False)

    def new_guidelines(self, project: int, text: str) -> int:
        """Put new guidelines (Markdown) in force and return their version."""
        path = f"/projects/{project}/guidelines"
        return int(self._json("POST", path, {"text": text}, again=False)["version"])

    def import_items(
        self, project: int, items: str | Path | Iterable[dict[str, Any]], *, format: str | None = None
    ) -> ImportedOut:
        """Import a file of items, or rows of one, in another tool's `format` if it is named. All of them, or none."""
        if isinstance(items, str | Path):
            try:
                data = Path(items).read_bytes()
            except OSError as error:
                raise BadInput(f"cannot read {items}: {error.strerror}") from None
        else:
            data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in items).encode()
        headers = {"Content-Type": "application/x-ndjson"}
        path = f"/api/v1/projects/{project}/items"
        query = {"format": format} if format else {}
        answer = self._checked(self._send(lambda: self.http.post(path, content=data, headers=headers, params=query)))
        return ImportedOut.model_validate(answer.json())

    def items(self, project: int) -> Iterator[ItemOut]:
        after: int | None = 0
        while after is not None:
            page = self._get(ItemPage, f"/projects/{project}/items", after=after, limit=200)
            yield from page.items
            after = page.after

    def change_item(self, project: int, item: ItemOut, **changes: Any) -> ItemOut:
        match = {"If-Match": f'"{item.version}"'}
        return self._ask(ItemOut, "PATCH", f"/projects/{project}/items/{item.id}", changes, headers=match, again=False)

    def answers(self, project: int, item: int | None = None) -> Iterator[AnswerOut]:
        """The answers that stand, of the project or of one item."""
        only = {} if item is None else {"item": item}
        after: int | None = 0
        while after is not None:
            page = self._get(AnswerPage, f"/projects/{project}/answers", after=after, limit=200, **only)
            yield from page.answers
            after = page.after

    def report(self, project: int) -> dict[str, Any]:
        return self._json("GET", f"/projects/{project}/report")

    def agreement(self, project: int) -> dict[str, Any]:
        return self._json("GET", f"/projects/{project}/agreement")

    def contested(self, project: int) -> Iterator[ContestedOut]:
        """The items that somebody should look at, most contested first, what is decided last."""
        after: int | None = 0
        while after is not None:
            page = self._get(ContestedPage, f"/projects/{project}/contested", after=after, limit=200)
            yield from page.items
            after = page.after

    def decision(self, project: int, item: int) -> DecisionOut:
        """An item to decide about; the raters' votes are in it only after one's own decision."""
        return self._get(DecisionOut, f"/projects/{project}/items/{item}/decision")

    def decide(
        self, project: int, item: int, ranks: list[int], *, strength: int | None = None, rationale: str | None = None
    ) -> DecisionOut:
        """Decide, in the order in which `decision` shows the responses."""
        body = {"ranks": ranks, "strength": strength, "rationale": rationale}
        return self._ask(DecisionOut, "PUT", f"/projects/{project}/items/{item}/decision", body)

    def preview_items(self, lines: str, mask: Collection[str] = ()) -> PreviewOut:
        """What an import of these lines would bring; nothing is stored."""
        return self._ask(PreviewOut, "POST", "/projects/preview", {"lines": lines, "mask": list(mask)})

    def preview_export(self, project: int) -> ExportPreview:
        """What an export would hold now; nothing is stored, and no split is chosen."""
        return self._get(ExportPreview, f"/projects/{project}/exports/preview")

    def export(self, projects: Collection[int], folder: str | Path) -> dict[str, Any]:
        """Write the preferences of projects to a folder, in place of what is there. Returns the manifest."""
        body = {"projects": list(projects)}
        answer = self._checked(self._send(lambda: self.http.post("/api/v1/exports", json=body)))
        with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
            names = archive.namelist()
            if any(Path(name).name != name for name in names):
                raise BadInput("the server sent an archive with folders in it, which an export has not")
            with whole_folder(folder) as path:
                archive.extractall(path)
        return read_json(Path(folder) / "manifest.json")

    def export_judgements(self, projects: Collection[int], path: str | Path) -> dict[str, Any]:
        """Write what raters said of models to a judgements file. Returns how much is in it, and left out."""
        body = {"projects": list(projects)}
        answer = self._checked(self._send(lambda: self.http.post("/api/v1/exports/judgements", json=body)))
        lines = (json.loads(line) for line in answer.text.split("\n") if line)
        write_judgements(path, [Judgement(**line) for line in lines])
        counts: dict[str, Any] = json.loads(answer.headers[COUNTS])
        return counts

    # --- rating ---

    def guidelines(self, project: int) -> GuidelinesOut:
        return self._get(GuidelinesOut, f"/projects/{project}/guidelines")

    def read_guidelines(self, project: int, version: int) -> None:
        self._json("POST", f"/projects/{project}/guidelines/read", {"version": version})

    def consent(self, project: int) -> None:
        text = self.guidelines(project).consent_hash
        self._json("POST", f"/projects/{project}/consent", {"agreed": True, "consent_hash": text})

    def opt_out(self, project: int, tags: Collection[str]) -> None:
        self._json("PUT", f"/projects/{project}/opt-out", {"tags": list(tags)})

    def next(self, project: int, holding: Collection[int] = ()) -> NextOut:
        """The rater's next item, beside the assignments that they are holding."""
        return self._ask(NextOut, "POST", f"/projects/{project}/next", {"holding": list(holding)})

    def submit(
        self, project: int, assignment: int, ranks: list[int], *, key: str | None = None, **rest: Any
    ) -> SubmittedOut:
        """Store an answer, in the order shown, once however often it is sent, and be given the next item."""
        body = {"assignment": assignment, "ranks": ranks, "key": key or secrets.token_urlsafe(16), **rest}
        return self._ask(SubmittedOut, "POST", f"/projects/{project}/answers", body)

    def skip(self, project: int, assignment: int, reason: str, text: str | None = None) -> NextOut:
        body = {"assignment": assignment, "reason": reason, "text": text}
        return self._ask(NextOut, "POST", f"/projects/{project}/skips", body)

    def renew(self, project: int, assignment: int) -> float:
        """Lengthen the lease of an item. Returns for how many seconds it is kept now."""
        return float(self._json("POST", f"/projects/{project}/assignments/{assignment}/renew")["lease_seconds"])

    def save_draft(self, project: int, assignment: int, body: dict[str, Any], version: int | None) -> int:
        """Keep a draft in place of `version` (None: of none). Returns its own version."""
        path = f"/projects/{project}/assignments/{assignment}/draft"
        return int(self._json("PUT", path, {"body": body, "version": version}, again=False)["version"])

    def draft(self, project: int, assignment: int) -> DraftOut:
        return self._get(DraftOut, f"/projects/{project}/assignments/{assignment}/draft")

    def my_answers(self, project: int) -> Iterator[OwnAnswer]:
        """The rater's own answers, the newest first."""
        before: dict[str, int] = {}
        while True:
            page = self._get(OwnAnswers, f"/projects/{project}/answers/mine", limit=200, **before)
            yield from page.answers
            if page.older is None:
                return
            before = {"before": page.older}

    def reopen(self, project: int, answer: int) -> Task:
        """Undo: the task of an answer, to be submitted again with `revises=answer`."""
        return self._ask(Task, "POST", f"/projects/{project}/answers/{answer}/reopen")

    # --- inside ---

    def _get(self, model: type[M], path: str, **query: Any) -> M:
        return model.model_validate(self._json("GET", path, query=query))

    def _ask(self, model: type[M], method: str, path: str, body: Any = None, **rest: Any) -> M:
        return model.model_validate(self._json(method, path, body, **rest))

    def _json(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        again: bool = True,
    ) -> Any:
        """Send a request, `again` when it fails on the way unless a second time would be another one, or refused."""

        def send() -> httpx.Response:
            return self.http.request(method, f"/api/v1{path}", json=body, params=query, headers=headers)

        answer = self._checked(self._send(send, TRIES if again else 1))
        return answer.json() if answer.content else None

    def _send(self, send: Callable[[], httpx.Response], tries: int = TRIES) -> httpx.Response:
        """Send until the server is in no trouble of its own. Raises BadInput if it can't be reached."""
        for attempt in range(tries):
            try:
                answer = send()
                if answer.status_code not in (429, 502, 503, 504) or attempt == tries - 1:
                    return answer
            except httpx.TransportError as error:
                if attempt == tries - 1:
                    raise BadInput(f"{self.http.base_url}: the server can't be reached ({error})") from error
            time.sleep(WAIT * 2**attempt)
        raise AssertionError("unreachable")

    def _checked(self, answer: httpx.Response) -> httpx.Response:
        if answer.is_success:
            return answer
        try:
            facts = answer.json()
        except ValueError:
            facts = {}
        raise ProblemError(answer.status_code, facts if isinstance(facts, dict) else {})
