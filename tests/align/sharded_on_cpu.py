"""`align` under FSDP2 or DeepSpeed on a machine without a GPU: accelerate's launcher starts this file in every process.

    accelerate launch --config_file accelerate_configs/fsdp2.yaml sharded_on_cpu.py COMMANDS.json

accelerate picks the backend by the cards that it finds, and where it finds none, it shards nothing. Here it is told
that gloo between CPUs is the backend that it found. All the rest is what runs on GPUs: accelerate's preparation of
model and optimiser, torch's fully_shard and DeepSpeed's engine, our configurations, and the verbs.

COMMANDS.json is a list of command lines, one after the other, since importing the libraries takes most of the time.
What a process holds of the model is written beside its run, `RUN-of-rank-N.json`. KILL_AT=3 in the environment kills
both processes as the third step begins.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
import transformers.trainer
import transformers.training_args
from accelerate.state import PartialState
from accelerate.utils import DistributedType
from transformers import TrainerCallback

PartialState._prepare_backend = lambda self, *args, **more: ("gloo", DistributedType.MULTI_GPU)
PartialState.set_device = lambda self: setattr(self, "device", torch.device("cpu"))
transformers.training_args.is_torch_bf16_gpu_available = lambda: True  # a CPU computes it, too, slowly


def held(model: Any, optimizer: Any) -> dict[str, Any]:
    """How many numbers of the model there are and lie here, and how many the optimiser here moves."""
    whole = here = 0
    for parameter in model.parameters():
        whole += getattr(parameter, "ds_numel", parameter.numel())
        shard = getattr(parameter, "ds_tensor", getattr(parameter, "_local_tensor", parameter))
        here += shard.numel()
    optimizer = getattr(optimizer, "optimizer", optimizer)
    inner = getattr(optimizer, "optimizer", optimizer)  # DeepSpeed's has torch's
    if hasattr(optimizer, "fp16_partitioned_groups_flat"):  # of ZeRO-3
        moved = [part for part in optimizer.fp16_partitioned_groups_flat if part is not None]
    else:
        moved = [parameter for group in inner.param_groups for parameter in group["params"]]
    moves = sum(getattr(parameter, "_local_tensor", parameter).numel() for parameter in moved)
    return {"whole": whole, "here": here, "moves": moves}


class Witness(TrainerCallback):
    def on_step_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        if state.global_step + 1 == int(os.environ.get("KILL_AT", "0")):
            os.kill(os.getpid(), signal.SIGKILL)

    def on_step_end(
        self, args: Any, state: Any, control: Any, model: Any = None, optimizer: Any = None, **more: Any
    ) -> None:
        if state.global_step == 1:
            trained = sum(getattr(p, "ds_numel", p.numel()) for p in model.parameters() if p.requires_grad)
            facts = {"kind": str(args.distributed_state.distributed_type), "world": torch.distributed.get_world_size()}
            path = Path(f"{args.output_dir}-of-rank-{os.environ['RANK']}.json")
            path.write_text(json.dumps({**facts, "trained": trained, **held(model, optimizer)}))


transformers.trainer.DEFAULT_CALLBACKS.append(Witness)

if __name__ == "__main__":
    from align.cli import main

    for words in json.loads(Path(sys.argv[1]).read_text()):
        sys.argv = ["align", *words]
        main()
