"""The Content-Security-Policy in a real browser: our own pages keep to it, and it stops what it must stop."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.annotate.conftest import PASSWORD, Annotate, Server

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def policed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    """A server, and the path of a link to join."""
    annotate = Annotate(tmp_path_factory.mktemp("policy"))
    annotate.ok("project", "create", "p")
    annotate.person("p", "anna")
    annotate.person("p", "olga", "--role", "owner")
    with annotate.served() as server:
        olga = server.visitor("olga")
        made = olga.http.post(f"{olga.project}/invitations", json={"role": "rater"})
        assert made.status_code == 201, made.text
        yield server, made.json()["path"]


def test_our_pages_keep_to_the_policy(policed: tuple[Server, str], page, sign_in) -> None:
    """Nothing is refused by it, and nothing is missing from the server."""
    server, link = policed
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    for path in ("/login", link, "/join/no-link.at-all"):
        page.goto(server.url + path)
        page.wait_for_load_state("networkidle")
    expected = [text for text in said if "404" in text]  # the page of a link that is none
    for login, pages in (("anna", ("/rate/", "/account", "/owner/")), ("olga", ("/owner/", "/account", "/rate/"))):
        page.context.clear_cookies()
        sign_in(page, server.url, login, PASSWORD)
        page.wait_for_url(lambda url: "/login" not in url)
        for path in pages:
            page.goto(server.url + path)
            page.wait_for_load_state("networkidle")
    left = [text for text in said if text not in expected and "403" not in text]  # each is refused the other's page
    assert left == []


@pytest.fixture
def elsewhere() -> Iterator[tuple[str, list[str]]]:
    """Another site, and what arrives there."""
    got: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            got.append(f"{self.command} {self.path}")
            self.send_response(204)
            self.end_headers()

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", got
    server.shutdown()
    server.server_close()


TRY_ALL = """async site => {
    const seen = [];
    document.addEventListener("securitypolicyviolation", event => seen.push(event.effectiveDirective));
    const add = (tag, more) => document.body.append(Object.assign(document.createElement(tag), more));
    add("img", {src: site + "/image"});
    add("script", {src: site + "/script"});
    add("iframe", {src: site + "/frame"});
    add("link", {rel: "stylesheet", href: site + "/style"});
    add("video", {src: site + "/video"});
    await fetch(site + "/fetch", {mode: "no-cors"}).catch(() => 0);
    navigator.sendBeacon(site + "/beacon", "x");
    add("form", {action: site + "/form", method: "post", id: "leaks"});
    document.getElementById("leaks").submit();
    await new Promise(done => setTimeout(done, 1000));
    return seen;
}"""


@pytest.mark.parametrize("path", ["/login", "/rate/"])
def test_nothing_goes_elsewhere_even_from_a_script(
    policed: tuple[Server, str], elsewhere: tuple[str, list[str]], page, sign_in, path: str
) -> None:
    server, _ = policed
    site, got = elsewhere
    sign_in(page, server.url, "anna", PASSWORD)
    page.wait_for_url("**/rate/**")
    page.goto(server.url + path)
    blocked = page.evaluate(TRY_ALL, site)
    assert got == []
    wanted = {"img-src", "script-src-elem", "frame-src", "style-src-elem", "media-src", "connect-src", "form-action"}
    assert wanted <= set(blocked)


def test_an_inline_script_does_not_run_on_a_plain_page(policed: tuple[Server, str], page) -> None:
    page.goto(policed[0].url + "/login")
    page.evaluate(
        """() => {
            const script = document.createElement("script"); script.textContent = "window.ran = 1";
            document.body.append(script);
            document.body.insertAdjacentHTML("beforeend", "<img src=/nothing onerror='window.ran = 1'>");
        }"""
    )
    page.wait_for_timeout(500)
    assert page.evaluate("window.ran") is None
