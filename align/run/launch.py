"""One verb in several processes: relaunch under accelerate, and see to it that what was asked for is what runs.

accelerate can end up with fewer processes than its configuration says, each training alone, with exit code 0. So the
launcher tells its workers how many they are to be (`CONCORD_PROCESSES`), and they check it before anything is written.
"""

import importlib.util
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from preferences.errors import BadInput

_EXPECTED = "CONCORD_PROCESSES"
_LAUNCHER_TAKES = 30  # seconds at the very most, until it has seen that a process is gone and ends the others
_BESIDE_CHECKOUT = Path(__file__).parent.parent.parent / "accelerate_configs"


def relaunch(name: str, words: list[str]) -> None:
    """Run `align WORDS` under accelerate_configs/NAME.yaml, or a file of the user's, and exit as its workers do.

    What a worker finds wrong with the input is said once, here. Raises BadInput for an unknown or unfit configuration.
    """
    found = _find(name)
    expected = _check(found, name)
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    for logger in ("api", "subprocess_handler"):  # torchrun's own account of a failure: the worker's is enough
        logging.getLogger(f"torch.distributed.elastic.multiprocessing.{logger}").setLevel(logging.CRITICAL)
    os.environ[_EXPECTED] = str(expected)
    args = launch_command_parser().parse_args(["--config_file", str(found), "-m", "align.cli", *words])
    sys.stdout.flush()
    try:
        launch_command(args)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode == 2:
            if os.path.isfile(failure.error_file):
                raise BadInput(str(failure.message)) from None
        else:
            print(f"error: process {rank} failed (exit code {failure.exitcode}); see above", file=sys.stderr)
        sys.exit(failure.exitcode if failure.exitcode > 0 else 1)
    except SignalException:  # torchrun's for Ctrl-C
        raise KeyboardInterrupt from None
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode if error.returncode > 0 else 1)
    except ValueError as error:  # accelerate's own checks of the configuration
        raise BadInput(f"--accelerate_config {name}: {' '.join(str(error).split())}") from None
    sys.exit(0)


def tell_launcher(error: BadInput) -> bool:
    """Hand a worker's finding to `relaunch`, so that it is said once; False where nobody waits for it."""
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not file or _EXPECTED not in os.environ:
        return False
    Path(file).write_text(json.dumps({"message": str(error)}), encoding="utf-8")
    return True


@contextmanager
def waiting_for_the_launcher() -> Iterator[None]:
    """A process that lost another one waits to be ended by the launcher, which says what happened to the other.

    Without it, every process that did nothing wrong adds its own traceback to the one sentence about the one that did.
    """
    try:
        yield
    except RuntimeError as error:
        if "gloo" in str(error):
            time.sleep(_LAUNCHER_TAKES)
        raise


def check_world(processes: int) -> None:
    """Raise BadInput when this run has another number of processes than its launcher was asked for."""
    expected = int(os.environ.get(_EXPECTED) or os.environ.get("WORLD_SIZE", "1"))
    if processes != expected:
        raise BadInput(
            f"{expected} processes were asked for and {processes} came about, which would each train alone;"
            " on a CPU take `--accelerate_config cpu`, and `use_cpu: true` in the recipe"
        )


def sharded() -> str | None:
    """The name of the way in which accelerate was asked to shard models, or None."""
    for variable, kind in (("ACCELERATE_USE_FSDP", "FSDP"), ("ACCELERATE_USE_DEEPSPEED", "DeepSpeed")):
        if os.environ.get(variable, "false").lower() == "true":
            return kind
    return None


def _find(name: str) -> Path:
    for path in (Path(name), Path("accelerate_configs") / f"{name}.yaml", _BESIDE_CHECKOUT / f"{name}.yaml"):
        if path.is_file():
            return path
    folders = (Path("accelerate_configs"), _BESIDE_CHECKOUT)
    names = sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})
    raise BadInput(f"--accelerate_config {name}: no such file; known names are {', '.join(names)}")


def _check(path: Path, name: str) -> int:
    """How many processes a configuration asks for. Raises BadInput where this machine can't run it."""
    try:
        config: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInput(f"--accelerate_config {name}: {path} is not YAML ({' '.join(str(error).split())})") from None
    processes = config.get("num_processes") if isinstance(config, dict) else None
    if not isinstance(processes, int) or processes < 1:
        raise BadInput(f"--accelerate_config {name}: {path} says no `num_processes`; add `num_processes: 2`")
    kind = str(config.get("distributed_type", "NO")).upper()
    if kind == "DEEPSPEED" and importlib.util.find_spec("deepspeed") is None:
        raise BadInput(f"--accelerate_config {name}: DeepSpeed is not installed; `pip install deepspeed`")
    if kind in ("FSDP", "DEEPSPEED"):
        import torch

        if not torch.cuda.is_available():
            raise BadInput(f"--accelerate_config {name}: {kind} shards a model over GPUs, and there is none here")
    return processes
