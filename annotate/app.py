"""One web application: the login pages, the REST API, and, unless left out, the Gradio pages of raters and owners."""

import socket

import uvicorn
from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from annotate.api import account, items, projects, work
from annotate.api.problems import handle_problems
from annotate.store.database import Database
from annotate.web.gate import Gate
from annotate.web.login import STATIC
from annotate.web.login import router as login

ROUTERS = (account.router, projects.router, items.router, work.router)


def build_app(database: Database, *, pages: bool = True) -> FastAPI:
    """The whole application on one database; without `pages` nothing of Gradio, which takes seconds to import."""
    app = FastAPI(title="Concord annotate", docs_url=None, redoc_url=None, openapi_url="/api/v1/openapi.json")
    app.state.database = database
    handle_problems(app)
    app.include_router(login)
    for router in ROUTERS:
        app.include_router(router)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    if pages:
        from annotate.web.pages import mount_pages

        mount_pages(app, database)
    app.add_middleware(Gate, database=database)
    return app


def serve_forever(database: Database, listener: socket.socket, *, pages: bool = True) -> None:
    """Serve on a listening socket until Ctrl-C; prints the address when the pages are ready."""
    server = uvicorn.Server(
        uvicorn.Config(build_app(database, pages=pages), log_level="warning", timeout_graceful_shutdown=3)
    )
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    print(f"annotate serves {database.name} at http://{shown}:{port} (Ctrl-C stops it)", flush=True)
    server.run(sockets=[listener])
