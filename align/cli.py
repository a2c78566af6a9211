"""The `align` command. Heavy imports happen inside the verb, so that `align --help` answers at once."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

from align import verbs
from preferences.errors import BadInput, exit_on_bad_input


def main() -> None:
    """Entry point: a user's mistake is one sentence and exit code 2."""
    with exit_on_bad_input():
        try:
            align.main(prog_name="align", standalone_mode=False)
        except click.ClickException as error:
            error.show()
            sys.exit(error.exit_code)
        except click.Abort:
            raise KeyboardInterrupt from None
        except BadInput as error:
            from align.run.launch import tell_launcher

            if tell_launcher(error):
                sys.exit(2)
            raise


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="concord")
def align() -> None:
    """Train a model to do what your people prefer, and say with error bars whether it does.

    A RECIPE is a YAML file whose keys are TRL's and transformers' own; any key can be given on the command line too,
    as in `align dpo recipe.yaml --beta 0.2`. The results land in the recipe's output_dir.
    """


def recipe_verb(
    name: str,
    help_text: str,
    short_help: str | None = None,
    *,
    options: Sequence[click.Option] = (),
) -> Callable[[Callable[..., None]], click.Command]:
    """A verb that runs a recipe: RECIPE, its keys as options, what every such verb has, and `options` of its own.

    short_help: for the list of verbs, where `help_text` is too long for it.
    """

    def decorate(body: Callable[..., None]) -> click.Command:
        def callback(
            recipe: str,
            overrides: tuple[str, ...],
            resume: bool,
            overwrite: bool,
            **more: Any,
        ) -> None:
            from align.run.stopping import stoppable

            launch = {option.name: more.pop(option.name) for option in verbs.launch}
            with stoppable():
                if any(value is not None for value in launch.values()):
                    from align.run.launch import relaunch

                    relaunch(sys.argv[1:], **launch)
                from align.run.launch import end_with_launcher, waiting_for_the_launcher
                from align.run.progress import quiet_libraries

                quiet_libraries()
                from align.config import read_recipe
                from align.run.remote import fetched, look_at_mirror

                end_with_launcher()
                with waiting_for_the_launcher():
                    keys = read_recipe(recipe, list(overrides))
                    resume = look_at_mirror(keys, resume, overwrite)
                    body(fetched(keys), recipe, resume=resume, overwrite=overwrite, **more)

        command = click.Command(
            name,
            callback=callback,
            help=help_text,
            short_help=short_help,
            context_settings={"ignore_unknown_options": True},
            params=[
                click.Argument(["recipe"], metavar="RECIPE"),
                click.Argument(["overrides"], nargs=-1, type=click.UNPROCESSED, metavar="[--KEY VALUE]..."),
                click.Option(["--resume"], is_flag=True, help="Go on with an interrupted run in output_dir."),
                click.Option(["--overwrite"], is_flag=True, help="Replace the run in output_dir."),
                *options,
                *verbs.launch,
            ],
        )
        align.add_command(command)
        return command

    return decorate


@recipe_verb(
    "sft",
    "Fine-tune on demonstrations: the best-liked and edited responses of a preferences folder.",
    "Fine-tune a model on demonstrations.",
)
def sft(recipe: dict[str, Any], where: str, **options: Any) -> None:
    from align.train.sft import run_sft

    run_sft(recipe, where, **options)


@recipe_verb("reward", "Train a reward model on preference pairs.")
def reward(recipe: dict[str, Any], where: str, **options: Any) -> None:
    from align.evaluate.inspect import report_after_training
    from align.train.reward import run_reward

    run_reward(recipe, where, **options)
    report_after_training(recipe["output_dir"])


@recipe_verb("dpo", "Align a model with preference pairs by DPO.")
def dpo(recipe: dict[str, Any], where: str, **options: Any) -> None:
    from align.train.dpo import run_dpo

    run_dpo(recipe, where, **options)


@recipe_verb(
    "kto",
    "Align a model with single responses that are good or bad, by KTO.",
    "Align a model with good and bad responses by KTO.",
)
def kto(recipe: dict[str, Any], where: str, **options: Any) -> None:
    from align.train.kto import run_kto

    run_kto(recipe, where, **options)


