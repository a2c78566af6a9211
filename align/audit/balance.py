"""Checks of what the rows are made of and who wins: languages, lengths, biases, models, tags; see verdicts.py."""

from collections import Counter
from typing import TYPE_CHECKING, Any

from align.audit import shares
from align.audit.rows import Data
from align.audit.verdicts import FEW, SAMPLE, Check, Rows, between, check, of, percent, shortened, some
from align.data.lengths import token_ids, whole_texts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_DIFFER = 5  # responses in another language, below which the detector may have erred in each
_RARE_TAG = 0.01  # of the rows: in a small data set few rows of a tag are no sign of neglect


def all_of(found: Rows, data: Data, tokenizer: "PreTrainedTokenizerBase | None", limit: int | None) -> list[Check]:
    """Those of these checks that suit the kind of data."""
    checks = [languages(found), lengths(found, tokenizer, limit)]
    if found.kind == "pairs":
        checks += [length_bias(found), position_bias(data), models(found)]
    if found.kind != "prompts":
        checks.append(synthetic(found))
    return [*checks, tags(found)]


def languages(found: Rows) -> Check:
    sample = shares.evenly(found.trains, SAMPLE)
    counts: Counter[str] = Counter()
    differ, both = [], 0
    for number in sample:
        row = found.rows[number]
        asked, answered = (shares.language(text or "") for text in (row.prompt, row.chosen))
        if answered or asked:
            counts[answered or asked or ""] += 1
        if asked and answered:
            both += 1
            if asked != answered:
                differ.append((number, f"asked in {asked}, answered in {answered}"))
    title, among = "Languages", f"a sample of {len(sample):,} rows" if len(sample) < found.trains else "all rows"
    if not counts:
        return check("languages", title, None, f"No text in {among} is long enough to tell its language.")
    told = counts.total()
    listed = ", ".join(f"{name} {percent(count / told)}" for name, count in counts.most_common(5))
    says = f"In {among}, {told:,} of them long enough to tell: {listed}."
    if both:
        says += f" {of(len(differ), both, 'responses')} are in another language than their prompt."
    return check(
        "languages",
        title,
        counts.most_common(1)[0][1] / told,
        says,
        "Look at rows whose response does not answer in the language it was asked in.",
        judged=len(differ) / both if both >= FEW and len(differ) >= _DIFFER else 0.0,
        count=len(differ),
        facts={"sample": len(sample), "languages": dict(counts.most_common())},
        examples=some(differ, lambda one: found.example([one[0]], one[1])),
    )


