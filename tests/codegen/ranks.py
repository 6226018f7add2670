"""A small sparse layer trained by two processes over gloo, for tests/codegen/test_torch_features.py."""

from __future__ import annotations

import faulthandler
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from subprocess import PIPE, Popen

import torch
import torch.distributed as dist
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent.parent
# A rank that waits longer than this says where, and ends.
PATIENCE = 60


def run_on_two_ranks(kind: str, x: Tensor, folder: Path) -> None:
    """Two steps of SGD on half of the batch each; the weights are left in folder/trained.pt."""
    torch.save(x, folder / "x.pt")
    command = [sys.executable, "-m", "tests.codegen.ranks", kind, str(folder)]
    # Threads would fight for the cores: the processes are compared, not timed.
    quiet = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with ExitStack() as stack:
        ranks = [
            stack.enter_context(Popen([*command, str(rank)], cwd=ROOT, env=quiet, stderr=PIPE, text=True))
            for rank in (0, 1)
        ]
        for each in ranks:
            stack.callback(each.kill)
        errors = [each.communicate(timeout=2 * PATIENCE)[1] for each in ranks]
    assert [each.returncode for each in ranks] == [0, 0], "\n".join(errors)


def main(kind: str, folder: Path, rank: int) -> None:
    """One of the two processes."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor

    from tests.codegen.test_torch_features import layer_of

    faulthandler.dump_traceback_later(PATIENCE, exit=True)
    # A file joins the two: no port to collide on.
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    model: torch.nn.Module = layer_of()
    if kind == "ddp":
        model = torch.nn.parallel.DistributedDataParallel(model)
    else:
        fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
    x = torch.load(folder / "x.pt", weights_only=True).chunk(2)[rank]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    weights = {
        name.removeprefix("module."): weight.full_tensor() if isinstance(weight, DTensor) else weight
        for name, weight in model.state_dict().items()
    }
    if rank == 0:
        torch.save(weights, folder / "trained.pt")
    dist.barrier()
    # Not by returning: DDP frees its gloo group under the interpreter's lock, which that group's thread may be waiting
    # for to free the barrier; the two then wait for each other for ever.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
