"""Every model answers every prompt: models on this machine, best of n of them, and models behind an endpoint.

Responses go into the run's folder and into the cache batch by batch, as they come. A batch is made anew unless all of
it is in the cache, so that an evaluation which was killed and goes on says what the unbroken one would have said, to
the last bit: what a row comes to depends, in the last bits, on the rows beside it.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from align.data.lengths import check_prompts, context_length, token_ids
from align.evaluate.best_of import Picker
from align.evaluate.config import EvaluateConfig, ModelKeys
from align.evaluate.endpoint import Refused, at_once, check_endpoint, reply
from align.evaluate.evidence import Prompt, Said
from align.models.load import ModelSource, device, find_model, load_causal_lm, load_config, load_tokenizer, weights_of
from align.models.sampling import sample, seed_of
from align.run.cache import Cache
from align.run.progress import Progress, say
from preferences.files import dump_json, sha256_json

Rows = list[Said]


@dataclass
class Candidate:
    """A model that is compared, found but not loaded, and how it samples."""

    name: str
    keys: ModelKeys
    kind: Literal["local", "endpoint", "best of n"]
    source: ModelSource | None  # None behind an endpoint
    temperature: float
    max_new_tokens: int
    seed: int

    @property
    def where(self) -> str:
        """What the model is, in words: for people and for metrics.json."""
        place = self.keys.model if self.keys.endpoint is None else f"{self.keys.model} at {self.keys.endpoint}"
        return place if self.keys.best_of is None else f"best of {self.keys.best_of} of {place}"


def open_models(args: EvaluateConfig, prompts: Sequence[Prompt], where: str) -> dict[str, Candidate]:
    """Find the models, by name; nothing is loaded. Raises BadInput: for a prompt that doesn't fit one of them, too."""
    found = {}
    for name, keys in args.models.items():
        new_tokens = keys.max_new_tokens or args.max_new_tokens
        source = None
        if keys.endpoint is not None:
            check_endpoint(keys.endpoint, keys.model, keys.api_key_env, f"{where}, model {name}")
        else:
            source = find_model(keys.model)
            context = context_length(load_config(source))
            check_prompts(
                load_tokenizer(source), [p.turns for p in prompts], new_tokens, context, f"{keys.model}, prompts"
            )
        found[name] = Candidate(
            name,
            keys,
            "best of n" if keys.best_of is not None else "local" if source else "endpoint",
            source,
            keys.temperature or args.temperature,
            new_tokens,
            args.seed if keys.seed is None else keys.seed,
        )
    return found


def answers(candidate: Candidate, prompts: Sequence[Prompt], args: EvaluateConfig, folder: Path, cache: Cache) -> Rows:
    """The model's response to each prompt, kept in `responses-NAME.jsonl` of the run's folder as they come."""
    kept = folder / f"responses-{candidate.name}.jsonl"
    return _in_batches(_answerer(candidate, args, cache), candidate.name, prompts, args.batch_size, kept)


def answer_share(
    candidate: Candidate, prompts: Sequence[Prompt], args: EvaluateConfig, cache: Cache, rank: int, processes: int
) -> None:
    """This process's share of the batches of `answers`, into the cache, where the process that goes on finds them."""
    answer = _answerer(candidate, args, cache)
    starts = range(rank * args.batch_size, len(prompts), processes * args.batch_size)
    progress = Progress(f"{candidate.name}, in {processes} processes", len(starts), "batches of each")
    for start in starts:
        batch = prompts[start : start + args.batch_size]
        progress.tell(1, cached=int(answer(batch)[1] == len(batch)))
    progress.end()


def _answerer(
    candidate: Candidate, args: EvaluateConfig, cache: Cache
) -> Callable[[Sequence[Prompt]], tuple[Rows, int]]:
    """What answers a batch: the model itself, or the best of its draws; and how much of it was in the cache."""
    pick = Picker(candidate.keys.reward_model, cache, args.batch_size, "pick") if candidate.keys.reward_model else None
    source = _Source(candidate, cache, logprobs=pick is None)

    def answer(batch: Sequence[Prompt]) -> tuple[Rows, int]:
        if pick is not None:
            return _best(source, pick, batch)
        return source.say(batch, [seed_of(candidate.seed, prompt.id) for prompt in batch])

    return answer


