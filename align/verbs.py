"""Verbs of `align` that run no recipe: about what is there already, or will be; and asking people by `align evaluate`.

Heavy imports happen inside the verb.
"""

import json
import sys
from typing import Any

import click

from preferences.errors import BadInput
from preferences.formats import list_of_formats
from preferences.terminal import on_one_line

ask_people = [
    click.Option(
        ["--to-annotate"], metavar="FILE", help="Write pairs that `annotate import` takes, and evaluate nothing."
    ),
    click.Option(
        ["--detect"], type=float, metavar="RATE", help="So many pairs that this win rate shows.  [default: 0.6]"
    ),
    click.Option(["--power"], type=float, metavar="P", help="With how great a probability it does.  [default: 0.8]"),
    click.Option(["--overlap"], type=click.IntRange(1, 1000), metavar="N", help="How many raters see each pair."),
    click.Option(["--gold"], metavar="FILE", help="Your own gold items to mix in, instead of made ones."),
]

launch = [  # of every verb that runs a recipe; accelerate's own names
    click.Option(
        ["--accelerate_config"],
        metavar="NAME",
        help="Run in several processes under accelerate, by accelerate_configs/NAME.yaml or a file of your own.",
    ),
    click.Option(["--num_processes"], type=click.IntRange(min=1), metavar="N", help="On all machines together."),
    click.Option(["--num_machines"], type=click.IntRange(min=1), metavar="N", help="The same command runs on each."),
    click.Option(["--machine_rank"], type=click.IntRange(min=0), metavar="R", help="This machine's number, from 0."),
    click.Option(["--main_process_ip"], metavar="IP", help="Of machine 0, as the others see it."),
    click.Option(["--main_process_port"], type=click.IntRange(0, 65535), metavar="PORT", help="0: a free one."),
]


def asks_people(recipe: dict[str, Any], where: str, to_annotate: str | None, **asked: Any) -> bool:
    """Write the pairs where --to-annotate says so; whether it did. Raises BadInput."""
    given = {name: value for name, value in asked.items() if value is not None}
    if to_annotate is None:
        if given:
            raise BadInput(f"--{next(iter(given))} is about what people are asked; say --to-annotate FILE, too")
        return False
    from align.evaluate.to_annotate import to_annotate as write

    write(recipe, where, to_annotate, **given)
    return True


@click.command(short_help="Fail when the numbers of an evaluation break a rule.")
@click.argument("report", metavar="REPORT", type=click.Path())
@click.option("--rule", "rules", multiple=True, metavar="RULE", help="As 'dpo.win_rate.low > 0.5'; again for more.")
@click.option("--rules", "files", multiple=True, metavar="FILE", help="A file with a rule a line; # begins a comment.")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def gate(report: str, rules: tuple[str, ...], files: tuple[str, ...], as_json: bool) -> None:
    """Check an evaluation, REPORT (its folder or metrics.json), against rules, for CI.

    \b
    dpo.win_rate.low > 0.5           the lower end of the interval
    dpo.win_rate > 0.55 by people    by a judge other than the one that decides
    dpo.slices.low > 0.4             no slice is worse than that
    dpo.challenge.safety.win_rate.low > 0.45
    dpo.length.ratio < 1.3           to the base's
    dpo.refusals.difference < 0.05   a measure, less the base's
    dpo.kl < 30

    The exit code is 0 where all rules pass, 1 where one fails, also since what it is about was not measured, and 2
    where one can't be read. docs/evaluation.md has all quantities.
    """
    from align.report import gate

    wanted = gate.read_rules(rules, files)
    results = gate.check(gate.read_metrics(report), wanted)
    passed = all(result.passed for result in results)
    facts = {"format": 1, "report": report, "passed": passed, "rules": [result.facts() for result in results]}
    print(_json(facts) if as_json else gate.in_words(results))
    if not passed:
        sys.exit(1)


