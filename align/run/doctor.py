"""`align doctor`: what training needs of this machine, each thing really tried, and how to mend what is wrong.

No finding is an exception: what can't be looked at is a line, too.
"""

import importlib
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from align.run.doctor_folders import State, folders, hub, limits

_TEST = Path(__file__).parents[2] / "constraints.txt"  # beside a checkout
_OPTIONAL = ("flash-attn", "deepspeed", "vllm", "liger-kernel", "gguf", "sentencepiece")
_IMPORTED = {"flash-attn": "flash_attn", "deepspeed": "deepspeed"}  # compiled for one torch, so often broken
_SECONDS = 60  # for two processes to find each other


class Line(NamedTuple):
    """One finding."""

    name: str
    state: State
    found: str
    mend: str | None = None  # what to do about it


def examine() -> list[Line]:
    """All findings. What other processes have to do is begun first, and waited for last."""
    talking = _begin_talking()
    checks: list[Callable[[], list[Line]]] = [
        _python,
        _versions,
        _optional,
        _gpus,
        _quantising,
        lambda: _talked(talking),
        lambda: [Line(*line) for line in folders()],
        lambda: [Line(*line) for line in hub()],
        lambda: [Line(*line) for line in limits()],
    ]
    return [line for check in checks for line in _guarded(check)]


def _guarded(check: Callable[[], list[Line]]) -> list[Line]:
    try:
        return check()
    except Exception as error:  # whatever a library makes of a broken machine
        name = check.__name__.strip("_").replace("<lambda>", "a check")
        return [Line(name, "wrong", f"could not be looked at: {_short(error)}")]


def in_words(lines: list[Line]) -> str:
    """A line each, and below it how to mend it."""
    width = max(len(line.name) for line in lines)
    said = []
    for line in lines:
        said.append(f"{line.state:<5}  {line.name:<{width}}  {line.found}")
        if line.mend and line.state != "ok":
            said.append(f"{'':<5}  {'':<{width}}  mend: {line.mend}")
    wrong = sum(line.state == "wrong" for line in lines)
    warned = sum(line.state == "warn" for line in lines)
    said.append("")
    said.append(f"{wrong} wrong, {warned} to know of" if wrong or warned else "nothing is wrong")
    return "\n".join(said)


def facts(lines: list[Line]) -> dict[str, Any]:
    """The findings for scripts."""
    return {
        "format": 1,
        "wrong": sum(line.state == "wrong" for line in lines),
        "warnings": sum(line.state == "warn" for line in lines),
        "lines": [line._asdict() for line in lines],
    }


# --- versions -----------------------------------------------------------------------------------------------------


def _python() -> list[Line]:
    return [Line("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")]


def _versions() -> list[Line]:
    """What is installed against the lower bounds of `.[align]`, and against what the tests ran with."""
    from packaging.requirements import Requirement
    from packaging.version import Version

    needed = [Requirement(line) for line in importlib.metadata.requires("concord") or ()]
    needed = [one for one in needed if one.marker is None or one.marker.evaluate({"extra": "align"})]
    old, tested, others, known = [], [], [], _tested_versions()
    for one in needed:
        try:
            found = importlib.metadata.version(one.name)
        except importlib.metadata.PackageNotFoundError:
            old.append(f"{one.name} is missing")
            continue
        if not one.specifier.contains(found, prereleases=True):
            old.append(f"{one.name} {found} ({one.specifier} is needed)")
        elif one.name in known and Version(known[one.name]).public != Version(found).public:
            others.append(f"{one.name} {found} ({known[one.name]})")
        tested.append(f"{one.name} {found}")
    lines = []
    mend = "in Concord's checkout: pip install -c constraints.txt '.[align]'"  # other people's is `concord` on PyPI
    if old:
        lines.append(Line("versions", "wrong", "; ".join(old), mend))
    main = [said for said in tested if said.split()[0] in ("torch", "transformers", "trl", "peft", "accelerate")]
    if others:
        said = f"not those that the tests ran with, in brackets: {', '.join(others)}"
        lines.append(Line("versions", "warn", said, f"{mend}, should a run fail"))
    return lines or [Line("versions", "ok", ", ".join(main))]


def _tested_versions() -> dict[str, str]:
    if not _TEST.is_file():
        return {}
    lines = (line.split("==") for line in _TEST.read_text(encoding="utf-8").splitlines() if "==" in line)
    return {name.strip(): version.strip() for name, version in lines}


