"""`annotate serve`: the pages and the API, until it is told to stop."""

import contextlib
import signal
import socket

import click

from annotate.commands.common import database_option, use_database
from preferences.errors import BadInput


@click.command(short_help="Serve the pages of all projects.")
@click.option("--host", default="127.0.0.1", show_default=True, help="0.0.0.0 lets other machines in.")
@click.option("--port", default=7860, show_default=True)
@click.option("--api-only", is_flag=True, help="Leave the pages out: for scripts, or beside servers that have them.")
@click.option(
    "--logs",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="On stderr: only what went wrong, or a JSON line for every request.",
)
@click.option(
    "--webhooks-to-private-addresses",
    is_flag=True,
    help="Let owners send webhooks to this machine and its network, not only to the public internet.",
)
@click.option(
    "--models",
    metavar="FILE",
    help="A YAML file of models that raters of arena projects chat with; docs/arena.md says what is in it.",
)
@database_option
def serve(
    host: str,
    port: int,
    api_only: bool,
    logs: str,
    webhooks_to_private_addresses: bool,
    models: str | None,
    database: str | None,
) -> None:
    """Serve the pages of all projects in the database: raters rank, owners watch.

    SIGTERM or Ctrl-C stops it; what is under way may finish first. docs/operation.md tells how to run it for long.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # or else it would be a failure, not an end
    known = None
    if models is not None:
        from annotate.services.endpoints import read_endpoints

        known = read_endpoints(models)
    with contextlib.suppress(KeyboardInterrupt), use_database(database) as db, _listen(host, port) as listener:
        from annotate.app import serve_forever

        serve_forever(
            db,
            listener,
            pages=not api_only,
            logs=logs,
            webhooks_to_private_addresses=webhooks_to_private_addresses,
            models=known,
        )


def _listen(host: str, port: int) -> socket.socket:
    # TCP said aloud: asyncio sends small answers without delay (TCP_NODELAY) only over a socket that says so.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise BadInput(f"cannot listen on {host} port {port} ({reason}); choose another --port or --host") from None
    return listener
