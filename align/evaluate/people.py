"""A judgements file as a judge: what people said about these very responses, from `annotate export --judgements` or
from anywhere else.

A verdict counts where its prompt, its two models and, as far as the file says, their responses are this evaluation's.
What does not fit is counted and said, never used.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle, islice
from typing import NamedTuple

from align.evaluate.evidence import Judged, Prompt, Said, main_numbers, pair_id
from align.evaluate.pairwise import as_text
from align.run.cache import Cache
from align.run.progress import say
from preferences.errors import BadInput
from preferences.files import sha256_file, sha256_json
from preferences.judgements import Judgement, by_prompt, read_judgements
from preferences.stats.within import Cell

_HASH = 8  # characters behind the dash of a pair's id


class Fit(NamedTuple):
    """Which prompts a verdict's `prompt` can mean; `paired` where it is the id of a pair of responses."""

    numbers: Sequence[int]
    paired: bool


class PeopleJudge:
    """See align.evaluate.judges.Judge."""

    def __init__(self, name: str, path: str, rows: Sequence[Judgement]) -> None:
        self.name = name
        self.path = path
        self.rows = rows

    def judge(
        self,
        base: str,
        prompts: Sequence[Prompt],
        responses: Mapping[str, Sequence[Said]],
        cache: Cache,
    ) -> Judged:
        """A preference is the mean of all verdicts on the item: orders, then samples, then raters.

        `judgements` are all verdicts that fit, also those on two models of which neither is the base.
        """
        names = _names(prompts)
        counts: Counter[str] = Counter(other_prompts=0, other_models=0, other_responses=0, responses_not_said=0)
        used: list[Judgement] = []
        paired: set[str] = set()  # models that people were asked about by the ids of `align evaluate --to-annotate`
        by_item: dict[str, list[Judgement]] = {model: [] for model in responses if model != base}
        for row in self.rows:
            fit = _fit(row.prompt, names)
            if not fit.numbers:
                counts["other_prompts"] += 1
                continue
            if row.candidate not in responses or row.baseline not in responses:
                counts["other_models"] += 1
                continue
            same = [number for number in fit.numbers if _same_responses(row, fit, number, prompts, responses)]
            if not same:
                counts["other_responses"] += 1
                continue
            counts["responses_not_said"] += not fit.paired and None in (row.candidate_length, row.baseline_length)
            if row.candidate == base:
                row = row.turned()
            used.append(row.model_copy(update={"prompt": prompts[same[0]].id}))
            if row.baseline == base:
                paired |= {row.candidate} if fit.paired else set()
                by_item[row.candidate] += [row.model_copy(update={"prompt": str(number)}) for number in same]
        ties = {
            model: not_asked(rows, model, base, prompts, responses)
            for model, rows in by_item.items()
            if model in paired
        }
        for model, rows in ties.items():
            by_item[model] += rows
            used += [row.model_copy(update={"prompt": prompts[int(row.prompt)].id}) for row in rows]
        same_text = sum(len({row.prompt for row in rows}) for rows in ties.values())
        self._say(counts, len(used) - sum(map(len, ties.values())), same_text)
        preferences: dict[str, list[float | None]] = {}
        for model, rows in by_item.items():
            values: list[float | None] = [None] * len(prompts)
            if rows:
                means = by_prompt(rows, model, base)
                for number, value in zip(means.prompts, means.preferences.tolist(), strict=True):
                    values[int(number)] = value
            preferences[model] = values
        raters = {row.rater for row in used if row.rater is not None}
        facts = {
            "kind": kind_of(self.rows),
            "source": self.path,
            "gold": False,
            "sha256": sha256_file(self.path),
            "raters": len(raters) or None,
            "judgements": len(self.rows),
            "used": len(used) - sum(map(len, ties.values())),
            "same_text": same_text,
            **counts,
        }
        return Judged(preferences, None, used, facts)

    def _say(self, counts: Counter[str], used: int, same_text: int) -> None:
        reasons = {
            "other_prompts": "are about other prompts",
            "other_models": "are about other models",
            "other_responses": "are about other responses of these models",
        }
        left = [f"{counts[key]} {words}" for key, words in reasons.items() if counts[key]]
        say(f"{self.name}: {used} of {len(self.rows)} judgements count" + (f"; {', '.join(left)}" if left else ""))
        if same_text:
            say(f"{self.name}: {same_text} pairs of the same text, which nobody was asked about, count as ties")
        if counts["responses_not_said"]:
            say(
                f"{self.name}: {counts['responses_not_said']} of them don't say which responses they are about; they"
                " are taken to be about these"
            )


