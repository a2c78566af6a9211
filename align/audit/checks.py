"""Checks of copies, and of what single texts say: each with a number, plain words, what to do, and examples."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from align.audit import copies, texts
from align.audit.verdicts import EXAMPLES, FEW, Check, Rows, check, excerpt, of, percent, some


def all_of(found: Rows) -> list[Check]:
    """Those of these checks that suit the kind of data."""
    checks = [leakage(found), near_duplicates(found)]
    if found.kind != "prompts":  # each prompt is taken once
        checks.append(duplicates(found))
    if found.kind == "pairs":
        checks += [degenerate(found), contradictions(found), cycles(found)]
    if found.kind != "prompts":
        checks += [empty(found), cut_off(found), refusals(found), identity(found)]
    return [*checks, personal_data(found), slurs(found)]


# --- copies -----------------------------------------------------------------------------------------------------


def leakage(found: Rows) -> Check:
    title = "Held-out prompts that are trained on"
    held = len(found.rows) - found.trains
    if not held:
        return check("leakage", title, None, "Nothing is held out here; name what you will evaluate on with --eval.")
    leaks = copies.leaks(found.copies)
    by_prompt = {row for row, _, _ in leaks}
    in_group = [pair for pair in copies.shared_groups(found.copies, found.parts) if pair[0] not in by_prompt]
    count, near = len(leaks) + len(in_group), sum(similarity < 1 for _, _, similarity in leaks)
    sizes = Counter(found.part_of(row) for row in range(found.trains, len(found.rows)))
    in_part = Counter(found.part_of(row) for row in [*(leak[0] for leak in leaks), *(pair[0] for pair in in_group)])
    shares = {part: in_part[part] / size for part, size in sizes.items()}
    worst = max(shares, key=lambda part: shares[part])
    says = f"None of {held:,} held-out rows has a prompt or a group that is trained on."
    if count:
        says = f"{of(count, held, 'held-out rows')} have a prompt or a group that is trained on"
        kinds = {"the same prompt": len(leaks) - near, "nearly the same": near, "the same group": len(in_group)}
        says += " (" + ", ".join(f"{number:,} {kind}" for kind, number in kinds.items() if number) + ")."
        if len(sizes) > 1:
            says += f" Of {worst} it is {percent(shares[worst])}."
    leaks.sort(key=lambda leak: -leak[2])
    examples = some(leaks, lambda leak: found.example(leak[:2], f"similarity {leak[2]:.2f}"))
    examples += some(in_group, lambda pair: found.example(pair, "the same group"))
    return check(
        "leakage",
        title,
        shares[worst],
        says,
        "Take these rows out of training or out of the evaluation; split by prompt, as annotate export does.",
        count=count,
        facts={"same": len(leaks) - near, "near": near, "group": len(in_group), "shares": shares},
        examples=examples[:EXAMPLES],
    )


def duplicates(found: Rows) -> Check:
    again = _repeated(found, found.copies.prompt, found.copies.chosen, found.copies.rejected)
    count = len(again)
    says = (
        f"{of(count, found.trains, 'rows')} stand there before, word for word." if count else "Every row is there once."
    )
    return check(
        "duplicates",
        "Rows that are there twice",
        count / found.trains,
        says,
        "Keep one of each, or say with a weight how much it counts.",
        count=count,
        examples=some(again, found.example),
    )


def near_duplicates(found: Rows) -> Check:
    same = found.copies
    exact = {row for row, _ in _repeated(found, same.prompt, same.chosen, same.rejected)}
    again = [
        pair
        for pair in _repeated(found, same.prompt_family, same.chosen_family, same.rejected_family)
        if pair[0] not in exact
    ]
    count = len(again)
    says = (
        f"{of(count, found.trains, 'rows')} are nearly the same as an earlier one."
        if count
        else "No row is nearly another."
    )
    return check(
        "near_duplicates",
        "Rows that are nearly the same",
        count / found.trains,
        says,
        "Look whether a template or a crawl made them; keep one of each family.",
        count=count,
        examples=some(again, found.example),
    )


def _repeated(found: Rows, *columns: Any) -> list[tuple[int, int]]:
    return copies.repeated(*(column[: found.trains] for column in columns))


def degenerate(found: Rows) -> Check:
    rows = [row for row in copies.degenerate(found.copies) if row < found.trains]
    says = f"{of(len(rows), found.trains, 'rows')} prefer a response to itself, but for case and white space."
    return check(
        "degenerate",
        "Chosen and rejected are the same",
        len(rows) / found.trains,
        says if rows else "Chosen and rejected differ in every row.",
        "Take these rows out; where the two only differ in white space that matters, allow the check.",
        count=len(rows),
        examples=some(rows, lambda row: found.example([row])),
    )


def contradictions(found: Rows) -> Check:
    pairs = [pair for pair in copies.contradictions(found.copies) if max(pair) < found.trains]
    both = of(len(pairs), found.trains, "rows")
    says = f"{both} have their opposite elsewhere: the same two responses, the other one chosen."
    return check(
        "contradictions",
        "The same pair both ways",
        len(pairs) / found.trains,
        says if pairs else "No pair is there both ways.",
        "Where raters differed, make one row of each pair with their share as its preference, as annotate export"
        " does; where labels were mixed up, mend them.",
        count=len(pairs),
        examples=some([pair for pair in pairs if pair[0] > pair[1]], found.example),
    )


def cycles(found: Rows) -> Check:
    title = "Preferences that go round in a circle"
    triples = copies.cycles(found.copies)
    if not triples.complete:
        return check("cycles", title, None, "No prompt has three responses of which each pair was judged.")
    share = triples.cyclic / triples.complete
    return check(
        "cycles",
        title,
        share,
        f"{of(triples.cyclic, triples.complete, 'triples of responses')} are cyclic: a beats b, b beats c, c beats a.",
        "A scalar reward can't learn a cycle; have these prompts ranked as a whole, or by more raters.",
        judged=share if triples.complete >= FEW else 0.0,
        count=triples.cyclic,
        examples=some(triples.examples, found.example),
    )


# --- what texts say ---------------------------------------------------------------------------------------------


def empty(found: Rows) -> Check:
    taught = found.taught
    rows = [number for number in taught if not (found.rows[number].chosen or "").strip()]
    lost = sum(row.rejected is not None and not row.rejected.strip() for row in found.rows[: found.trains])
    says = "No chosen response is empty"
    if rows:
        says = f"{of(len(rows), len(taught), 'chosen responses')} are empty"
    return check(
        "empty",
        "Empty responses",
        len(rows) / max(len(taught), 1),
        says + (f"; of the rejected ones {lost:,} are." if lost else "."),
        "Take these rows out: they teach a model to say nothing.",
        count=len(rows),
        facts={"rejected": lost},
        examples=some(rows, lambda row: found.example([row])),
    )


def _in_responses(
    found: Rows,
    name: str,
    title: str,
    says: str,
    do: str,
    example: Callable[[int], dict[str, Any]] | None = None,
) -> Check:
    """A check of what the finder of this name finds in chosen responses, and how often in rejected ones."""
    rows, lost = found.hits.get((name, "chosen"), []), len(found.hits.get((name, "rejected"), []))
    taught = len(found.taught)
    words = of(len(rows), taught, "chosen responses")
    if found.kind == "pairs":
        words += f" and {lost:,} rejected ones"
    return check(
        name,
        title,
        len(rows) / max(taught, 1),
        f"{words} {says}",
        do,
        count=len(rows),
        facts={"rejected": lost},
        examples=some(rows, example or (lambda row: found.example([row]))),
    )


def cut_off(found: Rows) -> Check:
    return _in_responses(
        found,
        "cut_off",
        "Responses that break off",
        "end within a sentence or a block of code.",
        "Sample with more new tokens, or take out what was cut.",
        lambda row: found.example([row], end=True),
    )


def refusals(found: Rows) -> Check:
    return _in_responses(
        found,
        "refusals",
        "Refusals",
        "decline in their first words.",
        "Check that what is refused should be; add harmless prompts that are answered.",
    )


def identity(found: Rows) -> Check:
    return _in_responses(
        found,
        "identity",
        "Responses that name their model",
        "say which model they are, or who made it.",
        "Take these rows out, or put your model's name in their place.",
        lambda row: found.example([row], f"“{texts.says_it_is(found.rows[row].chosen or '')}”"),
    )


def personal_data(found: Rows) -> Check:
    fields = ("prompt", "chosen", "rejected")
    rows = sorted({row for field in fields for row in found.hits.get(("personal_data", field), [])})
    kinds: Counter[str] = Counter()
    examples: list[dict[str, Any]] = []
    for row in rows:
        said = [getattr(found.rows[row], field) or "" for field in fields]
        inside = [(text, one) for text in said for one in texts.personal_data(text)]
        kinds.update({one.kind for _, one in inside})
        if len(examples) < EXAMPLES:
            text, one = inside[0]
            examples.append({"where": [found.at(row)], "note": one.kind, "text": excerpt(text, around=one.start)})
    says = "No e-mail address, telephone, card or account number, or IP address was found."
    if rows:
        listed = ", ".join(f"{count:,} with {_KINDS[kind]}" for kind, count in kinds.most_common())
        says = f"{of(len(rows), found.trains, 'rows')} hold what looks like personal data: {listed}."
    return check(
        "personal_data",
        "Personal data",
        len(rows) / found.trains,
        says,
        "Look at them; put placeholders in their place where they are somebody's.",
        count=len(rows),
        facts=dict(sorted(kinds.items())),
        examples=examples,
    )


_KINDS = {
    "email": "an e-mail address",
    "phone": "a telephone number",
    "card": "a card number",
    "iban": "an IBAN",
    "ip": "an IP address",
}


def slurs(found: Rows) -> Check:
    taught = "prompt" if found.kind == "prompts" else "chosen"
    rows = found.hits.get(("slurs", taught), [])
    others = {name: len(found.hits.get(("slurs", name), [])) for name in ("prompt", "chosen", "rejected")}
    examples = []
    for row in rows[:EXAMPLES]:
        text = getattr(found.rows[row], taught)
        examples.append({"where": [found.at(row)], "text": excerpt(text, around=texts.slurs(text)[0][0])})
    what = "prompts" if taught == "prompt" else "chosen responses"
    says = f"{of(len(rows), found.trains, what)} hold a word of a short English list of slurs"
    if taught == "chosen":
        says += f"; {others['prompt']:,} prompts do" + (
            f", {others['rejected']:,} rejected ones" if found.kind == "pairs" else ""
        )
    return check(
        "slurs",
        "Slurs",
        len(rows) / found.trains,
        says + ".",
        "Look at them: where a response uses the word, don't teach it. Other languages are not looked at.",
        count=len(rows),
        facts=others,
        examples=examples,
    )
