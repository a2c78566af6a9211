"""The words of the pages and of the server: complete in each language, fitting, and chosen for who asks."""

import json
import re
import time
from html import escape
from pathlib import Path

import httpx
import pytest

from annotate.api.words import LANGUAGES, chosen, languages, say, sentences, translated
from annotate.services.answers import UNDO_SECONDS
from annotate.web.login import WRONG
from tests.annotate.conftest import PAIR, Annotate, Server
from tests.annotate.missing_words import PLACE, of_page, of_python, of_script, used

FILES = sorted(LANGUAGES.glob("*.json"))


@pytest.fixture(scope="module")
def all_used() -> dict[str, str]:
    return used()


@pytest.fixture(scope="module")
def server(shared_annotate: Annotate) -> Server:
    shared_annotate.write("items.jsonl", PAIR)
    shared_annotate.ok("project", "create", "p", "--overlap", "2")
    shared_annotate.ok("import", "p", "items.jsonl")
    for login, role in (("anna", "rater"), ("olga", "owner")):
        shared_annotate.person("p", login, "--role", role)
    with shared_annotate.served(api_only=True) as running:
        yield running


def test_five_languages() -> None:
    assert set(languages()) >= {"en", "ar", "de", "es", "zh"}
    assert languages()["ar"] == "العربية" and next(iter(languages())) == "en"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_sentence_is_there_in_every_language(file: Path, all_used: dict[str, str]) -> None:
    has = sentences(file.stem)
    lacks = [f"{sentence!r} ({name})" for sentence, name in sorted(all_used.items()) if sentence not in has]
    assert not lacks, f"{file.name} lacks, see `python -m tests.annotate.missing_words {file.stem}`:\n" + "\n".join(
        lacks
    )


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_no_sentence_is_there_that_nothing_says(file: Path, all_used: dict[str, str]) -> None:
    assert sorted(sentences(file.stem).keys() - all_used.keys()) == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_translation_fits_its_sentence(file: Path) -> None:
    """The same places for values, so that nothing is lost; text only; and it ends as the sentence does."""
    ends = {".": ".。", "?": "?؟？", "…": "…", ":": ":：", "!": "!！"}
    for sentence, said in sentences(file.stem).items():
        assert set(PLACE.findall(said)) == set(PLACE.findall(sentence)), sentence
        assert said == said.strip() and said, sentence
        assert not re.search(r"[<>]|&\w+;", said), f"HTML in {said!r}"
        assert said[-1] in ends.get(sentence[-1], said[-1]), f"{sentence!r} ends otherwise than {said!r}"
        assert ("✓" in sentence) == ("✓" in said), sentence


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_files_are_in_order(file: Path) -> None:
    """Sorted, an entry a line, each key once: so that changes of several people merge."""
    pairs = json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=list)
    keys = [key for key, _ in pairs]
    assert keys == sorted(set(keys))
    assert file.read_text(encoding="utf-8") == json.dumps(dict(pairs), ensure_ascii=False, indent=2) + "\n"


def test_sentences_are_found_in_code() -> None:
    script = """
      // t("not this")
      t("One"); at("two"); tn("Three {link}.", { link: made }); words.t("Four, five");
      const TABLE = [["x", later("Six")]]; t(kind === "seven" ? "Eight" : "Nine"); t(nameOf("ten"), { eleven: "12" });
    """
    assert list(of_script(script)) == ["One", "Three {link}.", "Four, five", "Six", "Eight", "Nine", "ten"]
    html = '<p data-t> One\n two <b>no</b></p><a data-t-title title="Three">no</a><i data-t-label aria-label="4"></i>'
    assert of_page(html) == ["One two", "Three", "4"]
    python = """
def f(request, n):
    words = "Two." if n else f"Three {n + 1} {request.url}."
    told(request, "One")
    raise Refused("forbidden", words)
def g():
    raise BadInput(f"four {len(x)!r}")
"""
    assert list(of_python(python, mended=True)) == ["One", "Two.", "Three {n} {url}.", "Four {x}."]


def test_the_language_that_is_asked_for() -> None:
    assert chosen(None, "") == "en"
    assert chosen(None, "fr-FR, ar-EG;q=0.8, de;q=0.7") == "ar"
    assert chosen(None, "de;q=0.7,es") == "es"
    assert chosen(None, "DE-at") == "de"
    assert chosen(None, "zh-Hant;q=0, de;q=0.1") == "de"
    assert chosen(None, "*;q=0.5, xx;q=nonsense, de;q=x") == "en"
    assert chosen("zh", "de") == "zh", "what was chosen comes first"
    assert chosen("xx", "de") == "de"
    assert chosen("../../etc/passwd", "") == "en"


def test_values_are_put_in_as_they_are() -> None:
    assert say("de", "Join as {login}", login="{x} \\1") == sentences("de")["Join as {login}"].format(login="{x} \\1")
    assert say("de", "No such sentence {at} all", at=3) == "No such sentence 3 all"


