"""`annotate export --judgements`: what raters said of models, as one file."""

from pathlib import Path

from annotate.commands.common import read_token, say, use_database
from preferences.errors import BadInput


def export_judgements(
    projects: tuple[str, ...],
    path: Path,
    overwrite: bool,
    server: str | None,
    token_file: str | None,
    database: str | None,
    as_json: bool,
) -> None:
    """Write the file whole or not at all, and say what is in it. Raises BadInput before anything is read."""
    from preferences.formats.rows import check_free, is_file_name

    if not is_file_name(path):
        raise BadInput(f"--judgements {path}: name a file, such as {path.name or 'people'}.jsonl")
    check_free(path, overwrite)
    if server is not None:
        from annotate.api.client import Client

        with Client(server, read_token(token_file)) as client:
            counts = client.export_judgements([client.project(name).id for name in projects], path)
    else:
        from annotate.services.judgements import judgements, note_judgements
        from annotate.services.projects import find_project
        from preferences.judgements import write_judgements

        with use_database(database) as db:
            with db.read() as session:
                found = judgements(session, *(find_project(session, name) for name in projects))
            with db.write() as session:
                note_judgements(session, *(find_project(session, name) for name in projects))
        write_judgements(path, found.rows)
        counts = found.counts()
    text = f"{path}: {counts['judgements']} judgements of {counts['raters']} raters on {counts['items']} items"
    if counts["without_models"]:
        text += f"; left out, because fewer than two models of theirs are known: {counts['without_models']} items"
    say({"projects": list(projects), "file": str(path), "counts": counts}, as_json, text)
