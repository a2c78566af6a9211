"""One verb in several processes: relaunch under accelerate, and see to it that what was asked for is what runs.

accelerate can end up with fewer processes than its configuration says, each training alone, or with plain copies where
a sharded model was asked for, with exit code 0. So the launcher tells its workers how many they are to be
(`CONCORD_PROCESSES`) and in which way they work together (`CONCORD_STRATEGY`), and they check both before anything is
written.
"""

import importlib.util
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml

from align.run.stopping import Stopped, asked, handing_on
from align.run.strategies import STRATEGIES, asked_strategy, fsdp_of, zero_of
from preferences.errors import BadInput

# accelerate's names of what can be laid over its configuration
OPTIONS = ("num_processes", "num_machines", "machine_rank", "main_process_ip", "main_process_port")

_EXPECTED = "CONCORD_PROCESSES"
_STRATEGY = "CONCORD_STRATEGY"
_PR_SET_PDEATHSIG = 1  # of linux/prctl.h
_LAUNCHER_TAKES = 30  # seconds at the very most, until it has seen that a process is gone and ends the others
_BESIDE_CHECKOUT = Path(__file__).parent.parent.parent / "accelerate_configs"


def relaunch(words: Sequence[str], accelerate_config: str | None, **options: int | str | None) -> None:
    """Run `align WORDS` under accelerate_configs/NAME.yaml, or a file of the user's, and exit as its workers do; come
    back at once where no configuration is named. `options`: OPTIONS that win over the file.

    What a worker finds wrong with the input is said once, here. Raises BadInput for an unknown or unfit configuration.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if accelerate_config is None:
        if given:
            raise unconfigured(next(iter(given)))
        return
    where = f"--accelerate_config {accelerate_config}"
    path = _find(accelerate_config)
    config = _read(path, where)
    processes, strategy, options_for_accelerate = _check(config, given, where)
    for logger in ("api", "subprocess_handler"):  # torchrun's own account of a failure: the worker's is enough
        logging.getLogger(f"torch.distributed.elastic.multiprocessing.{logger}").setLevel(logging.CRITICAL)
    os.environ[_EXPECTED] = str(processes)
    os.environ[_STRATEGY] = strategy
    command = ["--config_file", str(path), *options_for_accelerate, "-m", "align.cli", *_without_options(words)]
    sys.stdout.flush()
    sections = [key for name in ("fsdp_config", "deepspeed_config") for key in config.get(name) or {}]
    _launch(command, sections, where)
    sys.exit(0)


def unconfigured(option: str) -> BadInput:
    """What to say where one of OPTIONS comes without `--accelerate_config`."""
    return BadInput(
        f"--{option} is laid over a configuration; say --accelerate_config NAME, too: multi_gpu where a GPU holds the"
        " model, fsdp2 where none does, cpu without GPUs (docs/distributed.md)"
    )


def asked_of(accelerate_config: str, num_processes: int | None) -> tuple[str, int]:
    """(strategy, processes) that a configuration asks for, whether this machine can run it or not. Raises BadInput."""
    where = f"--accelerate_config {accelerate_config}"
    config = _read(_find(accelerate_config), where)
    processes = num_processes or config.get("num_processes")
    if not isinstance(processes, int) or processes < 1:
        raise BadInput(f"{where}: it says no `num_processes`; add --num_processes 2")
    return _strategy(config, processes, where, here=False), processes


def tell_launcher(error: BadInput | str) -> bool:
    """Hand a worker's finding to `relaunch`, so that it is said once; False where nobody waits for it."""
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not file or _EXPECTED not in os.environ:
        return False
    Path(file).write_text(json.dumps({"message": str(error)}), encoding="utf-8")
    return True


def end_with_launcher() -> None:
    """Have the system end this worker where its launcher is killed: nobody would be left to do it, and it would go on
    holding its GPU. On Linux only.
    """
    if _EXPECTED in os.environ and sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@contextmanager
def waiting_for_the_launcher() -> Iterator[None]:
    """A process that lost another one waits to be ended by the launcher, which says what happened to the other.

    Without it, every process that did nothing wrong adds its own traceback to the one sentence about the one that did.
    One that has waited for another in vain (`ddp_timeout`) says so itself: no launcher sees a process that hangs.
    """
    try:
        yield
    except RuntimeError as error:
        if not _is_about_the_others(error):
            raise
        if asked() and _EXPECTED in os.environ:  # the launcher has seen it before us
            os._exit(1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # there is nothing left to be saved at the end of a step
        hangs = "timed out" in str(error).lower() or "timeout" in str(error).lower()
        if not hangs and _EXPECTED in os.environ:
            time.sleep(_LAUNCHER_TAKES)
        what = "waited for another process in vain (`ddp_timeout`): it hangs" if hangs else "lost another process"
        sentence = (
            f"process {os.environ.get('RANK', '0')} {what}; the run has ended, and --resume goes on from its last"
            " whole checkpoint"
        )
        if not tell_launcher(sentence):
            print(f"error: {sentence}", file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(1)  # the way out of Python would wait for the others once more


def meet_on_cpus(ddp_timeout: Any) -> None:
    """Begin a run of several processes on CPUs, which wait for each other so many seconds and no longer: transformers
    hands the key to GPUs' processes only.
    """
    import torch.distributed

    here = int(os.environ.get("WORLD_SIZE", "1")) > 1 and "MASTER_ADDR" in os.environ
    if here and isinstance(ddp_timeout, int) and ddp_timeout > 0 and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=ddp_timeout))


