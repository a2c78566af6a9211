"""Which checkpoint counts: the last whole one, whatever a kill left of the others."""

import json
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from align.run.checkpoint import MARKER, checkpoints, clear_torn, mark_whole, prune

FILES = ("adapter_model.safetensors", "optimizer.pt", "global_step4/rank_0.pt", "trainer_state.json")
HARM = st.sampled_from(
    ["none", "missing", "shorter", "longer", "no marker", "half a marker", "odd marker", "another's", "all but marker"]
)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(HARM, st.sampled_from(FILES)), min_size=1, max_size=4), st.integers(1, 3))
def test_a_torn_checkpoint_is_never_taken(harms: list[tuple[str, str]], limit: int) -> None:
    """Whatever a kill left of a checkpoint: the last whole one is what a run goes on from, and pruning keeps."""
    with tempfile.TemporaryDirectory() as home:
        run = Path(home)
        whole = []
        for step, (harm, file) in enumerate(harms, start=9):  # checkpoint-9 comes before checkpoint-10
            folder = run / f"checkpoint-{step}"
            for name in FILES:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(b"1234")
            mark_whole(folder, step, 1)
            marker = (folder / MARKER).read_text()
            if harm == "missing":
                (folder / file).unlink()
            elif harm in ("shorter", "longer"):
                (folder / file).write_bytes(b"12" if harm == "shorter" else b"123456")
            elif harm == "no marker":
                (folder / MARKER).unlink()
            elif harm == "half a marker":
                (folder / MARKER).write_text(marker[: len(marker) // 2])
            elif harm == "odd marker":
                (folder / MARKER).write_text(json.dumps({"step": step, "files": [3]}))
            elif harm == "another's":
                (folder / MARKER).write_text(marker.replace(f'"step": {step}', '"step": 3'))
            elif harm == "all but marker":
                for name in FILES:
                    (folder / name).unlink()
            else:
                whole.append(step)
        assert sorted(step for step, _ in checkpoints(run)) == whole
        torn = clear_torn(run)
        assert torn == sorted(f"checkpoint-{step}" for step, (harm, _) in enumerate(harms, start=9) if harm != "none")
        prune(run, limit, [9])
        kept = sorted({*whole[-limit:], *(step for step in whole if step == 9)})
        assert sorted(path.name for path in run.iterdir()) == sorted(f"checkpoint-{step}" for step in kept)
        assert sorted(step for step, _ in checkpoints(run)) == kept