def lengths(found: Rows, tokenizer: "PreTrainedTokenizerBase | None", limit: int | None) -> Check:
    title = "Lengths"
    rows = found.rows[: found.trains]
    characters = sorted(len(row.prompt) + max(len(row.chosen or ""), len(row.rejected or "")) for row in rows)
    middle, long = characters[len(rows) // 2], characters[int(0.99 * (len(rows) - 1))]
    facts: dict[str, Any] = {"characters_median": middle, "characters_99": long, "limit": limit}
    plain = f"A row has {middle:,} characters (median), one in a hundred more than {long:,}."
    if tokenizer is None or limit is None:
        return check("lengths", title, None, f"{plain} Name a model with --model to know what fits.", facts=facts)
    sample = shares.evenly(found.trains, SAMPLE)
    tokens = [_tokens(tokenizer, found, number) for number in sample]
    longer = [number for number, count in zip(sample, tokens, strict=True) if count > limit]
    among = f"a sample of {len(sample):,}" if len(sample) < found.trains else f"{len(sample):,}"
    facts |= {"sample": len(sample), "tokens_median": sorted(tokens)[len(tokens) // 2], "tokens_most": max(tokens)}
    return check(
        "lengths",
        title,
        len(longer) / len(sample),
        f"{plain} {len(longer):,} of {among} ({percent(len(longer) / len(sample))}) have more than {limit:,} tokens.",
        "Raise max_length where the context allows, or shorten the prompts: what is too long is dropped or cut.",
        count=len(longer),
        facts=facts,
        examples=some(longer, lambda row: found.example([row])),
    )


def _tokens(tokenizer: "PreTrainedTokenizerBase", found: Rows, number: int) -> int:
    raw = found.rows[number].raw
    if found.kind == "pairs":
        return max(len(token_ids(tokenizer, text)) for text in whole_texts(raw))
    if found.kind == "prompts":
        prompt = raw["prompt"]
        return len(token_ids(tokenizer, prompt, generation=not isinstance(prompt, str)))
    if raw.get("completion") is not None:
        return len(token_ids(tokenizer, raw["prompt"] + raw["completion"]))
    return len(token_ids(tokenizer, raw["messages"] if raw.get("messages") is not None else raw["text"]))


# --- who wins ---------------------------------------------------------------------------------------------------


def _decided(found: Rows) -> list[int]:
    copies = found.copies
    return [
        number
        for number in range(found.trains)
        if not copies.tie[number] and copies.chosen[number] != copies.rejected[number]
    ]


def _beyond(share: shares.Share) -> float | None:
    """How far the nearer end of the interval is from a half; at most 0 where the interval includes it."""
    return None if share.interval is None else max(share.interval[0] - 0.5, 0.5 - share.interval[1])


def _bias(name: str, title: str, share: shares.Share, who: str, unknown: str, do: str) -> Check:
    if share.value is None or share.n < FEW:
        return check(name, title, None, f"{unknown if not share.n else f'Only {share.n} cases, too few to judge by.'}")
    return check(
        name,
        title,
        share.value,
        f"{who} wins in {percent(share.value)} of {share.n:,} cases, {between(share)}.",
        do,
        judged=_beyond(share),
        interval=[round(end, 6) for end in share.interval or ()],
        count=share.n,
    )


def length_bias(found: Rows) -> Check:
    rows = [(found.rows[number], int(found.copies.prompt[number])) for number in _decided(found)]
    share = shares.longer_wins((len(row.chosen or ""), len(row.rejected or ""), prompt) for row, prompt in rows)
    return _bias(
        "length_bias",
        "Does the longer response win?",
        share,
        "The longer response",
        "There are no responses of different lengths.",
        "A reward model can look good by counting: compare it with that baseline, watch the length of what it trains,"
        " and ask raters whether length is what they mean.",
    )


def position_bias(data: Data) -> Check:
    share = shares.earlier_wins((ranks, shown) for _, ranks, shown in data.shown)
    return _bias(
        "position_bias",
        "Does the response win that was shown first?",
        share,
        "The response shown earlier",
        "The data does not say in which order raters saw the responses.",
        "Show responses in a random order and tell raters; look in annotate report for those who favour a place.",
    )


def models(found: Rows) -> Check:
    title = "Models that always win"
    wins = shares.wins_of_models(found.rows[number].models for number in _decided(found))
    judged = {name: (won, seen) for name, (won, seen) in wins.items() if seen >= FEW}
    if not judged:
        return check("models", title, None, "The data does not say which models wrote the responses of enough pairs.")
    name, (won, seen) = max(judged.items(), key=lambda one: (abs(one[1][0] / one[1][1] - 0.5), one[0]))
    share = won / seen
    verb = "wins" if share >= 0.5 else "loses"
    return check(
        "models",
        title,
        share,
        f"Of {len(judged)} models {shortened(name)} {verb} most: {percent(max(share, 1 - share))} of {seen:,} pairs.",
        "Add pairs of responses of one model, so that the reward can't be told from who wrote it.",
        judged=max(share, 1 - share),
        count=seen,
        facts={name: {"won": won, "pairs": seen} for name, (won, seen) in wins.items()},
    )


# --- what it is made of -----------------------------------------------------------------------------------------


def synthetic(found: Rows) -> Check:
    said = [given for row in found.rows[: found.trains] for given in row.synthetic if given is not None]
    title = "Text that models wrote"
    if not said:
        return check("synthetic", title, None, "The data does not say who wrote the responses.")
    return check(
        "synthetic",
        title,
        sum(said) / len(said),
        f"{of(sum(said), len(said), 'responses')} with a known author are a model's.",
        count=sum(said),
    )


def tags(found: Rows) -> Check:
    title = "Tags with too few rows"
    counts, rare = shares.rare_tags((row.tags for row in found.rows[: found.trains]), FEW, _RARE_TAG)
    if not counts:
        return check("tags", title, None, "The rows have no tags.")
    listed = ", ".join(f"{shortened(tag)} ({counts[tag]})" for tag in rare[:8])
    under = sum(count < FEW for count in counts.values())
    says = f"All {len(counts):,} tags have {FEW} rows or more."
    if under:
        says = (
            f"No tag has under {percent(_RARE_TAG)} of the rows, but {under:,} of {len(counts):,} have under {FEW},"
            f" the rarest {min(counts.values()):,}: numbers for these are rough."
        )
    if rare:
        says = f"{len(rare):,} of {len(counts):,} tags have under {FEW} rows: {listed}{', …' if len(rare) > 8 else ''}."
    return check(
        "tags",
        title,
        float(len(rare)),
        says,
        "Have more of them ranked, or don't report numbers for them.",
        count=len(rare),
        facts={"rows": dict(counts.most_common(50))},
    )
