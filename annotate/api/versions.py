"""Versions of what several people may change: an ETag goes out, and a change brings it back as If-Match."""

from fastapi import Response

from annotate.services.refusals import Refused


def say_version(response: Response, version: int) -> None:
    response.headers["ETag"] = f'"{version}"'


def version_of(if_match: str | None) -> int:
    """The version that an If-Match header names. Raises Refused without one."""
    if if_match is None:
        raise Refused("version-needed", 'Say which version you change, in the header If-Match, as in If-Match: "3".')
    number = if_match.strip().removeprefix("W/").strip('"')
    if not (number.isascii() and number.isdigit() and len(number) < 10):
        raise Refused("bad-input", f'If-Match: {if_match[:40]!r} is no version; give the ETag, as in "3".')
    return int(number)