@click.command(epilog=list_of_formats(), short_help="Convert one tool's preference data into another's.")
@click.argument("source", metavar="FROM", type=click.Path())
@click.argument("target", metavar="TO", type=click.Path())
@click.option("--from", "read_as", metavar="NAME", help="What FROM is.")
@click.option("--to", "write_as", metavar="NAME", help="What TO becomes.")
@click.option("--overwrite", is_flag=True, help="Replace TO if it is there.")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def convert(
    source: str, target: str, read_as: str | None, write_as: str | None, overwrite: bool, as_json: bool
) -> None:
    """Convert preference data of one tool, FROM, into another's, TO.

    Without --from, FROM is a preferences folder, or a file for `annotate import`; without --to, TO becomes such a file.
    TO is a file (.json, .jsonl, also .gz) or else a folder. What has no place in TO's shape is counted.
    """
    from preferences.formats import convert as convert_files

    lost = convert_files(source, target, read_as, write_as, overwrite=overwrite)
    facts = {"format": 1, "from": source, "to": target, "lost": lost}
    print(json.dumps(facts, ensure_ascii=False) if as_json else "\n  ".join([target, *lost]))


@click.command(short_help="Say how often a model beats another, of any judgements.")
@click.argument("file", metavar="FILE", type=click.Path())
@click.option("--baseline", metavar="NAME", help="Only the pairs with this model, as the baseline.")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def winrate(file: str, baseline: str | None, as_json: bool) -> None:
    """Say how often one model beats another, how sure that is, and what is left of it at equal length.

    FILE holds judgements, one JSON object a line or one array, gzipped or not: `prompt`, `candidate`, `baseline` and
    `preference` (1 = the candidate is better, 0.5 = a tie), and what else is known: lengths, judge, rater, order,
    sample, tags, difficulty. docs/evaluation.md says what is computed of them.
    """
    from align.evaluate.winrate import in_words, winrates

    found = winrates(file, baseline)
    print(json.dumps(found, ensure_ascii=False, allow_nan=False) if as_json else in_words(found))


@click.command(short_help="Record who ships or stops a model, on which report.")
@click.argument("report", metavar="REPORT", type=click.Path())
@click.argument("decision", metavar="[ship|stop]", type=click.Choice(["ship", "stop"]), required=False)
@click.option("--model", metavar="NAME", help="Which model, as the report calls it.")
@click.option("--by", metavar="WHO", help="Who decides.")
@click.option("--reason", metavar="TEXT", help="Why.")
@click.option("--record", metavar="FILE", help="Keep the record there.  [default: decisions.jsonl in REPORT]")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def decide(
    report: str,
    decision: str | None,
    model: str | None,
    by: str | None,
    reason: str | None,
    record: str | None,
    as_json: bool,
) -> None:
    """Record that WHO ships or stops a model on the word of REPORT, an evaluation's folder.

    The entry holds the hashes of the report's numbers, of the model's weights, and of the entry before it. It is
    refused where the report or the weights are no longer what was evaluated.

    Without ship or stop, list the decisions and check the record; the exit code is 1 where it was tampered with.
    """
    from align.report.html import verdict_lines
    from align.run import decisions
    from align.run.progress import say

    if decision is not None:
        if model is None or by is None:
            raise BadInput(f"say which model and who decides: align decide {report} {decision} --model NAME --by WHO")
        entry = decisions.decide(report, decision, model, by, reason, record)
        for line in verdict_lines(decisions.read_report(report).metrics, model):
            say(f"the report: {line}")
        print(_json(entry) if as_json else decisions.in_words([entry]))
        return
    if model is not None or by is not None or reason is not None:
        raise BadInput(f"say what is decided: align decide {report} ship, or stop")
    path, entries, faults = decisions.read_record(report, record)
    facts = {"format": 1, "record": str(path), "head": decisions.head(path), "decisions": entries, "faults": faults}
    if as_json:
        print(_json(facts))
    else:
        print(
            "\n".join(
                [
                    *([decisions.in_words(entries)] if entries else []),
                    *map(on_one_line, faults),
                    f"last hash: {facts['head']}",
                ]
            )
        )
    if faults:
        sys.exit(1)