def check_world(processes: int) -> None:
    """Raise BadInput when this run has another number of processes than its launcher was asked for."""
    expected = int(os.environ.get(_EXPECTED) or os.environ.get("WORLD_SIZE", "1"))
    if processes != expected:
        raise BadInput(
            f"{expected} processes were asked for and {processes} came about, which would each train alone;"
            " on a CPU take `--accelerate_config cpu`, and `use_cpu: true` in the recipe"
        )


def check_strategy(accelerator: Any) -> None:
    """Raise BadInput when accelerate works in another way, or with other numbers, than its launcher was asked for."""
    check_world(accelerator.num_processes)
    asked, came = asked_strategy(), strategy_of(accelerator)
    if accelerator.num_processes == 1:  # one copy is what one process trains, whatever they are called
        asked, came = ("one" if each == "ddp" else each for each in (asked, came))
    if asked != came:
        raise BadInput(
            f"{STRATEGIES[asked]} was asked for, and {STRATEGIES.get(came, came)} came about; how models are spread"
            " over processes is said by --accelerate_config, not by keys of the recipe, and sharding needs GPUs"
        )


def strategy_of(accelerator: Any) -> str:
    """Which of STRATEGIES an Accelerator really follows, by its state and plugins; another name where it is none."""
    kind = accelerator.distributed_type.value
    if kind == "FSDP":
        return fsdp_of(accelerator.state.fsdp_plugin.fsdp_version)
    if kind == "DEEPSPEED":
        return zero_of(accelerator.state.deepspeed_plugin.zero_stage)
    return "one" if kind == "NO" else "ddp" if kind.startswith("MULTI_") else kind


def sharded() -> str | None:
    """The name of the way in which accelerate was asked to shard models, or None."""
    strategy = asked_strategy()
    return STRATEGIES[strategy] if strategy not in ("one", "ddp") else None


def _launch(command: Sequence[str], keys: Sequence[str], where: str) -> None:
    """Run accelerate's launcher; `keys` of the configuration's sections. Raises BadInput for what it or a worker finds
    wrong; exits as a failed worker did.
    """
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    args = launch_command_parser().parse_args(command)
    if unknown := [key for key in keys if key not in vars(args)]:  # accelerate would pass over them in silence
        raise BadInput(f"{where}: accelerate knows no `{unknown[0]}` in its sections; mend it, or take it out")
    args.signals_to_handle = "SIGINT,SIGHUP,SIGQUIT"  # torchrun's agent would kill the workers on SIGTERM
    with handing_on() as asked_to_stop:
        try:
            launch_command(args)
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            told = os.path.isfile(failure.error_file)
            if failure.exitcode == -signal.SIGTERM and asked_to_stop():
                raise Stopped from None
            if failure.exitcode == 2:
                if told:
                    raise BadInput(str(failure.message)) from None
            else:
                print(f"error: {failure.message if told else _ended(rank, failure.exitcode)}", file=sys.stderr)
            sys.exit(failure.exitcode if failure.exitcode > 0 else 1)
        except SignalException:  # torchrun's for Ctrl-C
            raise KeyboardInterrupt from None
        except subprocess.CalledProcessError as error:
            if error.returncode == -signal.SIGTERM and asked_to_stop():
                raise Stopped from None
            sys.exit(error.returncode if error.returncode > 0 else 1)
        except (ConnectionError, ValueError) as error:  # accelerate's own checks of the configuration
            raise BadInput(f"{where}: {' '.join(str(error).split())}") from None


def _ended(rank: int, code: int) -> str:
    """One sentence on a worker that ended without one of its own."""
    if code >= 0:
        return f"process {rank} failed (exit code {code}); see above"
    name = signal.Signals(-code).name
    why = ", which the system does where memory runs out" if name == "SIGKILL" else ""
    return (
        f"process {rank} was ended by {name}{why}; the others were stopped, and --resume goes on from the run's last"
        " whole checkpoint"
    )


def _is_about_the_others(error: RuntimeError) -> bool:
    """Whether torch says that another process is gone or does not answer."""
    torch = sys.modules.get("torch")
    return "gloo" in str(error) or (torch is not None and isinstance(error, torch.distributed.DistError))


