"""What a launch may ask for, what accelerate makes of our configurations, and that nothing else than that runs."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from align.run.launch import asked_of
from align.run.strategies import KINDS, STAGES, STRATEGIES, TABLE, asked_strategy, refuse
from preferences.errors import BadInput
from tests.align.conftest import PPO, TRAIN, refused, write_recipe

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "accelerate_configs"


def environment_of(name: str, *words: str) -> tuple[Any, dict[str, str]]:
    """What accelerate's own launcher makes of a configuration: its arguments, and the environment of its workers."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import (
        prepare_deepspeed_cmd_env,
        prepare_multi_gpu_env,
        prepare_simple_launcher_cmd_env,
    )

    command = ["--config_file", str(CONFIGS / f"{name}.yaml"), *words, "-m", "align.cli"]
    args, defaults, _ = _validate_launch_command(launch_command_parser().parse_args(command))
    if args.use_deepspeed:
        args.deepspeed_fields_from_accelerate_config = ",".join(defaults.deepspeed_config)
        return args, prepare_deepspeed_cmd_env(args)[1]
    if args.use_fsdp or args.multi_gpu:
        return args, prepare_multi_gpu_env(args)
    return args, prepare_simple_launcher_cmd_env(args)[1]


@pytest.mark.parametrize(
    ("name", "kind", "strategy", "processes"),
    [
        ("cpu", "MULTI_GPU", "ddp", 2),
        ("single_gpu", "NO", "one", 1),
        ("multi_gpu", "MULTI_GPU", "ddp", 2),
        ("fsdp2", "FSDP", "fsdp2", 2),
        ("deepspeed_zero2", "DEEPSPEED", "zero2", 2),
        ("deepspeed_zero3", "DEEPSPEED", "zero3", 2),
    ],
)
def test_accelerate_reads_what_a_configuration_says(
    name: str, kind: str, strategy: str, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.utils import DeepSpeedPlugin, FullyShardedDataParallelPlugin

    config = load_config_from_file(str(CONFIGS / f"{name}.yaml"))
    assert (config.distributed_type.value, config.num_processes, config.num_machines) == (kind, processes, 1)
    assert asked_of(name, None) == (strategy, processes)
    args, environment = environment_of(name)
    for section in ("fsdp_config", "deepspeed_config"):
        for key, value in getattr(config, section).items():
            assert getattr(args, key) == value, "accelerate passes over it"
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    assert asked_strategy() == strategy, "a launch by `accelerate launch` itself"
    if kind == "FSDP":
        plugin = FullyShardedDataParallelPlugin()
        assert (plugin.fsdp_version, plugin.reshard_after_forward, plugin.cpu_ram_efficient_loading) == (2, True, True)
        assert plugin.state_dict_type.name == "FULL_STATE_DICT"
    if kind == "DEEPSPEED":
        plugin = DeepSpeedPlugin()
        assert (plugin.zero_stage, plugin.gradient_accumulation_steps) == (int(name[-1]), "auto")
        assert (plugin.zero3_init_flag, plugin.zero3_save_16bit_model) == (name[-1] == "3", name[-1] == "3")


def test_every_configuration_says_what_it_is_for() -> None:
    names = {path.stem for path in CONFIGS.glob("*.yaml")}
    assert names == {"cpu", "single_gpu", "multi_gpu", "fsdp2", "deepspeed_zero2", "deepspeed_zero3"}
    for name in names:
        text = (CONFIGS / f"{name}.yaml").read_text()
        for word in ("# For: ", "# Needs: ", "# Limits: ", f"--accelerate_config {name}"):
            assert word in text, (name, word)


def test_options_win_over_the_file() -> None:
    args, _ = environment_of("multi_gpu", "--num_processes", "8", "--num_machines", "2", "--machine_rank", "1")
    assert (args.nproc_per_node, args.nnodes, args.node_rank) == ("4", "2", 1)


TWO_MACHINES = [
    "--accelerate_config",
    "cpu",
    "--num_machines",
    "2",
    "--main_process_ip",
    "a",
    "--main_process_port",
    "9",
]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--num_processes", "2"], "--num_processes is laid over a configuration; say --accelerate_config NAME, too: "),
        (["--accelerate_config", "cpu", "--num_processes", "0"], "0 is not in the range"),
        (["--accelerate_config", "no-such"], "known names are"),
        (["--accelerate_config", "single_gpu", "--num_processes", "2"], "it is for one process, and 2 were asked for"),
        (["--accelerate_config", "cpu", "--num_processes", "3", "--num_machines", "2"], "3 processes don't divide"),
        (["--accelerate_config", "cpu", "--num_machines", "2"], "add --main_process_ip and --main_process_port"),
        (["--accelerate_config", "cpu", "--machine_rank", "1"], "needs --num_machines 2 or more"),
        (
            [*TWO_MACHINES, "--machine_rank", "2"],
            "with 2 machines it is 0 to 1",
        ),
    ],
)
@pytest.mark.parametrize("verb", ["sft", "evaluate"])
def test_launches_that_cannot_be(words: list[str], said: str, verb: str, recipe: Any) -> None:
    assert said in refused(verb, recipe(), *words)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("num_processes: [", "is not YAML"),
        ("- a", "is no list of `key: value` lines"),
        ("distributed_type: MULTI_GPU\n", "says no `num_processes`"),
        ("distributed_type: DEEPSPEED\nnum_processes: 2\n", "Concord knows 2 and 3"),
        ("distributed_type: DEEPSPEED\nnum_processes: 2\ndeepspeed_config: {zero_stage: 1}\n", "Concord knows 2 and 3"),
        ("distributed_type: FSDP\nnum_processes: 2\nfsdp_config: {fsdp_version: 1}\n", "Concord knows FSDP2"),
        ("distributed_type: FSDP\nnum_processes: 2\nfsdp_config: {fsdp_version: 2}\n", "are `--accelerate_config cpu`"),
        ("distributed_type: MEGATRON_LM\nnum_processes: 2\n", "Concord knows MULTI_GPU, FSDP and DEEPSPEED"),
        ("distributed_type: MULTI_GPU\nnum_processes: 2\nnumber: 2\n", "unknown keys"),
        ("distributed_type: MULTI_GPU\nnum_processes: 2\nfsdp_config: {fsdp_versoin: 2}\n", "knows no `fsdp_versoin`"),
    ],
)
def test_configurations_that_are_not_right(
    text: str, said: str, recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("CONCORD_PROCESSES", "CONCORD_STRATEGY", "CONCORD_COMMAND", "CONCORD_ASKED"):
        monkeypatch.setenv(variable, "")  # what the launcher sets is undone
    (tmp_path / "config.yaml").write_text(text)
    assert said in refused("dpo", recipe(), "--accelerate_config", tmp_path / "config.yaml")


def test_a_strategy_that_accelerate_silently_leaves_out_is_refused(
    recipe: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without a GPU accelerate takes its own FSDP settings for nothing, and would train plain copies."""
    from accelerate import PartialState
    from transformers import TrainingArguments

    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    TrainingArguments(output_dir=str(tmp_path / "plain"), use_cpu=True)
    assert PartialState().distributed_type.value == "NO", "accelerate has mended it: nothing is left to be refused"
    for verb in ("reward", "dpo", "kto"):
        assert "FSDP2 was asked for, and one process came about" in refused(verb, recipe())
        assert not (tmp_path / "home" / "out").exists()


def test_sharding_by_a_key_of_the_recipe_is_refused(recipe: Any, tmp_path: Path) -> None:
    """Nobody asked the launcher for it, so nobody would notice where it does not come about."""
    sentence = refused("sft", recipe(fsdp=True, fsdp_config={"version": 2}))
    assert "error: " in sentence
    assert not (tmp_path / "home" / "out").exists()


@pytest.mark.parametrize(
    "variables", [{"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}, {"CONCORD_STRATEGY": "zero3"}]
)
def test_ppo_keeps_whole_roles(variables: dict[str, str], ppo_recipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    said = refused("ppo", ppo_recipe())
    assert "PPO keeps whole copies of its roles in every process; take multi_gpu" in said
    assert "`align ppo`, LoRA, under " in said


def test_evaluate_samples_from_whole_models(evaluate_recipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONCORD_STRATEGY", "fsdp2")
    assert "every process samples from the whole model; take multi_gpu" in refused("evaluate", evaluate_recipe())


def test_every_cell_of_the_table_works_or_is_refused() -> None:
    assert set(TABLE) == set(STAGES)
    for stage, rows in TABLE.items():
        assert list(rows) == list(KINDS)
        for kind, row in rows.items():
            assert list(row) == list(STRATEGIES)
            for strategy, cell in row.items():
                if cell.works:
                    refuse(stage, kind, strategy)
                else:
                    with pytest.raises(BadInput, match=re.escape(cell.why)):
                        refuse(stage, kind, strategy)


def test_the_table_in_the_docs_is_the_code_s() -> None:
    lines = (ROOT / "docs" / "distributed.md").read_text().splitlines()
    why = dict(match.groups() for line in lines if (match := re.fullmatch(r"\* \*\*(\w)\*\* (.*)", line)))
    header, *_ = [line for line in lines if line.startswith("| verb | training |")]
    assert [cell.strip() for cell in header.strip("|").split("|")][2:] == list(STRATEGIES.values())
    told: dict[tuple[str, str], list[str]] = {}
    for line in lines[lines.index(header) + 2 :]:
        if not line.startswith("|"):
            break
        verbs, kind, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        for verb in verbs.split(", "):
            told[verb.strip("`"), kind] = cells
    for stage, rows in TABLE.items():
        for kind, row in rows.items():
            for written, cell in zip(told.pop((stage, KINDS[kind])), row.values(), strict=True):
                yes, letter = written.split()
                assert yes == ("yes" if cell.works else "no")
                assert why[letter] == ("works, tested " if cell.works else "refused: ") + cell.why
    assert not told


def start(verb: str, recipe: Path, home: Path) -> "subprocess.Popen[str]":
    """`align VERB RECIPE` in two processes, which go on until they are ended."""
    command = [str(Path(sys.executable).parent / "align"), verb, str(recipe), "--accelerate_config", "cpu"]
    return subprocess.Popen(command, cwd=home, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def worker(launcher: "subprocess.Popen[str]", rank: str) -> psutil.Process:
    for process in psutil.Process(launcher.pid).children(recursive=True):
        if process.environ().get("RANK") == rank:
            return process
    raise AssertionError(f"no process of rank {rank}")


def end_worker(launcher: "subprocess.Popen[str]", folder: Path, by: signal.Signals) -> tuple[int, str, float]:
    """Send the second process a signal when some steps are done; exit code, what was said, and how long it took."""
    lines: Callable[[], int] = lambda: (folder / "metrics.jsonl").read_text().count("\n")  # noqa: E731
    while launcher.poll() is None and not ((folder / "metrics.jsonl").is_file() and lines() > 2):
        time.sleep(0.1)
    before = time.monotonic()
    worker(launcher, "1").send_signal(by)
    _, said = launcher.communicate(timeout=300)
    return launcher.returncode, said, time.monotonic() - before


def endless(verb: str, tiny: Path, pairs_file: Path, folder: Path, **more: Any) -> Path:
    keys = {"model_name_or_path": str(tiny), "dataset_name": str(pairs_file), "output_dir": str(folder), **more}
    if verb == "ppo":
        rewards = folder.with_suffix(".py")
        rewards.write_text("def none(completions, **columns):\n    return [float(len(c)) for c in completions]\n")
        keys |= {**PPO, "total_episodes": 10**7, "use_cpu": True, "reward_funcs": f"{rewards}:none"}
    else:
        keys |= {**TRAIN, "max_steps": 10**6}
    return write_recipe(folder.with_suffix(".yaml"), **keys)


def test_a_process_that_is_killed_ends_the_run(tiny: Path, pairs_file: Path, tmp_path: Path) -> None:
    launcher = start("dpo", endless("dpo", tiny, pairs_file, tmp_path / "out"), tmp_path)
    code, said, _ = end_worker(launcher, tmp_path / "out", signal.SIGKILL)
    assert code == 1
    assert said.count("error: ") == 1
    assert "error: process 1 was ended by SIGKILL, which the system does where memory runs out" in said
    assert "--resume goes on from the run's last whole checkpoint" in said
    assert "Traceback" not in said


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["ppo", "reward"])
def test_a_process_that_hangs_ends_the_run(verb: str, tiny: Path, pairs_file: Path, tmp_path: Path) -> None:
    """A stopped process answers to no one, the launcher's SIGTERM included; after half a minute it is killed."""
    launcher = start(verb, endless(verb, tiny, pairs_file, tmp_path / "out", ddp_timeout=5), tmp_path)
    code, said, seconds = end_worker(launcher, tmp_path / "out", signal.SIGSTOP)
    assert code == 1
    assert said.count("error: ") == 1
    assert "error: process 0 waited for another process in vain (`ddp_timeout`): it hangs" in said
    assert seconds > 4, "it waited"
    assert "Traceback" not in said


@pytest.mark.slow
def test_workers_end_with_their_launcher(tiny: Path, pairs_file: Path, tmp_path: Path) -> None:
    """kill -9 of the launcher, as where memory runs out, leaves nobody who trains on."""
    launcher = start("dpo", endless("dpo", tiny, pairs_file, tmp_path / "out"), tmp_path)
    while launcher.poll() is None and not (tmp_path / "out" / "metrics.jsonl").is_file():
        time.sleep(0.1)
    workers = [worker(launcher, rank) for rank in ("0", "1")]
    launcher.kill()
    launcher.communicate(timeout=300)
    psutil.wait_procs(workers, timeout=300)
    assert not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in workers)