def not_asked(
    rows: Sequence[Judgement],
    model: str,
    base: str,
    prompts: Sequence[Prompt],
    responses: Mapping[str, Sequence[Said]],
) -> list[Judgement]:
    """Ties on main prompts that both models answer by the same text: `align evaluate --to-annotate` asks nobody about
    them, and without them a win rate would be about differing responses only.

    `rows`: the verdicts on the model's responses, whose `prompt` is a number. If people judged a share of the prompts
    that are answered differently, the same share of the others counts, in the order of their ids, which are hashes. So
    the win rate is what it would be, had the same people been asked about both kinds. Each tie is said by as many
    raters as judge a prompt on the average, who take turns.
    """
    main = main_numbers(prompts)
    same = [number for number in main if responses[model][number].text == responses[base][number].text]
    seen = {int(row.prompt) for row in rows} & set(main)
    open_, differ = [number for number in same if number not in seen], len(main) - len(same)
    who = sorted({(row.rater or "", tuple(row.rater_groups)) for row in rows if int(row.prompt) in seen})
    judged = len(seen - set(same))
    if not open_ or not judged:
        return []
    count = round(len(open_) * judged / differ)
    each = max(1, round(len({(row.prompt, row.rater) for row in rows}) / len(seen)))
    chosen = sorted(open_, key=lambda number: prompts[number].id)[:count]
    turns = cycle(who)
    return [
        Judgement(
            prompt=str(number),
            candidate=model,
            baseline=base,
            preference=0.5,
            rater=rater or None,
            rater_groups=list(groups),
            tags=list(prompts[number].tags),
        )
        for number in chosen
        for rater, groups in islice(turns, min(each, len(who)))
    ]


def open_people(name: str, path: str, prompts: Sequence[Prompt], models: Iterable[str], where: str) -> PeopleJudge:
    """The judgements, read and checked. Raises BadInput where none can be about these prompts and models."""
    rows = read_judgements(path)
    names, known = _names(prompts), set(models)
    on_prompts = [row for row in rows if _fit(row.prompt, names).numbers]
    if not on_prompts:
        raise BadInput(
            f"{where}: none of the {len(rows)} judgements in {path} is about a prompt of this evaluation; their"
            f" `prompt` is its id or its text, as {prompts[0].id!r}, and not {rows[0].prompt[:40]!r}"
        )
    if not any({row.candidate, row.baseline} <= known for row in on_prompts):
        named = sorted({model for row in on_prompts for model in (row.candidate, row.baseline)})
        raise BadInput(
            f"{where}: no judgement in {path} is about two models of this evaluation ({', '.join(sorted(known))});"
            f" those there are called {', '.join(named[:5])}: give the models in the recipe these names"
        )
    return PeopleJudge(name, path, rows)


def kind_of(rows: Sequence[Judgement]) -> str:
    """People, where a rater stands behind every verdict; else just judgements."""
    return "people" if all(row.rater is not None for row in rows) else "judgements"


def cells_of(
    judged: Judged, model: str, base: str, prompts: Sequence[Prompt], numbers: Sequence[int]
) -> list[Cell] | None:
    """(place in `numbers`, rater, mean verdict) of each rater on each of these prompts, which are of one set.

    None where the verdicts are not people's.
    """
    places = {prompts[number].id: place for place, number in enumerate(numbers)}
    rows = [row for row in judged.judgements if {row.candidate, row.baseline} == {model, base} and row.prompt in places]
    if not rows:
        return None
    means = by_prompt(rows, model, base)
    if means.cells is None:
        return None
    return [cell._replace(prompt=places[means.prompts[cell.prompt]]) for cell in means.cells]


def _names(prompts: Sequence[Prompt]) -> dict[str, list[int]]:
    """What a prompt may be called: its id, the whole hash, or its text. One in two sets has two numbers."""
    names: dict[str, list[int]] = {}
    for number, prompt in enumerate(prompts):
        for name in {prompt.id, sha256_json(prompt.turns), as_text(prompt.turns)}:
            names.setdefault(name, []).append(number)
    return names


def _fit(name: str, names: Mapping[str, Sequence[int]]) -> Fit:
    if name in names:
        return Fit(names[name], False)
    prompt, dash, digest = name.rpartition("-")
    paired = bool(dash) and len(digest) == _HASH
    return Fit(names.get(prompt, ()) if paired else (), paired)


def _same_responses(
    row: Judgement, fit: Fit, number: int, prompts: Sequence[Prompt], responses: Mapping[str, Sequence[Said]]
) -> bool:
    """Whether the verdict can be about these responses: by the hash in its pair's id, else by their lengths."""
    texts = {model: responses[model][number].text for model in (row.candidate, row.baseline)}
    if fit.paired:
        return row.prompt == pair_id(prompts[number].id, texts)
    lengths = {row.candidate: row.candidate_length, row.baseline: row.baseline_length}
    return all(length is None or length == len(texts[model]) for model, length in lengths.items())
