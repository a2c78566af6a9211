"""What the answers to one item are as rows of a preferences folder: a ranking, its pairs, its demonstrations.

What the answers say together is an ItemFit of preferences/stats/consensus.py, rounded to six places. Where somebody
decided about the item, the decision speaks for all: its ranks are the consensus, its pairs are certain, and they are
trusted fully. The answers are listed all the same.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

from annotate.services.answers import ALL_BAD
from annotate.services.consensus import is_tie, pair_strength, plain_ranks
from annotate.services.counted import Counted
from annotate.services.masks import restore_names
from annotate.services.splits import Place
from annotate.store.tables import Decision, Item
from preferences import contract
from preferences.contract import Demonstration, ExportedAnswer, Message, Models, Pair, Ranking, Span
from preferences.files import sha256_json
from preferences.stats.consensus import ItemFit

PLACES = 6  # of exported numbers


def ranking_row(
    item: Item,
    place: Place,
    given: Sequence[Counted],
    together: ItemFit,
    decision: Decision | None,
    *,
    project: str,
    ranking: str,
) -> Ranking:
    """The whole ranking, under the id `ranking`."""
    models = [response["model"] for response in item.responses]
    return Ranking.model_validate(
        {
            "ranking": ranking,
            "project": project,
            "split": place.split,
            "group": place.group,
            "prompt": item.prompt,
            "responses": [response["messages"] for response in item.responses],
            "models": models if any(models) else None,
            "ranks": plain_ranks(decision.ranks) if decision else together.ranks,
            "decided": decision is not None,
            "weight": 1.0 if decision else round(together.weight, PLACES),
            "tags": item.tags,
            "answers": [_answer(one) for one in given],
        }
    )


def _answer(answer: Counted) -> ExportedAnswer:
    return ExportedAnswer(
        rater=answer.pseudonym,
        ranks=answer.ranks,
        strength=answer.strength,
        ratings=answer.ratings,
        flags=answer.flags,
        spans=[Span(**span) for span in answer.spans or []],
        edited=contract.Edit(**answer.edited) if answer.edited else None,
        shown=answer.shown,
        seconds=answer.seconds,
        guideline=answer.guideline,
    )


def pair_rows(ranking: Ranking, together: ItemFit, decision: Decision | None) -> Iterator[Pair]:
    """One row for each two responses of a ranking; chosen is the better one, or in a tie the smaller content hash."""
    said = [(answer.ranks, answer.strength) for answer in ranking.answers]
    if decision:
        said = [(decision.ranks, decision.strength)]
    for i, j in combinations(range(len(ranking.responses)), 2):
        if decision:
            preference = (1 + (decision.ranks[i] < decision.ranks[j]) - (decision.ranks[i] > decision.ranks[j])) / 2
        else:
            preference = 0.5 if is_tie(together, i, j) else round(float(together.preference[i, j]), PLACES)
        one, two = ranking.responses[i], ranking.responses[j]
        flip = preference < 0.5 or (preference == 0.5 and _content(two) < _content(one))
        chosen, rejected = (j, i) if flip else (i, j)
        models = ranking.models and Models(chosen=ranking.models[chosen], rejected=ranking.models[rejected])
        yield Pair(
            prompt=ranking.prompt,
            chosen=ranking.responses[chosen],
            rejected=ranking.responses[rejected],
            preference=round(max(preference, 1 - preference), PLACES),
            strength=pair_strength(said, i, j),
            weight=ranking.weight,
            ranking=ranking.ranking,
            group=ranking.group,
            tags=ranking.tags,
            raters=[answer.rater for answer in ranking.answers],
            models=models if models and (models.chosen or models.rejected) else None,
        )


def edited_rows(ranking: Ranking, trust: Mapping[str, float], mask: Sequence[str]) -> Iterator[Pair]:
    """One row for each response that a rater rewrote: theirs over the original, with the weight of this rater alone.

    Not where the ranking has a pair of these two texts already: the rewritten one is another response, or another
    rater wrote the same.
    """
    written: list[tuple[list[Message], list[Message]]] = []
    for answer in ranking.answers:
        chosen = _rewritten(ranking, answer, mask)
        if answer.edited is None or chosen is None:
            continue
        number = answer.edited.response
        pair = chosen, ranking.responses[number]
        if chosen in ranking.responses or pair in written:
            continue
        written.append(pair)
        model = ranking.models[number] if ranking.models else None
        yield Pair(
            prompt=ranking.prompt,
            chosen=pair[0],
            rejected=pair[1],
            preference=1.0,
            strength=None,
            weight=trust[answer.rater],
            ranking=ranking.ranking,
            group=ranking.group,
            tags=ranking.tags,
            raters=[answer.rater],
            models=Models(chosen=None, rejected=model) if model else None,
            source="edited",
        )


def demonstration_rows(ranking: Ranking, mask: Sequence[str]) -> Iterator[Demonstration]:
    """The best response, if there is a single one and it is good, and the responses that raters rewrote, each once.

    The best is not good where half of the answers, or more, say that all are bad.
    """
    rows: list[tuple[list[Message], str]] = []
    all_bad = sum(ALL_BAD in answer.flags for answer in ranking.answers)
    if ranking.ranks.count(1) == 1 and 2 * all_bad < len(ranking.answers):
        rows.append((ranking.responses[ranking.ranks.index(1)], "best"))
    for answer in ranking.answers:
        completion = _rewritten(ranking, answer, mask)
        if completion is not None and completion not in [other for other, _ in rows]:
            rows.append((completion, "edited"))
    for completion, source in rows:
        yield Demonstration.model_validate(
            {
                "prompt": ranking.prompt,
                "completion": completion,
                "split": ranking.split,
                "group": ranking.group,
                "ranking": ranking.ranking,
                "source": source,
            }
        )


def _rewritten(ranking: Ranking, answer: ExportedAnswer, mask: Sequence[str]) -> list[Message] | None:
    """A response as the rater would have written its last turn, with the names that were hidden from them.

    None if they changed nothing, or if what they changed leaves open which name stood where.
    """
    if answer.edited is None:
        return None
    *before, last = ranking.responses[answer.edited.response]
    text = restore_names(answer.edited.text, last.content, mask)
    if text is None or _plain(text) == _plain(last.content):
        return None
    return [*before, Message(role=last.role, content=text)]


def _plain(text: str) -> str:
    """Without what a browser's text field changes by itself."""
    return text.replace("\r\n", "\n").strip()


def _content(messages: list[Message]) -> str:
    return sha256_json([message.model_dump() for message in messages])