def _optional() -> list[Line]:
    found, lines = [], []
    for name in _OPTIONAL:
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        try:
            if name in _IMPORTED:
                importlib.import_module(_IMPORTED[name])
        except Exception as error:
            mend = f"pip install --force-reinstall --no-build-isolation {name}, or take it out"
            lines.append(Line(name, "wrong", f"{version}, which can't be imported: {_short(error)}", mend))
            continue
        found.append(f"{name} {version}")
    return [*lines, Line("optional", "ok", ", ".join(found) if found else f"none of {', '.join(_OPTIONAL)}")]


# --- GPUs ---------------------------------------------------------------------------------------------------------


class _Driver(NamedTuple):
    """What nvidia-smi says."""

    gpus: list[str]
    version: str
    cuda: str  # the newest CUDA that the driver runs


def _driver() -> _Driver | str | None:
    """What nvidia-smi says; a sentence where it fails; None where there is none."""
    ask = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(ask, capture_output=True, text=True, timeout=20)
        banner = subprocess.run(["nvidia-smi"], capture_output=True, text=True, timeout=20).stdout
    except FileNotFoundError:
        return None
    except (OSError, subprocess.TimeoutExpired) as error:
        return _short(error)
    if done.returncode:
        return " ".join((done.stdout or done.stderr).split()) or f"exit code {done.returncode}"
    rows = [line.rsplit(",", 1) for line in done.stdout.strip().splitlines() if "," in line]
    cuda = re.search(r"CUDA Version:\s*([\d.]+)", banner)
    version = rows[0][1].strip() if rows else "?"
    return _Driver([row[0].strip() for row in rows], version, cuda.group(1) if cuda else "?")


def _gpus() -> list[Line]:
    """Driver, torch's build, and every GPU with its memory and types."""
    import torch

    driver, built = _driver(), torch.version.cuda
    torch_is = f"torch {torch.__version__}, " + (f"built for CUDA {built}" if built else "built without CUDA")
    if isinstance(driver, str):
        mend = "reboot after an update of the driver, or install it anew; `nvidia-smi` must list the GPUs"
        return [Line("driver", "wrong", f"nvidia-smi fails: {driver}", mend), Line("torch", "ok", torch_is)]
    if driver is None or not driver.gpus:
        if torch.cuda.is_available():  # AMD's, or a container without the tool
            return [Line("torch", "ok", torch_is), *_each_gpu(torch)]
        return [
            Line("torch", "ok", torch_is),
            Line(
                "GPUs",
                "warn",
                "none: runs are on the CPU, which is for trying things",
                "`align plan RECIPE --gpu NAME` says what one would do",
            ),
        ]
    lines = [Line("driver", "ok", f"{driver.version}, up to CUDA {driver.cuda}: {', '.join(driver.gpus)}")]
    if torch.cuda.is_available():
        return [*lines, Line("torch", "ok", torch_is), *_each_gpu(torch)]
    if not built:
        tag = "cu" + "".join(driver.cuda.split(".")[:2])
        mend = f"pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/{tag}"
        return [*lines, Line("torch", "wrong", f"{torch_is}, so it sees no GPU", mend)]
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        hidden = f"CUDA_VISIBLE_DEVICES={os.environ['CUDA_VISIBLE_DEVICES']!r} hides every GPU"
        return [*lines, Line("torch", "wrong", f"{torch_is}; {hidden}", "unset CUDA_VISIBLE_DEVICES")]
    mend = f"update the driver, or install a torch that is built for CUDA {driver.cuda} or older"
    return [*lines, Line("torch", "wrong", f"{torch_is}, and sees no GPU", mend)]


def _each_gpu(torch: Any) -> list[Line]:
    lines = []
    for number in range(torch.cuda.device_count()):
        name = f"GPU {number}"
        try:
            free, total = torch.cuda.mem_get_info(number)
            major, minor = torch.cuda.get_device_capability(number)
            one = torch.ones((256, 256), device=f"cuda:{number}", dtype=torch.bfloat16 if major >= 8 else torch.float16)
            right = float((one @ one)[0, 0]) == 256
        except Exception as error:
            mend = "this torch may not be built for such a GPU: https://pytorch.org has the others; else reset it"
            lines.append(Line(name, "wrong", f"a product of matrices fails: {_short(error)}", mend))
            continue
        said = f"{torch.cuda.get_device_name(number)}, {total / 1e9:.1f} GB ({free / 1e9:.1f} free), sm_{major}{minor}"
        if not right:
            lines.append(Line(name, "wrong", f"{said}: a product of ones is not right", "take the card out of use"))
        elif major < 8:
            lines.append(Line(name, "warn", f"{said}, no bf16", "recipes need `bf16: false`, `fp16: true`"))
        elif free < 0.8 * total:
            lines.append(Line(name, "warn", f"{said}: others use it", "`nvidia-smi` says who; CUDA_VISIBLE_DEVICES"))
        else:
            lines.append(Line(name, "ok", f"{said}, bf16"))
    return lines


