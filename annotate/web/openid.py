"""Signing in through an OpenID Connect provider, if the environment names one. Authlib speaks the protocol.

ANNOTATE_OPENID_ISSUER, ANNOTATE_OPENID_CLIENT_ID, and ANNOTATE_OPENID_CLIENT_SECRET or …_SECRET_FILE. Register the
address of this server with /login/openid/callback at the provider.
"""

import logging
import os
from html import escape
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

from anyio.to_thread import run_sync
from fastapi import APIRouter, Request
from fastapi.responses import Response

from annotate.services.openid import come_in
from annotate.services.refusals import Refused
from annotate.services.secrets import secret_from_environment, signing_key
from annotate.web.plain import FAILURES, PlainRoute, address, local, message_page, sign_in
from annotate.web.words import later, told
from preferences.errors import BadInput

log = logging.getLogger("annotate")
router = APIRouter(include_in_schema=False, route_class=PlainRoute)
COOKIE = "concord_openid"  # what a sign-in that has begun must find again when it comes back
BEGUN_SECONDS = 600
LEEWAY = 60  # seconds that clocks may differ
# Signatures with a public key only: with others the client's own secret, or nothing, would sign.
ALGORITHMS = {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
FAILED = later("Signing in did not work")


class Provider(NamedTuple):
    """`client` is Authlib's."""

    issuer: str
    client_id: str
    client: Any

    @property
    def host(self) -> str:
        return urlsplit(self.issuer).netloc


def provider_from_environment() -> Provider | None:
    """The provider that the environment names, or None. Raises BadInput if something about it is missing or unsafe."""
    issuer, client_id = (os.environ.get(f"ANNOTATE_OPENID_{name}", "").strip() for name in ("ISSUER", "CLIENT_ID"))
    if not issuer:
        return None
    parts = urlsplit(issuer)
    if parts.scheme != "https" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        raise BadInput(f"ANNOTATE_OPENID_ISSUER: {issuer} is not an https:// address; passwords would be in the open")
    secret = secret_from_environment("ANNOTATE_OPENID_CLIENT_SECRET", shortest=8)
    if not client_id or secret is None:
        raise BadInput(
            "ANNOTATE_OPENID_ISSUER needs ANNOTATE_OPENID_CLIENT_ID, and ANNOTATE_OPENID_CLIENT_SECRET or"
            " ANNOTATE_OPENID_CLIENT_SECRET_FILE beside it"
        )
    try:
        import itsdangerous  # noqa: F401
        from authlib.integrations.starlette_client import OAuth  # type: ignore[import-untyped]
    except ModuleNotFoundError as error:
        raise BadInput(f"OpenID Connect needs {error.name}; run `pip install 'concord[openid]'`") from None
    client = OAuth().register(
        "concord",
        client_id=client_id,
        client_secret=secret,
        server_metadata_url=f"{issuer.rstrip('/')}/.well-known/openid-configuration",
        client_kwargs={"scope": "openid email", "code_challenge_method": "S256", "timeout": 10},
    )
    return Provider(issuer, client_id, client)


def openid_link(request: Request, *, next: str = "/", join: str = "") -> str:
    """HTML of the button that signs in, or joins, through the provider; nothing where there is none."""
    provider: Provider | None = request.app.state.openid
    if provider is None:
        return ""
    query = urlencode({"join": join} if join else {"next": local(next)})
    host = f'<bdi dir="ltr">{escape(provider.host)}</bdi>'
    words = told(request, "Join through {provider}" if join else "Sign in through {provider}", provider=host)
    return f'<p class="or"><a href="/login/openid?{escape(query)}">{words}</a></p>'


@router.get("/login/openid")
async def begin(request: Request, next: str = "/", join: str = "") -> Response:
    """Send the browser to the provider, with state, nonce and PKCE."""
    provider = _provider(request)
    kept = request.scope["session"] = {"next": local(next)[:500], "join": join[:200]}
    try:
        await _check_provider(provider)
        response = await provider.client.authorize_redirect(request, str(request.url_for("openid_callback")))
    except Exception as error:
        return _failed(request, error, later(f"{provider.host} can't be reached now; try again later."), 502)
    cookie = (await run_sync(_serializer, request)).dumps(kept)
    secure = request.url.scheme == "https"
    # Lax, since the provider's page sends the browser back.
    response.set_cookie(
        COOKIE, cookie, max_age=BEGUN_SECONDS, path="/login/openid", httponly=True, samesite="lax", secure=secure
    )
    return response


@router.get("/login/openid/callback", name="openid_callback")
async def come_back(request: Request) -> Response:
    """Exchange the code for an ID token, check it, and sign in whom it names."""
    provider = _provider(request)
    FAILURES.count(address(request))
    from itsdangerous import BadData

    serializer = await run_sync(_serializer, request)
    try:
        begun = serializer.loads(request.cookies.get(COOKIE, ""), max_age=BEGUN_SECONDS)
    except BadData as error:
        return _failed(request, error, later("It took too long, or began in another window; try again."), 400)
    request.scope["session"] = begun
    try:
        await _check_provider(provider)
        token = await provider.client.authorize_access_token(
            request,
            leeway=LEEWAY,
            claims_options={
                "iss": {"essential": True, "value": provider.issuer},
                "aud": {"essential": True, "value": provider.client_id},
            },
        )
        claims = dict(token["userinfo"])
    except Exception as error:  # whatever the provider, or somebody in its place, has sent
        return _failed(
            request, error, later(f"What {provider.host} answered does not prove who you are; try again."), 400
        )

    def finish() -> Response:
        with request.app.state.database.write() as session:
            person = come_in(session, claims, begun["join"])
        return sign_in(request, person, begun["next"])

    response = await run_sync(finish)
    FAILURES.give_back(address(request))
    response.delete_cookie(COOKIE, path="/login/openid")
    return response


def _provider(request: Request) -> Provider:
    provider: Provider | None = request.app.state.openid
    if provider is None:
        raise Refused("not-found", "This server has no such way to sign in.")
    return provider


async def _check_provider(provider: Provider) -> None:
    """What the provider says of itself must fit what was configured. Raises ValueError if not."""
    metadata = await provider.client.load_server_metadata()
    if metadata.get("issuer") != provider.issuer:
        provider.client.server_metadata.clear()  # read it anew next time
        raise ValueError(f"the issuer calls itself {metadata.get('issuer')!r}")
    offered = metadata.get("id_token_signing_alg_values_supported") or ["RS256"]
    metadata["id_token_signing_alg_values_supported"] = [name for name in offered if name in ALGORITHMS] or ["RS256"]


def _serializer(request: Request) -> Any:
    from itsdangerous import URLSafeTimedSerializer

    with request.app.state.database.write() as session:
        return URLSafeTimedSerializer(signing_key(session), salt="openid")


def _failed(request: Request, error: Exception, text: str, status: int) -> Response:
    # What a browser or a provider has sent stays on one line.
    log.warning("OpenID Connect: %s: %r", type(error).__name__, str(error)[:200])
    return message_page(request, FAILED, text, status)