@recipe_verb(
    "ppo",
    "Align a model with rewards, of reward runs and functions, by PPO.",
    "Align a model with rewards by PPO.",
)
def ppo(recipe: dict[str, Any], where: str, **options: Any) -> None:
    from align.ppo.trainer import run_ppo

    run_ppo(recipe, where, **options)


@recipe_verb("rloo", "Align a model with the same rewards by RLOO.", "Align a model with rewards by RLOO.")
def rloo(recipe: dict[str, Any], where: str, **options: Any) -> None:
    from align.train.online import run_online

    run_online("rloo", recipe, where, **options)


@recipe_verb("grpo", "Align a model with the same rewards by GRPO.", "Align a model with rewards by GRPO.")
def grpo(recipe: dict[str, Any], where: str, **options: Any) -> None:
    from align.train.online import run_online

    run_online("grpo", recipe, where, **options)


@recipe_verb(
    "evaluate",
    "Compare models on held-out prompts, and write a report. With --to-annotate, write pairs of their responses for"
    " people to judge blind, whose verdicts an evaluation with `judges: {people: people.jsonl}` reads.",
    "Compare models on held-out prompts, and write a report.",
    options=verbs.ask_people,
)
def evaluate(recipe: dict[str, Any], where: str, *, resume: bool, overwrite: bool, **asked: Any) -> None:
    if verbs.asks_people(recipe, where, **asked):
        return
    from align.evaluate.compare import compare
    from align.report.card import write_cards
    from align.report.html import verdict_lines, write_report
    from align.run.manifest import hash_results
    from align.run.progress import say

    compared = compare(recipe, where, resume=resume, overwrite=overwrite)
    if compared is None:
        return
    run, metrics, samples = compared
    report = write_report(run.folder, metrics, samples)
    write_cards(run.folder, metrics)
    run.finish(results_sha256=hash_results(run.folder))
    for line in verdict_lines(metrics):
        say(line)
    print(report)


@align.command(short_help="Put the items first that reward models are unsure of.")
@click.argument("file", metavar="FILE")
@click.option(
    "--reward-model", "runs", metavar="RUN", multiple=True, required=True, help="A reward run; again for an ensemble."
)
@click.option("--pairs", type=click.IntRange(min=1), metavar="N", help="Write the N least sure pairs of each item.")
@click.option("--to-annotate", metavar="OUT", help="Write items that `annotate import` takes; else print a list.")
def score(file: str, runs: tuple[str, ...], pairs: int | None, to_annotate: str | None) -> None:
    """Give items the priority that reward models are unsure of them, so that raters see those first.

    FILE holds items as `annotate import` takes them, or is a preferences folder. With several runs the priority is how
    far they differ (mean over an item's pairs of the standard deviation of the score difference, each run in units of
    its own spread), with one how near it is to tossing a coin (entropy of its probability, in bits).
    """
    from align.run.progress import quiet_libraries

    quiet_libraries()
    from align.evaluate.score import run_score

    run_score(file, runs, pairs, to_annotate)