@click.command(
    context_settings={"ignore_unknown_options": True}, short_help="Say what a run will take, and if it fits."
)
@click.argument("recipe", metavar="RECIPE")
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED, metavar="[--KEY VALUE]...")
@click.option("--verb", metavar="VERB", help="Of which verb RECIPE is; else told by its keys.")
@click.option("--config", metavar="FOLDER", help="Take the model's shape from the config.json there.")
@click.option("--gpu", metavar="NAME", help="Plan for this card, as 'A100 80GB'.  [default: what is here]")
@click.option(
    "--gpu-memory", type=click.FloatRange(0, min_open=True), metavar="GB", help="Or for one of so much memory."
)
@click.option("--device", type=click.Choice(["gpu", "cpu"]), help="Plan for any GPU, or for a CPU, whatever is here.")
@click.option("--accelerate_config", metavar="NAME", help="As the verb takes it: how processes share the work.")
@click.option("--num_processes", type=click.IntRange(min=1), metavar="N", help="How many GPUs in all.")
@click.option("--price", type=click.FloatRange(min=0), metavar="PRICE", help="Of one GPU an hour, in any currency.")
@click.option("--json", "as_json", is_flag=True, help="For scripts: bytes, seconds, everything that was found.")
def plan(recipe: str, overrides: tuple[str, ...], verb: str | None, as_json: bool, **where: Any) -> None:
    """Say whether a run fits its GPU, and what memory, time, disk and money it will take, before anything is loaded.

    Of the model only config.json is read, of the data its lengths. It knows ppo, sft, reward, dpo and kto.
    """
    from align.run.progress import quiet_libraries

    quiet_libraries()
    from trl import DPOConfig, KTOConfig, ModelConfig, RewardConfig, SFTConfig

    from align.config import read_recipe
    from align.plan.plan import plan_run
    from align.plan.words import as_json as for_scripts
    from align.plan.words import as_table
    from align.ppo.config import PPOConfig
    from align.train.common import DataArguments, RunArguments
    from align.train.dpo import DPOLossArguments
    from align.train.reward import RewardLossArguments

    trainers = {"sft": SFTConfig, "reward": RewardConfig, "dpo": DPOConfig, "kto": KTOConfig}
    own: dict[str, tuple[type, ...]] = {"reward": (RewardLossArguments,), "dpo": (DPOLossArguments,)}
    shared = (ModelConfig, DataArguments, RunArguments)
    schemas = {name: (config, *shared, *own.get(name, ())) for name, config in trainers.items()}
    found = plan_run(
        read_recipe(recipe, list(overrides)), recipe, {"ppo": (PPOConfig, ModelConfig), **schemas}, verb, **where
    )
    print(for_scripts(found) if as_json else as_table(found))


@click.command(short_help="Say what is wrong with this machine, and how to mend it.")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def doctor(as_json: bool) -> None:
    """Try what training needs of this machine: GPUs, quantising, processes that talk, disk, the hub, versions.

    The exit code is 1 where something is wrong, else 0.
    """
    from align.run import doctor
    from align.run.progress import quiet_libraries

    quiet_libraries()
    lines = doctor.examine()
    print(_json(doctor.facts(lines)) if as_json else doctor.in_words(lines))
    if any(line.state == "wrong" for line in lines):
        sys.exit(1)


