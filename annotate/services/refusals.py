"""What the service refuses, and by which rule; the API answers with the rule's status as problem+json (RFC 9457)."""

RULES: dict[str, tuple[int, str]] = {
    # rule: (HTTP status, title); docs/api.md explains each
    "signed-out": (401, "Nobody is signed in"),
    "forbidden": (403, "Not allowed"),
    "csrf": (403, "The page is out of date"),
    "cross-site": (403, "The request comes from another site"),
    "not-found": (404, "Not there"),
    "method-not-allowed": (405, "Not this way"),
    "not-yours": (409, "Not given to you"),
    "already-answered": (409, "Answered already"),
    "already-skipped": (409, "Skipped already"),
    "assignment-expired": (409, "The lease is over and others have the item"),
    "wrong-revision": (409, "Another answer stands by now"),
    "undo-too-late": (409, "Too late to change"),
    "key-reused": (409, "The key belongs to another submission"),
    "does-not-fit": (422, "The answer does not fit the item"),
    "revealed": (409, "The models are known"),
    "still-writing": (409, "The models are at work"),
    "no-models": (409, "The models are not there"),
    "project-closed": (409, "The project is closed"),
    "guidelines-first": (409, "Guidelines come first"),
    "consent-first": (409, "Consent comes first"),
    "already-there": (409, "There already"),
    "last-owner": (409, "A project keeps an owner"),
    "part-elsewhere": (409, "Has a part in other projects, too"),
    "link-used": (410, "The link is used up"),
    "link-expired": (410, "The link has expired"),
    "wrong-version": (412, "Changed by somebody else"),
    "too-long": (413, "Too long"),
    "bad-input": (422, "Bad input"),
    "version-needed": (428, "Say which version you change"),
    "too-many-requests": (429, "Too many requests"),
    "server-error": (500, "The server made a mistake"),
    "not-ready": (503, "Not ready"),
    "database-failed": (503, "The database failed"),
}


class Refused(Exception):
    """Something that the service does not do: `rule` is a key of RULES, `detail` one sentence for the person.

    `facts` are further members of the problem document, such as the version that stands.
    """

    def __init__(self, rule: str, detail: str, **facts: object) -> None:
        super().__init__(detail)
        assert rule in RULES, rule
        self.rule = rule
        self.detail = detail
        self.facts = facts
