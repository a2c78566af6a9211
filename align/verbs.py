"""Verbs of `align` that need no recipe: about what is there already. Heavy imports happen inside the verb."""

import sys

import click


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
    dpo.refusal.difference < 0.05    a measure, less the base's
    dpo.kl < 30

    The exit code is 0 where all rules pass, 1 where one fails, also since what it is about was not measured, and 2
    where one can't be read. docs/evaluation.md has all quantities.
    """
    from align.report import gate
    from preferences.files import dump_json

    wanted = gate.read_rules(rules, files)
    results = gate.check(gate.read_metrics(report), wanted)
    passed = all(result.passed for result in results)
    facts = {"format": 1, "report": report, "passed": passed, "rules": [result.facts() for result in results]}
    print(dump_json(facts) if as_json else gate.in_words(results))
    if not passed:
        sys.exit(1)