@click.command(short_help="Write a run's model as others read it, and prove it.")
@click.argument("run", metavar="RUN")
@click.option("--merge", is_flag=True, help="Plain weights, for transformers and vLLM.")
@click.option("--adapter", is_flag=True, help="The adapter alone, for PEFT and vLLM.")
@click.option("--gguf", is_flag=True, help="One file, for llama.cpp.")
@click.option("--out", metavar="FOLDER", help="Where to.  [default: RUN-merged, RUN-adapter or RUN-gguf]")
@click.option("--prompts", metavar="DATA", help="What to compare the models on.  [default: the run's own data]")
@click.option("--judge", metavar="REWARD_RUN", help="Say the win rate against the trained model by this one, too.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16", "q8_0"]),
    help="Type of the weights.  [default: what the base's config.json says]",
)
@click.option("--overwrite", is_flag=True, help="Replace the export in FOLDER.")
@click.option("--json", "as_json", is_flag=True, help="Print what FOLDER/manifest.json says.")
def export(
    run: str,
    merge: bool,
    adapter: bool,
    gguf: bool,
    out: str | None,
    prompts: str | None,
    judge: str | None,
    dtype: str | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write the model of RUN, or of one of its checkpoints, in the form that a server wants, and prove that it is the
    same model: both answer the run's own prompts, and their logits, log-probabilities and responses are compared.

    FOLDER/manifest.json keeps the proof. The exit code is 1 where the two differ by more than rounding explains; the
    model is written all the same. docs/export.md has the commands that serve it.
    """
    forms = {"merge": merge, "adapter": adapter, "gguf": gguf}
    if sum(forms.values()) != 1:
        raise BadInput(f"say in which one form: align export {run} --merge, --adapter or --gguf")
    form: Any = next(name for name, given in forms.items() if given)
    from align.run.progress import quiet_libraries

    quiet_libraries()
    from align.export.export import run_export

    manifest, folder = run_export(run, form, out, prompts, judge, dtype, overwrite=overwrite)
    print(_json(manifest) if as_json else folder)
    if not manifest["proof"]["within_tolerance"]:
        sys.exit(1)


@click.command(short_help="List and compare runs, or make one again.")
@click.argument("folders", metavar="[FOLDER | RUN RUN...]", nargs=-1, type=click.Path())
@click.option("--again", metavar="RUN", help="Make this run again, from its own recipe and the same inputs.")
@click.option("--output_dir", metavar="NEW", help="Where --again puts it.")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@click.pass_context
def runs(
    context: click.Context, folders: tuple[str, ...], again: str | None, output_dir: str | None, as_json: bool
) -> None:
    """List the runs in FOLDER and below (`runs` by default), or say what two RUNs or more differ in.

    --again checks that data and models are what they were, by their hashes, and starts the run's verb with its recipe.
    """
    from pathlib import Path

    from align.run import runs
    from align.run.progress import say

    if again is not None:
        if folders or output_dir is None:
            raise BadInput(
                f"--again makes one run, into a folder of its own: align runs --again {again} --output_dir NEW"
            )
        verb, recipe, differ = runs.again(again)
        for one in differ:
            say(f"not as it was: {one}")
        words = [verb, recipe, "--output_dir", output_dir]
        say("align " + " ".join(words))
        root = context.find_root().command
        root.main(words, prog_name="align", standalone_mode=False)
        return
    if output_dir is not None:
        raise BadInput("--output_dir is for --again RUN; say which run to make again")
    if len(folders) > 1:
        found = runs.compare_runs(folders)
        print(_json({"format": 1, **found}) if as_json else runs.comparison_in_words(found))
        return
    folder = folders[0] if folders else "runs" if Path("runs").is_dir() else "."
    listed = runs.list_runs(folder)
    facts = {"format": 1, "runs": [run._asdict() for run in listed]}
    print(_json(facts) if as_json else runs.list_in_words(listed))


def _json(facts: dict[str, Any]) -> str:
    """One line that can be printed: a path's bytes that are not UTF-8 are escaped."""
    from preferences.files import dump_json

    return dump_json(facts).encode("utf-8", "backslashreplace").decode()
