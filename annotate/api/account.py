"""The person behind the request: who they are, and their part in projects."""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from annotate.api.problems import PROBLEMS
from annotate.api.security import AnyAsker
from annotate.services.people import memberships

router = APIRouter(prefix="/api/v1/me", tags=["account"], responses=PROBLEMS)


class Part(BaseModel):
    """A project, and what part the person has in it."""

    id: int
    name: str
    role: Literal["rater", "reviewer", "owner"]
    simulated: bool


class Me(BaseModel):
    login: str
    csrf_token: str | None = Field(description="send it back as X-CSRF-Token with what is not a GET; tokens need none")
    projects: list[Part]


@router.get("")
def me(asker: AnyAsker) -> Me:
    """Who is signed in, and which projects they have a part in."""
    with asker.database.read() as session:
        projects = [
            Part.model_validate(
                {"id": project.id, "name": project.name, "role": member.role, "simulated": project.simulated}
            )
            for member, project in memberships(session, asker.person_id)
        ]
    return Me(login=asker.login, csrf_token=asker.csrf_token, projects=projects)
