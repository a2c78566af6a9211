"""The key that signs links and webhooks, and secrets from the environment or a file."""

import os
import secrets
from pathlib import Path

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from annotate.store.access import Setting
from preferences.errors import BadInput

SHORTEST_SECRET = 32  # characters
_SETTING = "signing_key"


def secret_from_environment(name: str, *, shortest: int = SHORTEST_SECRET) -> str | None:
    """The variable `name`, or else the text of the file that the variable `name`_FILE names; None without either.

    Raises BadInput if the file can't be read, or if the secret is short enough to guess. It never quotes the secret.
    """
    secret = os.environ.get(name)
    if secret is None and (file := os.environ.get(f"{name}_FILE")):
        try:
            secret = Path(file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
            raise BadInput(f"{name}_FILE: cannot read {file}: {reason}") from None
    if secret is None or not secret.strip():
        return None
    if len(secret.strip()) < shortest:
        raise BadInput(f"{name} is too short: give at least {shortest} random characters")
    return secret.strip()


def signing_key(session: Session) -> bytes:
    """The server's own key: ANNOTATE_SECRET or ANNOTATE_SECRET_FILE, else a random one kept in the database.

    Whoever has this key can make links and webhook signatures; one from the environment keeps it out of backups. The
    first call makes the random key, so `session` must be one that writes (`serve` makes the first call when it starts).
    Raises BadInput as `secret_from_environment` does.
    """
    if given := secret_from_environment("ANNOTATE_SECRET"):
        return given.encode()
    kept = session.get(Setting, _SETTING)
    if kept is None:
        try:
            with session.begin_nested():
                session.add(Setting(name=_SETTING, value=secrets.token_urlsafe(32)))
        except IntegrityError:
            pass  # another process was first, and its key counts
        kept = session.get_one(Setting, _SETTING)
    return kept.value.encode()
