"""Public tests: tasks of EleutherAI's lm-evaluation-harness, by its own Python API, where it is installed.

They are asked as the harness asks them by default, without a chat template, so that numbers can be compared with those
that others publish; and all models are asked in the same way.
"""

import difflib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from align.evaluate.config import EvaluateConfig
from align.models.load import device, load_causal_lm, load_tokenizer
from align.run.progress import say
from preferences.errors import BadInput
from preferences.files import read_json, write_text

if TYPE_CHECKING:
    from align.evaluate.responses import Candidate

_BOOTSTRAP = 1_000  # draws for the errors of metrics that have none in closed form; the harness's own 100,000 take long


class Harness(NamedTuple):
    """The tasks that are asked, found and loaded."""

    manager: Any  # the harness's TaskManager
    tasks: list[str]


def open_harness(args: EvaluateConfig, where: str) -> Harness | None:
    """Find the tasks, by name or as YAML files, and load their data. None where the recipe names none. Raises BadInput
    where the harness is not installed, or a task is unknown or can't be loaded.
    """
    if not args.harness_tasks:
        return None
    at = f"{where}: key `harness_tasks`"
    try:
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        why = "is not installed" if (error.name or "").split(".")[0] == "lm_eval" else f"can't be imported ({error})"
        raise BadInput(
            f"{at}: lm-evaluation-harness {why}; `pip install lm-eval`, or take the key out of the recipe"
        ) from None
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    manager = TaskManager()
    for task in args.harness_tasks:
        if task not in manager.task_index and not Path(task).is_file():
            near = difflib.get_close_matches(task, manager.all_tasks, 3)
            meant = (
                f"; did you mean {' or '.join(near)}?" if near else "; give a task's name, or a YAML file of your own"
            )
            raise BadInput(f"{at}: lm-evaluation-harness has no task {task!r}{meant}")
        try:
            manager.load([task])
        except Exception as error:  # whatever its data, a download, or a YAML file of the user's may raise
            first = str(error).strip().split("\n")[0] or type(error).__name__
            raise BadInput(f"{at}: task {task!r} can't be loaded ({first})") from None
    return Harness(manager, list(args.harness_tasks))


def ask_harness(
    harness: Harness, candidates: Mapping[str, "Candidate"], batch_size: int, folder: Path
) -> dict[str, dict[str, dict[str, dict[str, Any]]]]:
    """{task: {metric: {model: {value, standard_error, n, better}}}} of the local models, and of groups of tasks.

    What a model's tasks gave is kept in `harness-NAME.json` of the run's folder, for --resume. `better` is "higher",
    "lower" or None where the harness doesn't say.
    """
    found: dict[str, dict[str, dict[str, dict[str, Any]]]] = {}
    for name, candidate in candidates.items():
        if candidate.kind != "local":
            continue
        kept = folder / f"harness-{name}.json"
        if not kept.is_file():
            say(f"{name}: {', '.join(harness.tasks)} of lm-evaluation-harness")
            write_text(kept, json.dumps(_ask(harness, candidate, batch_size), indent=1, sort_keys=True) + "\n")
        for task, by_metric in read_json(kept).items():
            for metric, cell in by_metric.items():
                found.setdefault(task, {}).setdefault(metric, {})[name] = cell
    return found


def _ask(harness: Harness, candidate: "Candidate", batch_size: int) -> dict[str, dict[str, dict[str, Any]]]:
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    assert candidate.source is not None
    model = load_causal_lm(candidate.source).to(device()).eval()
    results = simple_evaluate(
        model=HFLM(pretrained=model, tokenizer=load_tokenizer(candidate.source), batch_size=batch_size),
        tasks=list(harness.tasks),
        task_manager=harness.manager,
        bootstrap_iters=_BOOTSTRAP,
        log_samples=False,
    )
    assert results is not None  # None on processes that are not the first, and there is one
    return read_results(results)


def read_results(results: Mapping[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """{task: {metric: {value, standard_error, n, better}}} of what `simple_evaluate` returns, whose keys are
    `METRIC,FILTER` and `METRIC_stderr,FILTER`. A filter other than "none" stands behind the metric's name.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for task, fields in results["results"].items():
        directions = results.get("higher_is_better", {}).get(task) or {}
        count = (results.get("n-samples", {}).get(task) or {}).get("effective")
        for key, value in fields.items():
            metric, comma, kind = key.partition(",")
            if not comma or metric.endswith("_stderr") or isinstance(value, bool) or not isinstance(value, int | float):
                continue
            error, higher = fields.get(f"{metric}_stderr,{kind}"), directions.get(metric)
            found.setdefault(task, {})[metric if kind == "none" else f"{metric} ({kind})"] = {
                "value": float(value),
                "standard_error": float(error) if isinstance(error, int | float) else None,
                "n": count,
                "better": None if higher is None else "higher" if higher else "lower",
            }
    return found