def test_a_made_sentence_finds_its_translation() -> None:
    minutes = f"{UNDO_SECONDS / 60:.0f}"
    told = translated("de", f"An answer can be changed for {minutes} minutes only.")
    assert minutes in told and told != f"An answer can be changed for {minutes} minutes only."
    short = translated("es", "the password is too short: give at least 8 characters.")  # as BadInput has it
    assert "8" in short and "contraseña" in short
    right = translated("de", "You may not do this here: it takes the right to review in this project.")
    assert "review" not in right, "values that are words of ours are translated, too"
    assert translated("de", "Nobody ever wrote this.") == "Nobody ever wrote this."
    assert translated("en", "Read the guidelines first.") == "Read the guidelines first."


def test_no_sentence_takes_long_to_find() -> None:
    """Somebody may have a refusal quote what they like."""
    for quoted in (" " * 600 + " for" * 310, " " * 200 + " for" * 70, " x" * 100 + " for" * 60):
        began = time.process_time()
        translated("de", f"This answer can't be stored: ratings: there is no dimension {quoted!r}; there are 'a'.")
        assert time.process_time() - began < 0.3


def test_refusals_are_in_the_language_of_who_asks(server: Server) -> None:
    """Chosen, or of the browser; `rule` stays; and scripts that say nothing hear English."""
    anna = server.visitor("anna").http
    path = "/api/v1/projects/1/report"
    plain = anna.get(path).json()
    german = anna.get(path, headers={"Accept-Language": "de-DE,de;q=0.9"}).json()
    assert plain["detail"].startswith("You may not do this here") and plain["title"] == "Not allowed"
    assert german["rule"] == plain["rule"] == "forbidden" and german["type"] == plain["type"]
    assert german["detail"] == translated("de", plain["detail"]) != plain["detail"]
    assert german["title"] == sentences("de")["Not allowed"]
    anna.cookies.set("concord_language", "zh")
    assert anna.get(path, headers={"Accept-Language": "de"}).json()["title"] == sentences("zh")["Not allowed"]
    assert (
        anna.get("/api/v1/nothing", headers={"Accept-Language": "de"}).json()["title"] == sentences("zh")["Not there"]
    )


@pytest.mark.parametrize("language", sorted(languages()))
def test_plain_pages_speak_it(language: str, server: Server) -> None:
    guest = httpx.Client(base_url=server.url, headers={"Accept-Language": language})
    page = guest.get("/login?next=/account").text
    assert f'<html lang="{language}" dir="{"rtl" if language == "ar" else "ltr"}">' in page
    assert f"<h1>{say(language, 'Sign in')}</h1>" in page
    assert f'value="{language}" lang="{language}" aria-current="true"' in page
    wrong = guest.post("/login", data={"login": "anna", "password": "wrong"}).text
    assert escape(say(language, WRONG), quote=True) in wrong
    gone = guest.get("/join/no-such-link")
    assert gone.status_code == 404 and say(language, "Not there") in gone.text
    account = server.visitor("anna").http.get("/account", headers={"Accept-Language": language}).text
    assert say(language, "Download all that is stored about you") in account


def test_a_choice_is_kept_with_the_browser_and_with_the_person(server: Server) -> None:
    here = server.visitor("olga").http
    assert here.get("/api/v1/me").json()["language"] is None
    chosen = here.post("/language", data={"language": "ar", "next": "/account"})
    assert chosen.status_code == 303 and chosen.headers["location"] == "/account"
    assert here.cookies["concord_language"] == "ar" and 'dir="rtl"' in here.get("/account").text
    assert here.get("/api/v1/me").json()["language"] == "ar"
    here.post("/logout")
    assert 'lang="ar"' in here.get("/login").text, "remembered after signing out"
    elsewhere = server.visitor("olga").http
    assert elsewhere.cookies["concord_language"] == "ar", "and by another browser after signing in"
    assert elsewhere.put("/api/v1/me/language", json={"language": "es"}).status_code == 204
    assert elsewhere.cookies["concord_language"] == "es"
    third = server.visitor("olga").http
    elsewhere.put("/api/v1/me/language", json={"language": "de"})
    assert third.cookies["concord_language"] == "es"
    third.get("/api/v1/me")
    assert third.cookies["concord_language"] == "de", "what was chosen elsewhere arrives"
    for wrong in ("fr", "../de", ""):
        assert third.put("/api/v1/me/language", json={"language": wrong}).status_code == 422
    assert third.put("/api/v1/me/language", json={"language": None}).status_code == 204
    assert "concord_language" not in third.cookies and third.get("/api/v1/me").json()["language"] is None


def test_nobody_signed_in_may_choose_and_no_other_site_for_them(server: Server) -> None:
    guest = httpx.Client(base_url=server.url)
    assert (
        guest.post("/language", data={"language": "de"}, headers={"Origin": "https://evil.example"}).status_code == 403
    )
    assert guest.post("/language", data={"language": "fr", "next": "//evil.example"}).headers["location"] == "/"
    assert "concord_language" not in guest.cookies
    guest.post("/language", data={"language": "de", "next": "/login"})
    assert guest.cookies["concord_language"] == "de" and 'lang="de"' in guest.get("/login").text