def draws(
    candidate: Candidate, prompts: Sequence[Prompt], n: int, args: EvaluateConfig, folder: Path, cache: Cache
) -> list[Rows]:
    """n responses to each prompt, those that best of n picks from, kept in `responses-NAME-NUMBER.jsonl` each."""
    source = _Source(candidate, cache, logprobs=False)
    found = []
    for number in range(n):
        kept, words = folder / f"responses-{candidate.name}-{number}.jsonl", f"{candidate.name}, draw {number + 1}"
        found.append(_in_batches(partial(_draw, source, number), words, prompts, args.batch_size, kept))
    return found


def _in_batches(
    answer: Callable[[Sequence[Prompt]], tuple[Rows, int]], words: str, prompts: Sequence[Prompt], size: int, kept: Path
) -> Rows:
    """What `answer` says to each batch (and how much of it is from the cache), in the file `kept` as it comes."""
    rows = _kept(kept, prompts, size)
    progress = Progress(words, len(prompts), "prompts", done=len(rows))
    with open(kept, "ab") as stream:
        for start in range(len(rows), len(prompts), size):
            batch = prompts[start : start + size]
            said, cached = answer(batch)
            rows += said
            stream.write(b"".join(_line(prompt, one) for prompt, one in zip(batch, said, strict=True)))
            stream.flush()
            progress.tell(len(batch), cached=cached)
    progress.end()
    return rows


def _draw(source: "_Source", number: int, batch: Sequence[Prompt]) -> tuple[Rows, int]:
    """One of the draws of best of n, which are apart from the model's own single response."""
    return source.say(batch, [seed_of(source.candidate.seed, prompt.id, "best of", number) for prompt in batch])


def sampling(candidates: dict[str, Candidate], args: EvaluateConfig) -> dict[str, Any]:
    """The settings that all models share, and what of them is different with whom."""
    settings = {"temperature": args.temperature, "max_new_tokens": args.max_new_tokens, "seed": args.seed}
    differs = {}
    for name, candidate in candidates.items():
        own = {key: getattr(candidate, key) for key in settings}
        if changed := {key: value for key, value in own.items() if value != settings[key]}:
            differs[name] = changed
    return {"settings": settings, "differs": differs}


def _best(source: "_Source", pick: Picker, batch: Sequence[Prompt]) -> tuple[Rows, int]:
    """The best of n responses to each prompt."""
    assert source.candidate.keys.best_of is not None
    drawn, cached = [], len(batch)
    for number in range(source.candidate.keys.best_of):
        said, known = _draw(source, number, batch)
        drawn.append(said)
        cached = min(cached, known)
    best = pick([prompt.turns for prompt in batch], [[one.text for one in said] for said in drawn])
    return [drawn[which][place] for place, which in enumerate(best)], cached


