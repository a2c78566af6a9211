"""SIGTERM wherever it comes: exit code 0, and the line that goes on with the run, which ends as if nothing had been."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from align.run.checkpoint import checkpoints
from tests.align.conftest import PPO, align, done, refused, write_recipe
from tests.align.test_distributed import assert_same_metrics, completions, largest_difference
from tests.align.test_resume_trainers import (
    EVAL,
    KEYS,
    LORA,
    REWARD,
    SAMPLING,
    align_process,
    assert_same_to_the_last_bit,
    equal,
    trained,
    waited_for,
)


def signalled(*_: Any, **__: Any) -> None:
    """SIGTERM comes to this process, now."""
    signal.raise_signal(signal.SIGTERM)


def status(folder: Path) -> str:
    found: str = json.loads((folder / "manifest.json").read_text())["status"]
    return found


def go_on(said: str) -> Any:
    """Give the command line that the last line says, word by word."""
    line = said.splitlines()[-1]
    assert line.startswith("stopped by SIGTERM; go on with: align "), line
    return done(*shlex.split(line.partition("align ")[2]))


@pytest.fixture()
def trainer_recipe(tiny: Path, preferences: Path, tmp_path: Path) -> Callable[..., Path]:
    def make(**keys: Any) -> Path:
        keys = {**KEYS, **LORA, **EVAL, "max_steps": 8, "save_steps": 5, "save_total_limit": 1, **keys}
        return write_recipe(tmp_path / "r.yaml", **keys, model_name_or_path=str(tiny), dataset_name=str(preferences))

    return make


@pytest.mark.parametrize("moment", ["evaluation", pytest.param("saving", marks=pytest.mark.slow)])
def test_training_ends_what_it_is_at(
    moment: str, trainer_recipe: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look at held-out rows is ended, and so is the step after it; the writing of the last model is, and then the run
    is finished.
    """
    from trl import SFTTrainer

    from align.train import running

    recipe = trainer_recipe()
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    done("sft", recipe, "--output_dir", unbroken)
    with monkeypatch.context() as patch:
        if moment == "evaluation":
            look = SFTTrainer.prediction_step
            patch.setattr(SFTTrainer, "prediction_step", lambda *a, **k: (signalled(), look(*a, **k))[1])
        else:
            kept = running.hash_weights
            patch.setattr(running, "hash_weights", lambda folder: (signalled(), kept(folder))[1])
        said = align("sft", recipe, "--output_dir", broken)
    assert said.code == 0
    if moment == "saving":
        assert status(broken) == "finished" and "finished in" in said.err
    else:
        assert status(broken) == "stopped"
        assert [step for step, _ in checkpoints(broken)] == [4], "a look is at step 3"
        go_on(said.err)
    assert_same_to_the_last_bit(unbroken, broken)


