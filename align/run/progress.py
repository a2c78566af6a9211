"""What a verb says while it works: lines on stderr, and the libraries' own chatter turned down."""

import logging
import os
import sys
import warnings


def say(text: str) -> None:
    """One line of progress on stderr, from the main process only; standard output is kept for results."""
    if os.environ.get("RANK", "0") == "0":
        print(text, file=sys.stderr, flush=True)


def quiet_libraries() -> None:
    """Switch telemetry off (unless the user switched it on) and hide warnings that users can't act on."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")  # we say what matters; downloads keep their bars
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", message=".*MatMul8bitLt.*")
    warnings.filterwarnings("ignore", message=".*pin_memory.*")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