@align.command(short_help="Say what a reward run is worth on held-out pairs.")
@click.argument("run", metavar="RUN")
@click.argument("data", metavar="[DATA]", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print what reward.json says, too.")
def inspect(run: str, data: str | None, as_json: bool) -> None:
    """Say what a reward RUN is worth on held-out pairs: reward.html and reward.json in its folder.

    DATA is a preferences folder, a JSON-lines file of pairs, or a hub data set; without it, the test split of the data
    that the run was trained on, else their validation split.
    """
    from align.run.progress import quiet_libraries

    quiet_libraries()
    from align.evaluate.inspect import report_on

    page, report = report_on(run, data)
    if as_json:
        import json

        print(json.dumps(report, indent=2, sort_keys=True))
    else:
        print(page)


@align.command("audit", short_help="Say whether DATA would train a bad model.")
@click.argument("data", metavar="DATA")
@click.option("--eval", "evaluated_on", multiple=True, metavar="DATA", help="Data that the model will be judged by.")
@click.option("--model", metavar="NAME", help="Say what fits this model's context: a hub name or a model folder.")
@click.option("--allow", multiple=True, metavar="CHECK", help="A check that may not stop; it only warns. Several: a,b.")
@click.option("--out", metavar="FOLDER", help="Write audit.html and audit.json there.")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def audit_(
    data: str, evaluated_on: tuple[str, ...], model: str | None, allow: tuple[str, ...], out: str | None, as_json: bool
) -> None:
    """Say whether DATA would train a bad model, or make its evaluation wrong.

    DATA is what training takes: a preferences folder, a JSON-lines file, a hub data set. `sft`, `reward`, `dpo`, `kto`,
    `ppo`, `rloo` and `grpo` do the same before they train. The exit code is 2 where a check says stop, else 0.
    docs/audit.md has the checks.
    """
    from align.run.progress import quiet_libraries

    quiet_libraries()
    from align.audit.audit import audit, check_names, refusal, summary
    from align.audit.rows import read_data
    from preferences.files import dump_json

    try:
        check_names(allow, "--allow")
    except ValueError as error:
        raise BadInput(str(error)) from None
    tokenizer = limit = None
    if model is not None:
        from align.data.lengths import context_length
        from align.models.load import find_model, load_config, load_tokenizer

        source = find_model(model)
        tokenizer, limit = load_tokenizer(source), context_length(load_config(source))
    found = audit(read_data(data), [read_data(other) for other in evaluated_on], tokenizer, limit, allow)
    if out is not None:
        from align.report.audit import write_audit

        write_audit(out, found)
    print(dump_json(found) if as_json else summary(found))
    sentence = refusal(found, "--allow CHECK")
    if sentence:
        raise BadInput(sentence)


@align.command(context_settings={"ignore_unknown_options": True})
@click.argument("recipe", metavar="RECIPE")
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED, metavar="[--KEY VALUE]...")
@click.option("--to-annotate", metavar="FILE", help="Write items that `annotate import` takes; else print them.")
def sample(recipe: str, overrides: tuple[str, ...], to_annotate: str | None) -> None:
    """Sample responses to prompts, to look at or to have ranked."""
    from align.run.progress import quiet_libraries

    quiet_libraries()
    from align.config import read_recipe
    from align.evaluate.sample import run_sample
    from align.run.remote import fetched

    run_sample(fetched(read_recipe(recipe, list(overrides))), recipe, to_annotate)


@align.command(short_help="Talk to a model.")
@click.argument("model", metavar="MODEL")
@click.option(
    "--max-new-tokens", type=click.IntRange(min=1), default=256, show_default=True, help="Longest reply, in tokens."
)
@click.option(
    "--temperature",
    type=click.FloatRange(min=0),
    default=0.7,
    show_default=True,
    help="0 always takes the likeliest token.",
)
def chat(model: str, max_new_tokens: int, temperature: float) -> None:
    """Talk to a MODEL: a hub name, a model folder, or a run folder."""
    from align.run.progress import quiet_libraries

    quiet_libraries()
    from align.evaluate.chat import run_chat

    run_chat(model, max_new_tokens, temperature)


@align.command(short_help="Serve models over HTTP as OpenAI's API does.")
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option("--host", default="127.0.0.1", show_default=True, help="0.0.0.0 lets other machines in.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free one.")
@click.option("--api-key-env", metavar="NAME", help="The environment variable with the key that clients must send.")
def serve(models: tuple[str, ...], host: str, port: int, api_key_env: str | None) -> None:
    """Serve MODELs over HTTP as OpenAI's API does, for `annotate serve --models` or any client.

    A MODEL is a hub name, a model folder, or a run folder; clients name it as it stands here. There is
    /v1/chat/completions, streamed or whole, and /v1/models. Each model answers one request at a time; others wait.
    """
    from align.run.progress import quiet_libraries

    quiet_libraries()
    from align.evaluate.serve import run_serve

    run_serve(models, host, port, api_key_env)


for command in (
    verbs.convert,
    verbs.decide,
    verbs.doctor,
    verbs.export,
    verbs.gate,
    verbs.plan,
    verbs.runs,
    verbs.winrate,
):
    align.add_command(command)


if __name__ == "__main__":
    main()