class _Source:
    """What a candidate's draws come from: the cache, or the model, loaded when it is first needed.

    `logprobs`: with each draw's log-probability, which costs a look at the whole text. That of a draw is not that of a
    pick, so those that best of n picks from have none.
    """

    def __init__(self, candidate: Candidate, cache: Cache, *, logprobs: bool) -> None:
        self.candidate = candidate
        self.logprobs = logprobs
        self.cache = cache
        self.key: dict[str, Any] = {"what": "response", "format": 1, "temperature": candidate.temperature}
        self.key["max_new_tokens"] = candidate.max_new_tokens
        if candidate.source is None:
            self.key |= {"endpoint": candidate.keys.endpoint, "model": candidate.keys.model}
        else:
            self.tokenizer = load_tokenizer(candidate.source)
            self.key |= {"model": weights_of(candidate.source), "tokenizer": _tokenizer_hash(self.tokenizer)}
        self.sampler: Callable[[Sequence[Prompt], Sequence[int]], Rows] | None = None
        self.answered = False  # the endpoint, at least one prompt

    def say(self, batch: Sequence[Prompt], seeds: Sequence[int]) -> tuple[Rows, int]:
        """(a response to each prompt, how many of them come from the cache: all or none)."""
        keys = [{**self.key, "prompt": self._prompt(p), "seed": s} for p, s in zip(batch, seeds, strict=True)]
        found, known = self.cache.complete(
            keys, lambda: [one._asdict() for one in (self.sampler or self._load())(batch, seeds)]
        )
        return [Said(**value) for value in found], known if known == len(batch) else 0

    def _prompt(self, prompt: Prompt) -> Any:
        """What the model reads: tokens under its template, which may write the day's date, say; else the turns."""
        if self.candidate.source is None:
            return prompt.turns
        return token_ids(self.tokenizer, prompt.turns, generation=True)

    def _load(self) -> Callable[[Sequence[Prompt], Sequence[int]], Rows]:
        self.sampler = self._endpoint if self.candidate.source is None else self._local(self.candidate.source)
        return self.sampler

    def _endpoint(self, batch: Sequence[Prompt], seeds: Sequence[int]) -> Rows:
        keys = self.candidate.keys
        assert keys.endpoint is not None
        url = keys.endpoint

        refused: list[Refused] = []

        def one(task: tuple[Prompt, int]) -> Said:
            prompt, seed = task
            try:
                said = reply(
                    url,
                    keys.model,
                    prompt.turns,
                    api_key_env=keys.api_key_env,
                    max_tokens=self.candidate.max_new_tokens,
                    temperature=self.candidate.temperature,
                    seed=seed,
                )
            except Refused as error:
                refused.append(error)
                return Said("")
            self.answered = True
            return Said(said.text.strip(), said.ended)

        found = at_once(one, list(zip(batch, seeds, strict=True)))
        if refused and not self.answered:  # then it is not the prompts
            raise refused[0]
        if refused:
            say(f"{self.candidate.name}: {len(refused)} prompts count as answered by nothing; {refused[0]}")
        return found

    def _local(self, source: ModelSource) -> Callable[[Sequence[Prompt], Sequence[int]], Rows]:
        from align.models.logprobs import total_logprobs

        model = load_causal_lm(source).to(device()).eval()

        def draw(batch: Sequence[Prompt], seeds: Sequence[int]) -> Rows:
            temperature = self.candidate.temperature
            said = sample(
                model,
                self.tokenizer,
                [prompt.turns for prompt in batch],
                seeds,
                max_new_tokens=self.candidate.max_new_tokens,
                temperature=temperature,
            )
            totals: list[float | None] = [None] * len(batch)
            if self.logprobs:
                totals = [*total_logprobs(model, said.prompts, said.responses, temperature)]
            rows = zip(said.texts, said.ended, said.prompts, said.responses, totals, strict=True)
            return [Said(text.strip(), ended, read, ids, total) for text, ended, read, ids, total in rows]

        return draw


def _tokenizer_hash(tokenizer: Any) -> str:
    """Of what turns text into tokens and back; the chat template shows in the prompt's tokens."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    whole = backend.to_str() if backend is not None else sorted(tokenizer.get_vocab().items())
    return sha256_json([whole, tokenizer.eos_token_id])


def _line(prompt: Prompt, said: Said) -> bytes:
    return (dump_json({"id": prompt.id, "set": prompt.set, **said._asdict()}) + "\n").encode()


def _kept(path: Path, prompts: Sequence[Prompt], batch_size: int) -> Rows:
    """The whole batches of an interrupted run, and the file cut behind them, or where a line is damaged."""
    if not path.is_file():
        return []
    data = path.read_bytes()
    lines = data.splitlines(keepends=True)
    if lines and not lines[-1].endswith(b"\n"):
        lines.pop()
    rows = []
    for prompt, line in zip(prompts, lines, strict=False):
        try:
            row = json.loads(line)
            if row["id"] != prompt.id or not isinstance(row["text"], str):
                break
            rows.append(Said(**{key: row[key] for key in Said._fields}))
        except (ValueError, KeyError, TypeError, RecursionError):
            break
    whole = len(rows) if len(rows) == len(prompts) else math.floor(len(rows) / batch_size) * batch_size
    rows = rows[:whole]
    size = sum(map(len, lines[:whole]))
    if size < len(data):
        with open(path, "r+b") as stream:
            stream.truncate(size)
    return rows
