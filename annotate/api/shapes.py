"""What the shapes of requests share: no unknown keys, numbers that the database can hold, pages of a list."""

from typing import Annotated

from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field

LARGEST_ID = 2**31 - 1  # more would be an error of the database
Id = Annotated[int, Path(ge=1, le=LARGEST_ID)]
After = Annotated[int, Field(ge=0, le=LARGEST_ID, description="the `after` of the page before")]
Limit = Annotated[int, Field(ge=1, le=200)]


class Strict(BaseModel):
    """A request without unknown keys."""

    model_config = ConfigDict(extra="forbid")
