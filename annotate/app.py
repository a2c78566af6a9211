"""One web application: the login pages, the REST API, and, unless left out, the Gradio pages of raters and owners."""

import gc
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from anyio.to_thread import current_default_thread_limiter
from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from annotate.api import account, arena, items, operation, people, projects, questions, steer, webhooks, work
from annotate.api.live import Arena
from annotate.api.problems import handle_problems
from annotate.api.words import LANGUAGES
from annotate.services.delivery import Courier
from annotate.services.endpoints import Endpoint
from annotate.services.secrets import secret_from_environment, signing_key
from annotate.store.database import THREADS, Database
from annotate.web import account as account_page
from annotate.web import links, openid
from annotate.web.gate import Gate
from annotate.web.login import STATIC
from annotate.web.login import router as login
from annotate.web.watch import Watch, log_to_stderr

ROUTERS = (
    account.router,
    people.router,
    projects.router,
    items.router,
    work.router,
    arena.router,
    questions.router,
    steer.router,
    webhooks.router,
    operation.router,
    links.router,
    account_page.router,
    openid.router,
)
# A report on 10,000 items makes hundreds of thousands of objects. With Python's own thresholds (700, 10, 10) half of
# the time goes into looking through them for cycles while they are made.
COLLECT_AFTER = (50_000, 20, 20)
STOP_SECONDS = 10  # for requests that are under way when the server is told to stop


@asynccontextmanager
async def _few_threads(app: FastAPI) -> AsyncIterator[None]:
    """No more threads than the database has connections. When it ends, so do the chats that are being answered."""
    current_default_thread_limiter().total_tokens = THREADS
    yield
    await app.state.arena.close()


def build_app(
    database: Database,
    *,
    pages: bool = True,
    metrics_token: str | None = None,
    models: dict[str, Endpoint] | None = None,
) -> FastAPI:
    """The whole application on one database; without `pages` nothing of Gradio, which takes seconds to import.

    `models` are those that raters of arena projects may chat with.
    """
    app = FastAPI(
        title="Concord annotate",
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/v1/openapi.json",
        lifespan=_few_threads,
        redirect_slashes=False,  # such a redirect would name the host that the request says it is for
    )
    app.state.database = database
    app.state.arena = Arena(database, models or {})
    app.state.openid = openid.provider_from_environment()
    app.state.metrics, app.state.metrics_token = operation.Metrics(), metrics_token
    with database.read() as session:
        app.state.schema = operation.schema(session)
    handle_problems(app)
    app.include_router(login)
    for router in ROUTERS:
        app.include_router(router)
    app.mount("/static/languages", StaticFiles(directory=LANGUAGES), name="languages")
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    if pages:
        from annotate.web.pages import mount_pages

        mount_pages(app)
    app.add_middleware(Gate, database=database)
    app.add_middleware(Watch, metrics=app.state.metrics)  # outermost: it sees what the gate refuses, too
    return app


def serve_forever(
    database: Database,
    listener: socket.socket,
    *,
    pages: bool = True,
    logs: str = "text",
    webhooks_to_private_addresses: bool = False,
    models: dict[str, Endpoint] | None = None,
) -> None:
    """Serve on a listening socket until SIGTERM or Ctrl-C; prints the address when the pages are ready.

    What is under way then may finish. Raises BadInput for a secret in the environment that is no good, and what the
    signal itself does, afterwards.
    """
    log_to_stderr(as_json=logs == "json")
    with database.write() as session:
        signing_key(session)  # so that all others can read it
    token = secret_from_environment("ANNOTATE_METRICS_TOKEN")
    app = build_app(database, pages=pages, metrics_token=token, models=models)
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)
    config = uvicorn.Config(
        app,
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    courier = Courier(database, private=webhooks_to_private_addresses)
    courier.start()
    print(f"annotate serves {database.name} at http://{shown}:{port} (Ctrl-C stops it)", flush=True)
    try:
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        courier.stop()