def _quantising() -> list[Line]:
    """A matrix to 4 bits and back, on the device that a run would take."""
    try:
        import bitsandbytes
        import torch
        from bitsandbytes.functional import dequantize_4bit, quantize_4bit
    except Exception as error:
        mend = "pip install --upgrade bitsandbytes; without it no recipe with load_in_4bit or load_in_8bit runs"
        return [Line("bitsandbytes", "wrong", f"can't be imported: {_short(error)}", mend)]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        generator = torch.Generator().manual_seed(0)
        matrix = torch.randn((256, 256), generator=generator).to(device)
        packed, state = quantize_4bit(matrix, quant_type="nf4")
        back = dequantize_4bit(packed, state)
        lost = float((matrix - back).norm() / matrix.norm())
    except Exception as error:
        mend = "`python -m bitsandbytes` says which of its libraries it looked for; CUDA and torch must fit it"
        return [Line("bitsandbytes", "wrong", f"{bitsandbytes.__version__} fails on {device}: {_short(error)}", mend)]
    said = f"{bitsandbytes.__version__}: a matrix to 4 bits and back on {device}, {lost:.1%} of it lost"
    if not 0.05 < lost < 0.15:  # nf4 in blocks of 64 loses 9% of a normal matrix
        return [Line("bitsandbytes", "wrong", said, "pip install --force-reinstall bitsandbytes; 9% is what is normal")]
    return [Line("bitsandbytes", "ok", said)]


# --- processes ----------------------------------------------------------------------------------------------------

_TALK = """
import sys, datetime, torch, torch.distributed as dist
rank, backend, file = int(sys.argv[1]), sys.argv[2], sys.argv[3]
world = int(sys.argv[4])
device = f"cuda:{rank}" if backend == "nccl" else "cpu"
if backend == "nccl":
    torch.cuda.set_device(rank)
dist.init_process_group(backend, init_method="file://" + file, rank=rank, world_size=world,
                        timeout=datetime.timedelta(seconds=45))
number = torch.full((1024,), float(rank + 1), device=device)
dist.all_reduce(number)
expected = world * (world + 1) / 2
sys.exit(0 if bool((number == expected).all()) else 3)
"""


class _Talk(NamedTuple):
    backend: str
    folder: Any  # a temporary one
    processes: list[Any]


def _begin_talking() -> list[_Talk]:
    """Two processes over gloo; and over NCCL as many as there are GPUs, two at most."""
    import tempfile

    gpus = sum(1 for path in Path("/dev").glob("nvidia[0-9]*"))
    begun = []
    for backend, world in (("gloo", 2), ("nccl", min(gpus, 2))):
        if not world:
            continue
        try:
            folder = tempfile.TemporaryDirectory(prefix="align-doctor-")
            words = [sys.executable, "-c", _TALK]
            rest = [backend, f"{folder.name}/meet", str(world)]
            processes = [
                subprocess.Popen(
                    [*words, str(rank), *rest], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
                )
                for rank in range(world)
            ]
        except OSError as error:
            begun.append(_Talk(f"{backend}: {_short(error)}", None, []))
            continue
        begun.append(_Talk(backend, folder, processes))
    return begun


def _talked(begun: list[_Talk]) -> list[Line]:
    lines = []
    for talk in begun:
        name = "processes"
        mend = (
            "NCCL_DEBUG=INFO says more; a firewall, an odd network interface (GLOO_SOCKET_IFNAME, NCCL_SOCKET_IFNAME)"
        )
        if not talk.processes:
            lines.append(Line(name, "wrong", f"could not be started: {talk.backend}", "free some disk and memory"))
            continue
        said = ""
        for process in talk.processes:
            try:
                _, errors = process.communicate(timeout=_SECONDS)
                said = said or ("" if process.returncode == 0 else _last(errors) or f"exit code {process.returncode}")
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                said = said or f"no answer within {_SECONDS} s"
        if talk.folder is not None:
            talk.folder.cleanup()
        many = f"{len(talk.processes)} process{'es' * (len(talk.processes) > 1)} over {talk.backend}"
        if said:
            lines.append(Line(name, "wrong", f"{many} could not add their numbers: {said}", mend))
        else:
            lines.append(Line(name, "ok", f"{many} added their numbers"))
    return lines


def _last(errors: str) -> str:
    """The last line of a traceback, which says what it was."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""


def _short(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:200]
