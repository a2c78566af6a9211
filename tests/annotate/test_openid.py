"""Signing in through an OpenID Connect provider: a real one, small, on localhost, which can also lie."""

import base64
import hashlib
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response

from tests.annotate.conftest import PASSWORD, Annotate, Server
from tests.annotate.people import invitation, patch, people_of

jwt = pytest.importorskip("joserfc.jwt", reason="no OpenID Connect: pip install '.[openid]'")
jwk = pytest.importorskip("joserfc.jwk")
pytest.importorskip("authlib")

CLIENT, SECRET = "concord-of-the-test", "secret of the client"


class Provider:
    """An OpenID provider. `person` are the claims of whoever signs in; `lies` replace claims of the ID token."""

    def __init__(self) -> None:
        self.key = jwk.RSAKey.generate_key(2048, {"kid": "one", "use": "sig"})
        self.signs_with, self.header = self.key, {"alg": "RS256", "kid": "one"}
        self.person: dict[str, Any] = {}
        self.lies: dict[str, Any] = {}
        self.without_token = False
        self.codes: dict[str, dict[str, str]] = {}
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.issuer = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.calls_itself = self.issuer
        self.server = uvicorn.Server(uvicorn.Config(self._app(), log_level="error"))
        threading.Thread(target=self.server.run, kwargs={"sockets": [self.listener]}, daemon=True).start()

    def _app(self) -> FastAPI:
        app = FastAPI()

        @app.get("/.well-known/openid-configuration")
        def discovery() -> dict[str, Any]:
            return {
                "issuer": self.calls_itself,
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/jwks",
                "response_types_supported": ["code"],
                "id_token_signing_alg_values_supported": ["RS256", "HS256", "none"],
            }

        @app.get("/jwks")
        def keys() -> dict[str, Any]:
            return {"keys": [self.key.as_dict(private=False)]}

        @app.get("/authorize")
        def authorize(request: Request) -> Response:
            asked = dict(request.query_params)
            assert asked["client_id"] == CLIENT and asked["response_type"] == "code"
            assert asked["code_challenge_method"] == "S256" and asked["nonce"] and asked["state"]
            assert "openid" in asked["scope"].split()
            code = secrets.token_urlsafe(8)
            self.codes[code] = asked
            return RedirectResponse(f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state']})}")

        @app.post("/token")
        async def token(request: Request) -> Response:
            given = {key: values[0] for key, values in parse_qs((await request.body()).decode()).items()}
            basic = base64.b64decode(request.headers["authorization"].removeprefix("Basic ")).decode()
            assert basic.split(":")[0] == CLIENT and SECRET.split()[0] in basic
            asked = self.codes.pop(given["code"])
            challenge = hashlib.sha256(given["code_verifier"].encode()).digest()
            assert base64.urlsafe_b64encode(challenge).decode().rstrip("=") == asked["code_challenge"]
            assert given["redirect_uri"] == asked["redirect_uri"]
            answer = {"access_token": secrets.token_urlsafe(8), "token_type": "Bearer"}
            if not self.without_token:
                answer["id_token"] = self._id_token(asked["nonce"])
            return JSONResponse(answer)

        return app

    def _id_token(self, nonce: str) -> str:
        now = int(time.time())
        claims = {"iss": self.issuer, "aud": CLIENT, "iat": now, "exp": now + 300, "nonce": nonce}
        claims = {**claims, **self.person, **self.lies}
        algorithms = [self.header["alg"]]
        claims = {key: value for key, value in claims.items() if value is not None}
        return jwt.encode(self.header, claims, self.signs_with, algorithms=algorithms)


@pytest.fixture(scope="module")
def running() -> Iterator[Provider]:
    provider = Provider()
    yield provider
    provider.server.should_exit = True


@pytest.fixture
def provider(running: Provider) -> Provider:
    """The provider, honest."""
    running.person = {"sub": f"sub-{secrets.token_hex(4)}", "email": "nobody@example.org", "email_verified": True}
    running.lies, running.without_token, running.calls_itself = {}, False, running.issuer
    running.signs_with, running.header = running.key, {"alg": "RS256", "kid": "one"}
    return running


def configure(annotate: Annotate, issuer: str) -> None:
    annotate.environment["ANNOTATE_OPENID_ISSUER"] = issuer
    annotate.environment["ANNOTATE_OPENID_CLIENT_ID"] = CLIENT
    (annotate.folder / "secret").write_text(SECRET + "\n")
    annotate.environment["ANNOTATE_OPENID_CLIENT_SECRET_FILE"] = "secret"


@pytest.fixture(scope="module")
def server(shared_annotate: Annotate, running: Provider) -> Iterator[Server]:
    annotate = shared_annotate
    annotate.ok("project", "create", "p")
    annotate.person("p", "anna@example.org")
    annotate.person("p", "olga", "--role", "owner")
    configure(annotate, running.issuer)
    with annotate.served(api_only=True) as started:
        yield started


class Browser(httpx.Client):
    def __init__(self, server: Server) -> None:
        super().__init__(base_url=server.url, timeout=30)

    def comes_in(self, **query: str) -> httpx.Response:
        """Press the button and follow the provider back; returns what the callback answers."""
        to_provider = self.get("/login/openid", params=query)
        assert to_provider.status_code == 302, to_provider.text
        back = httpx.get(to_provider.headers["location"])
        assert back.status_code == 307
        return self.get(back.headers["location"])

    def login(self) -> str | None:
        answer = self.get("/api/v1/me")
        return answer.json()["login"] if answer.status_code == 200 else None


def refused(answer: httpx.Response) -> bool:
    """The browser hears that this proves nothing, and is not signed in."""
    return answer.status_code == 400 and "does not prove" in answer.text and "concord_session" not in answer.cookies


def test_the_login_page_has_a_button(server: Server) -> None:
    page = httpx.get(server.url + "/login?next=/account").text
    assert 'Sign in through <bdi dir="ltr">127.0.0.1' in page and "/login/openid?next=%2Faccount" in page


def test_without_a_provider_there_is_no_way_in(annotate: Annotate) -> None:
    annotate.ok("project", "create", "p")
    with annotate.served(api_only=True) as plain:
        assert "openid" not in httpx.get(plain.url + "/login").text
        for path in ("/login/openid", "/login/openid/callback?code=x&state=y"):
            assert httpx.get(plain.url + path).status_code == 404


def test_a_verified_address_that_is_a_login_comes_in(server: Server, provider: Provider) -> None:
    provider.person |= {"sub": "annas-number", "email": "Anna@Example.org"}
    browser = Browser(server)
    answer = browser.comes_in(next="/account")
    assert answer.status_code == 303 and answer.headers["location"] == "/account"
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=lax" in cookie
    assert browser.login() == "anna@example.org"
    # From now on the provider's number counts, whatever the address becomes.
    provider.person = {"sub": "annas-number", "email": "other@example.org", "email_verified": False}
    again = Browser(server)
    assert again.comes_in(next="https://evil.example/").headers["location"] == "/"
    assert again.login() == "anna@example.org"
    # The password still works, and another account with this address does not come in.
    server.visitor("anna@example.org")
    provider.person = {"sub": "somebody-else", "email": "anna@example.org", "email_verified": True}
    other = Browser(server).comes_in()
    assert other.status_code == 403 and "another account" in other.text


@pytest.mark.parametrize("verified", [False, None, "true", 1])
def test_an_address_that_is_not_verified_is_nobodys(server: Server, provider: Provider, verified: Any) -> None:
    provider.person |= {"email": "olga", "email_verified": verified}
    browser = Browser(server)
    answer = browser.comes_in()
    assert answer.status_code == 403 and "ask the owner of the project for an invitation link" in answer.text
    assert browser.login() is None


def test_who_is_unknown_gets_no_account(server: Server, provider: Provider) -> None:
    before = set(people_of(server.visitor("olga")))
    browser = Browser(server)
    assert browser.comes_in().status_code == 403
    assert browser.login() is None and set(people_of(server.visitor("olga"))) == before


def test_an_invitation_lets_in_who_the_provider_vouches_for(server: Server, provider: Provider) -> None:
    olga = server.visitor("olga")
    path = invitation(olga, role="reviewer")
    token = path.removeprefix("/join/")
    assert f"/login/openid?join={token}" in httpx.get(server.url + path).text
    provider.person |= {"email": "fay@example.org"}
    browser = Browser(server)
    assert browser.comes_in(join=token).status_code == 303
    assert browser.login() == "fay@example.org" and people_of(olga)["fay@example.org"]["role"] == "reviewer"
    used = Browser(server)
    provider.person |= {"sub": "another"}
    assert used.comes_in(join=token).status_code in (403, 410) and used.login() is None
    # Without a password there is no way in by password, and no error that tells so.
    for password in ("", "x", PASSWORD):
        answer = httpx.post(server.url + "/login", data={"login": "fay@example.org", "password": password})
        assert answer.status_code == 401
    # Without a verified address the login is made up.
    provider.person = {"sub": "gus"}
    nameless = Browser(server)
    assert nameless.comes_in(join=invitation(olga).removeprefix("/join/")).status_code == 303
    assert str(nameless.login()).startswith("openid-")


def test_who_was_removed_stays_out(server: Server, provider: Provider) -> None:
    olga = server.visitor("olga")
    provider.person |= {"email": "hal@example.org"}
    browser = Browser(server)
    browser.comes_in(join=invitation(olga).removeprefix("/join/"))
    assert patch(olga, "hal@example.org", {"removed": True}).status_code == 200
    answer = Browser(server).comes_in(join=invitation(olga).removeprefix("/join/"))
    assert answer.status_code == 403 and "removed from this project" in answer.text


LIES: dict[str, dict[str, Any]] = {
    "nonce": {"nonce": "of-another-login"},
    "no nonce": {"nonce": None},
    "audience": {"aud": "another-client"},
    "audience with our azp": {"aud": "another-client", "azp": CLIENT},
    "audience of two without azp": {"aud": [CLIENT, "another-client"], "azp": "another-client"},
    "no audience": {"aud": None},
    "issuer": {"iss": "https://evil.example"},
    "no subject": {"sub": None},
    "expired": {"exp": int(time.time()) - 600, "iat": int(time.time()) - 900},
    "no expiry": {"exp": None},
    "not yet": {"nbf": int(time.time()) + 3600},
}


@pytest.mark.parametrize("lie", LIES)
def test_a_token_that_is_not_for_this_login_proves_nothing(server: Server, provider: Provider, lie: str) -> None:
    provider.person |= {"email": "olga", "sub": "olgas-number"}
    provider.lies = LIES[lie]
    browser = Browser(server)
    assert refused(browser.comes_in()) and browser.login() is None


def test_a_token_that_somebody_else_signed_proves_nothing(server: Server, provider: Provider) -> None:
    provider.person |= {"email": "olga"}
    provider.signs_with = jwk.RSAKey.generate_key(2048, {"kid": "one"})
    assert refused(Browser(server).comes_in())
    provider.signs_with = jwk.OctKey.import_key(SECRET)  # the client's secret, which is no proof of the provider
    provider.header = {"alg": "HS256", "kid": "one"}
    assert refused(Browser(server).comes_in())
    provider.without_token = True
    assert refused(Browser(server).comes_in())


def test_a_sign_in_ends_in_the_browser_where_it_began(server: Server, provider: Provider) -> None:
    provider.person |= {"email": "anna@example.org", "sub": "annas-number"}
    victim, attacker = Browser(server), Browser(server)
    to_provider = attacker.get("/login/openid").headers["location"]
    back = httpx.get(to_provider).headers["location"]
    answer = victim.get(back)
    assert answer.status_code == 400 and "another window" in answer.text and victim.login() is None
    victim.get("/login/openid")  # has begun one, but not this one
    assert refused(victim.get(back)) and victim.login() is None
    assert attacker.get(back).status_code == 303
    assert attacker.get(back).status_code == 400  # once
    for query in ("", "?code=x", "?state=y", "?error=access_denied&error_description=<b>no</b>"):
        answer = Browser(server).get("/login/openid/callback" + query)
        assert answer.status_code == 400 and "<b>" not in answer.text


def test_what_is_wrong_with_the_settings_is_said_at_the_start(annotate: Annotate, provider: Provider) -> None:
    annotate.ok("project", "create", "p")
    configure(annotate, provider.issuer)
    for name, value, words in (
        ("ANNOTATE_OPENID_ISSUER", "http://accounts.example.org", "https://"),
        ("ANNOTATE_OPENID_CLIENT_ID", "", "ANNOTATE_OPENID_CLIENT_ID"),
        ("ANNOTATE_OPENID_CLIENT_SECRET_FILE", "nowhere", "cannot read nowhere"),
        ("ANNOTATE_OPENID_CLIENT_SECRET_FILE", "", "ANNOTATE_OPENID_CLIENT_SECRET_FILE"),
    ):
        before = annotate.environment[name]
        annotate.environment[name] = value
        assert words in annotate.refuses("serve", "--api-only", "--port", "0")
        annotate.environment[name] = before


def test_a_provider_that_is_away_or_another_is_said(annotate: Annotate, provider: Provider) -> None:
    annotate.ok("project", "create", "p")
    configure(annotate, "http://127.0.0.1:9")
    with annotate.served(api_only=True) as server:
        answer = httpx.get(server.url + "/login/openid", timeout=30)
        assert answer.status_code == 502 and "be reached now" in answer.text
    configure(annotate, provider.issuer)
    provider.calls_itself = "https://evil.example"
    with annotate.served(api_only=True) as server:
        assert httpx.get(server.url + "/login/openid").status_code == 502
        provider.calls_itself = provider.issuer
        assert httpx.get(server.url + "/login/openid").status_code == 302  # it mends itself
        assert urlsplit(httpx.get(server.url + "/login/openid").headers["location"]).netloc in provider.issuer