def test_before_training_nothing_is_written(
    trainer_recipe: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from align.train import sft

    monkeypatch.setattr(sft, "load_causal_lm", signalled)
    before = signal.getsignal(signal.SIGTERM)  # pytest's process may have a handler from other tests
    said = align("sft", trainer_recipe(output_dir=str(tmp_path / "run")))
    assert said.code == 0
    assert said.err.splitlines()[-1] == "stopped by SIGTERM before anything was written; give the command again"
    assert not (tmp_path / "run").exists()
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["steps", "epoch", "best"])
def test_at_the_end_of_an_epoch(
    strategy: str, trainer_recipe: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of one and in its last step, whatever says when to save; the last look is not left out."""
    from align.train.keeping import Keeper

    keys: dict[str, Any] = {"metric_for_best_model": "loss", "load_best_model_at_end": True, "save_steps": 3}
    keys |= {"save_strategy": strategy, "eval_strategy": "steps" if strategy == "best" else strategy}
    recipe = trainer_recipe(**keys)
    unbroken = tmp_path / "unbroken"
    done("sft", recipe, "--output_dir", unbroken)
    ask = Keeper.on_step_end
    for step in (2, 3, 4):
        broken = tmp_path / f"broken-{step}"

        def at(self: Keeper, args: Any, state: Any, *more: Any, when: int = step, **named: Any) -> None:
            if state.global_step == when:
                signalled()
            ask(self, args, state, *more, **named)

        with monkeypatch.context() as patch:
            patch.setattr(Keeper, "on_step_end", at)
            said = align("sft", recipe, "--output_dir", broken)
        assert (said.code, status(broken)) == (0, "stopped")
        assert max(step for step, _ in checkpoints(broken)) == step
        go_on(said.err)
        assert equal(trained(unbroken), trained(broken))
        logs = [(run / "metrics.jsonl").read_text().splitlines() for run in (unbroken, broken)]
        logged = [[json.loads(line) for line in log] for log in logs]
        looked = [[(row["step"], row["eval_loss"]) for row in each if "eval_loss" in row] for each in logged]
        assert looked[0] == looked[1]
        best = [json.loads((run / "manifest.json").read_text())["best"] for run in (unbroken, broken)]
        assert best[0] == best[1]


@pytest.mark.slow
def test_between_two_rounds_of_responses(
    trainer_recipe: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GRPO learns twice from the same responses here, which are in no checkpoint."""
    from align.train.keeping import Keeper

    monkeypatch.chdir(tmp_path)
    Path("rewards.py").write_text(REWARD)
    recipe = trainer_recipe(**SAMPLING, num_iterations=2, save_steps=6, eval_strategy="no")
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    done("grpo", recipe, "--output_dir", unbroken)
    ask = Keeper.on_step_end

    def at_3(self: Keeper, args: Any, state: Any, *more: Any, **named: Any) -> None:
        if state.global_step == 3:
            signalled()
        ask(self, args, state, *more, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Keeper, "on_step_end", at_3)
        said = align("grpo", recipe, "--output_dir", broken)
    assert (said.code, [step for step, _ in checkpoints(broken)]) == (0, [4])
    go_on(said.err)
    assert_same_to_the_last_bit(unbroken, broken)
    words = ("--eval_strategy", "steps", "--eval_steps", "3", "--metric_for_best_model", "reward")
    assert "key `eval_steps`: 3 is not a multiple of 2" in refused("grpo", recipe, "--output_dir", "other", *words)


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    """Not one that comes with the first: Slurm signals every process of a step, and launchers hand it on."""
    script = """
import time
from align.run.stopping import finishing_steps, stoppable
with stoppable(), finishing_steps():
    print("ready", flush=True)
    while True:
        time.sleep(0.01)
"""
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert "once more, and it ends at once" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        time.sleep(2.5)  # the two seconds in which signals are the same one
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait() == -signal.SIGTERM


@pytest.fixture()
def evaluation(tiny: Path, pairs_file: Path, tmp_path: Path) -> Path:
    (tmp_path / "judges.py").write_text(
        "def short(completions, **_):\n    return [-len(c[0]['content']) for c in completions]\n"
    )
    keys: dict[str, Any] = {"models": {"base": str(tiny), "copy": str(tiny)}, "dataset_name": str(pairs_file)}
    keys |= {"output_dir": str(tmp_path / "run"), "max_new_tokens": 4, "cache_dir": None, "batch_size": 1}
    return write_recipe(tmp_path / "e.yaml", **keys, judges={"short": f"{tmp_path}/judges.py:short"})


def numbers(run: Path) -> dict[str, Any]:
    found = json.loads((run / "metrics.json").read_text())
    return {key: value for key, value in found.items() if key not in ("seconds", "provenance")}


def test_evaluation_stops_where_it_is(evaluation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from align.evaluate import compare

    with monkeypatch.context() as patch:
        patch.setattr(compare, "kl_to_base", signalled)
        said = align("evaluate", evaluation)
    assert (said.code, status(tmp_path / "run")) == (0, "stopped")
    assert "copy: 11 of 11 prompts are there already" in go_on(said.err).err
    assert status(tmp_path / "run") == "finished"


# --- real processes ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_evaluation_that_samples(evaluation: Path, tmp_path: Path) -> None:
    done("evaluate", evaluation, "--output_dir", tmp_path / "unbroken")
    run, log = tmp_path / "run", tmp_path / "log"
    with align_process(("evaluate", evaluation), log) as process:
        waited_for(process, log, lambda: any(path.stat().st_size for path in run.glob("responses-*.jsonl")))
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 0, log.read_text()
    assert status(run) == "stopped"
    go_on(log.read_text())
    assert numbers(run) == numbers(tmp_path / "unbroken")


def rows(run: Path) -> int:
    """How many lines are logged."""
    file = run / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.is_file() else 0


@pytest.mark.slow
def test_two_processes_and_their_launcher(trainer_recipe: Callable[..., Path], tmp_path: Path) -> None:
    """The launcher hands the signal on and waits; both processes end their step; the line names the launch, too."""
    recipe = trainer_recipe(max_steps=60, save_steps=50, use_cpu=True)
    unbroken, broken, log = tmp_path / "unbroken", tmp_path / "broken", tmp_path / "log"
    launched = ("--accelerate_config", "cpu")
    with align_process(("dpo", recipe, "--output_dir", unbroken, *launched), log) as process:
        assert process.wait() == 0, log.read_text()
    with align_process(("dpo", recipe, "--output_dir", broken, *launched), log) as process:
        waited_for(process, log, lambda: rows(broken) >= 4)
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 0, log.read_text()
    assert status(broken) == "stopped"
    *_, line = log.read_text().splitlines()
    words = ("align", "dpo", recipe, "--output_dir", broken, *launched, "--resume")
    assert line == f"stopped by SIGTERM; go on with: {shlex.join(map(str, words))}"
    assert log.read_text().count("stopped by SIGTERM") == 1
    refusal = align("dpo", recipe, "--output_dir", broken, "--resume")
    assert "the run to resume has 2 processes, and with 1 it would not end where" in refusal.err
    with align_process(words[1:], log) as process:
        assert process.wait() == 0, log.read_text()
    assert equal(trained(unbroken), trained(broken))


@pytest.mark.slow
def test_torchrun_by_hand(trainer_recipe: Callable[..., Path], tmp_path: Path) -> None:
    """Its agent ends with an error of its own, and gives the workers as long as it is told to."""
    recipe = trainer_recipe(max_steps=60, save_steps=50, output_dir=str(tmp_path / "run"), use_cpu=True)
    log = tmp_path / "log"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += ["-m", "align.cli", "dpo", str(recipe)]
    environment = {**os.environ, "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "300"}
    with subprocess.Popen(command, stderr=open(log, "wb"), env=environment) as process:
        waited_for(process, log, lambda: rows(tmp_path / "run") >= 4)
        process.send_signal(signal.SIGTERM)
        process.wait()
    assert status(tmp_path / "run") == "stopped"
    assert len(checkpoints(tmp_path / "run")) == 1
    said = f"with the same launcher, go on with: align dpo {recipe} --resume"
    assert said in log.read_text()


@pytest.mark.slow
def test_a_launcher_that_is_told_twice_ends_all_at_once(tiny: Path, preferences: Path, tmp_path: Path) -> None:
    """The workers don't listen: they are in a reward function that does not return."""
    (tmp_path / "rewards.py").write_text(
        "import signal, time\n\n\ndef hangs(completions, **_):\n"
        "    print('hanging', flush=True)\n    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n"
        "    while True:\n        time.sleep(1)\n"
    )
    keys: dict[str, Any] = {**PPO, "model_name_or_path": str(tiny), "dataset_name": str(preferences), "use_cpu": True}
    recipe = write_recipe(tmp_path / "ppo.yaml", **keys, reward_funcs=f"{tmp_path}/rewards.py:hangs")
    command = [str(Path(sys.executable).parent / "align"), "ppo", str(recipe), "--accelerate_config", "cpu"]
    with subprocess.Popen(
        [*command, "--output_dir", str(tmp_path / "run")], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == ["hanging\n"] * 2
        workers = psutil.Process(process.pid).children()
        process.send_signal(signal.SIGTERM)
        time.sleep(2.5)  # the two seconds in which signals are the same one
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait() == -signal.SIGTERM
        psutil.wait_procs(workers)


# Sends a signal in the first process's nth call, of which one is made while setting up: SIGKILL to this process,
# SIGTERM to the launcher, which hands it on.
SIGNALLING = """
import os
import signal
import time

calls = 0

def likes_o(completions, **_):
    global calls
    calls += 1
    name, _, nth = os.environ.get("SIGNAL_AT", "").partition(" ")
    if nth == str(calls) and os.environ.get("RANK", "0") == "0":
        os.kill(os.getppid() if name == "SIGTERM" else os.getpid(), getattr(signal, name))
        time.sleep(600)
    return [float(completion[-1]["content"].count("o")) for completion in completions]
"""


@pytest.mark.slow
def test_ppo_goes_on_in_another_number_of_processes(
    tiny: Path, preferences: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one that is killed, in two that are stopped, and in one again: what one process would have made."""
    (tmp_path / "rewards.py").write_text(SIGNALLING)
    keys: dict[str, Any] = {"model_name_or_path": str(tiny), "dataset_name": str(preferences), "use_peft": True}
    keys |= {"reward_funcs": f"{tmp_path}/rewards.py:likes_o", "lora_r": 4, "use_cpu": True, "response_length": 12}
    keys |= {"total_episodes": 36, "batch_size": 6, "num_mini_batches": 3, "num_ppo_epochs": 2, "save_steps": 2}
    keys |= {"learning_rate": 1e-3, "kl_target": 0.5, "kl_horizon": 50, "seed": 2}
    keys |= {"dataset_test_split": "test", "eval_steps": 2, "eval_prompts": 5}
    recipe = write_recipe(tmp_path / "ppo.yaml", **keys)
    one, many, log = tmp_path / "one", tmp_path / "many", tmp_path / "log"
    done("ppo", recipe, "--output_dir", one)
    words: tuple[Any, ...] = ("ppo", recipe, "--output_dir", many)
    monkeypatch.setenv(
        "SIGNAL_AT", "SIGKILL 6"
    )  # after set-up, two looks and two updates: in the rollouts of the third
    with align_process(words, log) as process:
        assert process.wait() == -signal.SIGKILL, log.read_text()
    assert max(step for step, _ in checkpoints(many)) == 2
    monkeypatch.setenv("SIGNAL_AT", "SIGTERM 5")  # after set-up, two updates and a look: in the rollouts of the fifth
    with align_process((*words, "--resume", "--accelerate_config", "cpu"), log) as process:
        assert process.wait() == 0, log.read_text()
    manifest = json.loads((many / "manifest.json").read_text())
    assert (manifest["status"], manifest["processes"]) == ("stopped", 2)
    assert "resuming after update 2" in log.read_text()
    monkeypatch.delenv("SIGNAL_AT")
    assert "resuming after update 4" in done("ppo", recipe, "--output_dir", many, "--resume").err
    assert completions(one) == completions(many)
    assert assert_same_metrics(one, many) < 1e-3
    assert largest_difference(one / "adapter_model.safetensors", many / "adapter_model.safetensors") < 1e-5
