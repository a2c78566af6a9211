"""The whole loop once, on a small real model: rankings, preferences, reward model, SFT, DPO and PPO, and a report.

    python demo/run.py [MODEL]

Every step is a command that real work uses, too, printed as it runs. The raters are simulated, and said to be.
"""

import json
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from model import model_folder

OUT = Path("demo/out")
DATABASE = OUT / "annotate.db"
BIN = Path(sys.executable).parent

times: list[tuple[str, float]] = []


def step(title: str, *command: str) -> None:
    """Run one command, showing it and what it says; stop the demo if it fails."""
    print(f"\n\033[1m{title}\033[0m\n$ {shlex.join(command)}", flush=True)
    started = time.monotonic()
    # nobody is asked for a password half-way: without a terminal to ask at, `annotate people add` makes one up
    code = subprocess.run([str(BIN / command[0]), *command[1:]], stdin=subprocess.DEVNULL).returncode
    times.append((title, time.monotonic() - started))
    if code != 0:
        sys.exit(f"error: the demo stopped at: {title} (exit code {code})")


def main() -> None:
    if not Path("demo/prompts.jsonl").is_file():
        sys.exit("error: run the demo from the top folder of the checkout, as in `make demo`")
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    started = time.monotonic()
    model = sys.argv[1] if len(sys.argv) > 1 else str(model_folder())
    times.append(("The model, converted or found", time.monotonic() - started))
    on_model = ("--model_name_or_path", model)
    where = ("--database", str(DATABASE))

    step("Simulated raters rank", "python", "demo/raters.py", "demo/responses.jsonl", str(OUT / "ranked.jsonl"))
    step(
        "A project",
        *("annotate", "project", "create", "demo", "--guidelines", "demo/guidelines.md", "--simulated"),
        *("--validation", "0", "--test", "0.3", *where),
    )
    step("Their answers come in", "annotate", "import", "demo", str(OUT / "ranked.jsonl"), *where)
    step("How well they agree", "annotate", "report", "demo", *where)
    step("Answers become preferences", "annotate", "export", "demo", str(OUT / "preferences"), *where)
    step("A reward model", "align", "reward", "demo/reward.yaml", *on_model)
    step("DPO", "align", "dpo", "demo/dpo.yaml", *on_model)
    step("SFT, for PPO to start from", "align", "sft", "demo/sft.yaml", *on_model)
    step("PPO", "align", "ppo", "demo/ppo.yaml")
    models: dict[str, Any] = {"base": model, **{name: str(OUT / name) for name in ("sft", "dpo", "ppo")}}
    models["best of 2"] = {"model": model, "best_of": 2, "reward_model": str(OUT / "reward")}
    step("Did it help?", "align", "evaluate", "demo/evaluate.yaml", "--models", json.dumps(models))
    step("A login for you, to rank", "annotate", "people", "add", "demo", "you", *where)
    step("A login for you, to watch", "annotate", "people", "add", "demo", "owner", "--role", "owner", *where)

    total = sum(seconds for _, seconds in times)
    print("\n\033[1mWhere the time went\033[0m")
    for title, seconds in times:
        print(f"  {seconds:6.0f} s  {title}")
    print(f"  {total:6.0f} s  in all ({total / 60:.1f} minutes)")
    print(f"\nThe report:         {(OUT / 'evaluation' / 'report.html').resolve()}")
    print("Rank for yourself:  make serve-demo, then http://127.0.0.1:7860 as `you`, with its password above")
    print("Watch the progress: the same page as `owner`")


if __name__ == "__main__":
    main()