def _find(name: str) -> Path:
    for path in (Path(name), Path("accelerate_configs") / f"{name}.yaml", _BESIDE_CHECKOUT / f"{name}.yaml"):
        if path.is_file():
            return path
    folders = (Path("accelerate_configs"), _BESIDE_CHECKOUT)
    names = sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})
    raise BadInput(f"--accelerate_config {name}: no such file; known names are {', '.join(names)}")


def _read(path: Path, where: str) -> dict[str, Any]:
    try:
        config: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInput(f"{where}: {path} is not YAML ({' '.join(str(error).split())})") from None
    if not isinstance(config, dict):
        raise BadInput(f"{where}: {path} is no list of `key: value` lines")
    return config


def _check(config: dict[str, Any], given: dict[str, Any], where: str) -> tuple[int, str, list[str]]:
    """How many processes a configuration asks for, by which strategy, and what accelerate's launcher must be told
    besides the file. Raises BadInput where that can't be, or not on this machine.
    """
    asked = {name: config[name] for name in OPTIONS if config.get(name) is not None} | given
    processes, machines = asked.get("num_processes"), asked.get("num_machines", 1)
    if not isinstance(processes, int) or processes < 1:
        raise BadInput(f"{where}: it says no `num_processes`; add --num_processes 2")
    if not isinstance(machines, int) or machines < 1:
        raise BadInput(f"{where}: `num_machines: {machines}` is not a number of machines")
    strategy = _strategy(config, processes, where)
    if processes % machines:  # accelerate would round down, and start fewer
        raise BadInput(f"{where}: {processes} processes don't divide into {machines} machines; both are totals")
    if machines > 1:
        if not asked.get("main_process_ip") or not asked.get("main_process_port"):
            raise BadInput(
                f"{where}: {machines} machines meet at the first one; add --main_process_ip and --main_process_port"
            )
        if not 0 <= asked.get("machine_rank", 0) < machines:
            raise BadInput(
                f"{where}: --machine_rank {asked['machine_rank']}: with {machines} machines it is 0 to {machines - 1}"
            )
    elif asked.get("machine_rank"):
        raise BadInput(f"{where}: --machine_rank {asked['machine_rank']} needs --num_machines 2 or more")
    told = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    if config.get("rdzv_backend"):  # accelerate's launcher reads these two from its command line only
        told += ["--rdzv_backend", str(config["rdzv_backend"])]
    if config.get("same_network"):
        told += ["--same_network"]
    if strategy.startswith("zero"):  # every machine starts its own workers, by ssh none
        told += ["--deepspeed_multinode_launcher", "standard"]
    return processes, strategy, told


def _strategy(config: dict[str, Any], processes: int, where: str, *, here: bool = True) -> str:
    """The strategy that a configuration says. Raises BadInput for one that is not in the table, or (`here`) can't be
    here.
    """
    kind = str(config.get("distributed_type", "NO")).upper()
    if kind in ("NO", "FALSE"):  # YAML reads a bare NO as false
        if processes > 1:
            raise BadInput(f"{where}: it is for one process, and {processes} were asked for; take multi_gpu")
        return "one"
    if kind.startswith("MULTI_"):
        return "ddp"
    if kind not in ("FSDP", "DEEPSPEED"):
        raise BadInput(f"{where}: distributed_type {kind}: Concord knows MULTI_GPU, FSDP and DEEPSPEED")
    section = config.get(f"{kind.lower()}_config") or {}
    try:
        if kind == "FSDP":
            strategy = fsdp_of(section.get("fsdp_version", 1))
        elif "deepspeed_config_file" in section:
            strategy = zero_of(_zero_stage(section["deepspeed_config_file"], where))
        else:
            strategy = zero_of(section.get("zero_stage"))
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from None
    if not here:
        return strategy
    if kind == "DEEPSPEED" and importlib.util.find_spec("deepspeed") is None:
        raise BadInput(f"{where}: DeepSpeed is not installed; `pip install deepspeed`")
    import torch

    if not torch.cuda.is_available():
        raise BadInput(
            f"{where}: {STRATEGIES[strategy]} shards a model over GPUs, and there is none here; two processes on a CPU"
            " are `--accelerate_config cpu`"
        )
    return strategy


def _zero_stage(file: str, where: str) -> Any:
    try:
        return json.loads(Path(file).read_text(encoding="utf-8"))["zero_optimization"]["stage"]
    except (OSError, ValueError, KeyError, TypeError):
        raise BadInput(f"deepspeed_config_file {file} has no readable `zero_optimization: {{stage: …}}`") from None


def _without_options(words: Sequence[str]) -> list[str]:
    """A command line less the options of the launch and their values, so that the relaunched verb runs."""
    names = {f"--{name}" for name in ("accelerate_config", *OPTIONS)}
    rest: list[str] = []
    skip = False
    for word in words:
        if skip or word.partition("=")[0] in names:
            skip = not skip and "=" not in word
        else:
            rest.append(word)
    return rest
