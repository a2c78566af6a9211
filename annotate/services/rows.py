"""What the answers to one item are as rows of a preferences folder: a ranking, its pairs, its demonstrations."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

from annotate.services.answers import GivenAnswer
from annotate.services.consensus import consensus_ranks, pair_strength, share
from annotate.store.tables import Group, Item
from preferences import contract
from preferences.contract import Demonstration, ExportedAnswer, Message, Models, Pair, Ranking
from preferences.files import sha256_json


def ranking_row(
    item: Item, group: Group, given: Sequence[GivenAnswer], trust: Mapping[str, float], *, project: str, ranking: str
) -> Ranking:
    """The whole ranking, under the id `ranking`; `trust` is {pseudonym: reliability}."""
    models = [response["model"] for response in item.responses]
    return Ranking.model_validate(
        {
            "ranking": ranking,
            "project": project,
            "split": group.split,
            "group": group.name,
            "prompt": item.prompt,
            "responses": [response["messages"] for response in item.responses],
            "models": models if any(models) else None,
            "ranks": consensus_ranks([one.answer.ranks for one in given]),
            "weight": sum(trust[one.member.pseudonym] for one in given) / len(given),
            "tags": item.tags,
            "answers": [_answer(one) for one in given],
        }
    )


def _answer(given: GivenAnswer) -> ExportedAnswer:
    answer, edited = given.answer, given.text.edited if given.text else None
    return ExportedAnswer(
        rater=given.member.pseudonym,
        ranks=answer.ranks,
        strength=answer.strength,
        ratings=answer.ratings,
        flags=answer.flags,
        edited=contract.Edit(**edited) if edited else None,
        shown=answer.shown,
        seconds=answer.seconds,
        guideline=answer.guideline,
    )


def pair_rows(ranking: Ranking) -> Iterator[Pair]:
    """One row for each two responses of a ranking; chosen is the better one, or in a tie the smaller content hash."""
    ranks = [answer.ranks for answer in ranking.answers]
    for i, j in combinations(range(len(ranking.responses)), 2):
        preference = share(ranks, i, j)
        one, two = ranking.responses[i], ranking.responses[j]
        flip = preference < 0.5 or (preference == 0.5 and _content(two) < _content(one))
        chosen, rejected = (j, i) if flip else (i, j)
        models = ranking.models and Models(chosen=ranking.models[chosen], rejected=ranking.models[rejected])
        yield Pair(
            prompt=ranking.prompt,
            chosen=ranking.responses[chosen],
            rejected=ranking.responses[rejected],
            preference=float(max(preference, 1 - preference)),
            strength=pair_strength([(answer.ranks, answer.strength) for answer in ranking.answers], i, j),
            weight=ranking.weight,
            ranking=ranking.ranking,
            group=ranking.group,
            tags=ranking.tags,
            raters=[answer.rater for answer in ranking.answers],
            models=models if models and (models.chosen or models.rejected) else None,
        )


def demonstration_rows(ranking: Ranking) -> Iterator[Demonstration]:
    """The best-liked response, if there is a single one, and the responses that raters rewrote."""

    def row(completion: list[Message], source: str) -> Demonstration:
        return Demonstration.model_validate(
            {
                "prompt": ranking.prompt,
                "completion": completion,
                "split": ranking.split,
                "group": ranking.group,
                "ranking": ranking.ranking,
                "source": source,
            }
        )

    if ranking.ranks.count(1) == 1:
        yield row(ranking.responses[ranking.ranks.index(1)], "best")
    for answer in ranking.answers:
        if answer.edited:
            yield row([Message(role="assistant", content=answer.edited.text)], "edited")


def _content(messages: list[Message]) -> str:
    return sha256_json([message.model_dump() for message in messages])
