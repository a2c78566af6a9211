"""A panel of simulated raters: five who see the truth through noise, and one who doesn't look.

    python demo/raters.py demo/responses.jsonl ranked.jsonl

writes the items again with three raters' answers each, as `annotate import` takes them.
"""

import random
import sys

from truth import utility

from preferences.contract import read_items
from preferences.files import write_jsonl

CAREFUL = [f"simulated-{number}" for number in range(1, 6)]
CARELESS = "simulated-careless"
ANSWERS_PER_ITEM = 3
NOISE = 0.8  # standard deviation of what a careful rater feels about a response, around its utility
SAME = 0.4  # responses that feel closer than this are ranked equal
CLEARLY, MUCH = 1.0, 2.5  # felt differences between best and second that count as strength 2 and 3


def ranks_of(felt: list[float]) -> list[int]:
    """1 = best. Going down, a response within SAME of the one before it shares its rank: [0.0, -0.3, -2.0] -> 1 1 3."""
    order = sorted(range(len(felt)), key=lambda number: -felt[number])
    ranks = [1] * len(felt)
    for place in range(1, len(order)):
        before, here = order[place - 1], order[place]
        ranks[here] = ranks[before] if felt[before] - felt[here] < SAME else place + 1
    return ranks


def strength_of(felt: list[float], ranks: list[int]) -> int:
    """How much better the best feels than the second: 0 for a tie, else 1 slightly, 2 clearly, 3 much."""
    if ranks.count(1) > 1:
        return 0
    first, second = sorted(felt, reverse=True)[:2]
    size = 1 + (first - second > CLEARLY) + (first - second > MUCH)
    return -size if len(felt) == 2 and ranks[0] == 1 else size


def main(source: str, target: str, seed: int = 0) -> None:
    chance = random.Random(seed)
    rows = []
    for item in read_items(source):
        truth = [utility(item.prompt, response.messages[-1].content) for response in item.responses]
        answers = []
        for rater in chance.sample([*CAREFUL, CARELESS], ANSWERS_PER_ITEM):
            if rater == CARELESS:
                felt = [chance.uniform(-4, 0) for _ in truth]
            else:
                felt = [value + chance.gauss(0, NOISE) for value in truth]
            ranks = ranks_of(felt)
            shown = chance.sample(range(len(truth)), len(truth))
            answers.append({"rater": rater, "ranks": ranks, "strength": strength_of(felt, ranks), "shown": shown})
        # you, too, can rank on the demo's page: items whose responses differ come first there
        different = len({response.messages[-1].content for response in item.responses})
        rows.append({**item.model_dump(mode="json"), "answers": answers, "priority": float(different)})
    write_jsonl(target, rows)
    print(f"{len(rows)} items ranked by {len(CAREFUL) + 1} simulated raters, {ANSWERS_PER_ITEM} each: {target}")


if __name__ == "__main__":
    main(*sys.argv[1:3])
