"""One rank of a gloo group: five momentum steps of every chart's example; saves the end state.

python ddp_worker.py RANK WORLD FILE OUT: FILE is the rendezvous, OUT the folder of the results.
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from cases import make
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from weightfold import Charted, methods
from weightfold.methods import catalogue

methods.__path__.append(str(Path(__file__).parents[1] / "toys" / "methods"))


@torch.no_grad()
def broadcast_in_a_forward(wrapped: DistributedDataParallel, x: torch.Tensor, at: dict) -> dict:
    """Change every buffer on this rank, run once; name -> whether rank 0's value came over."""
    net = wrapped.module
    before = {n: b.clone() for n, b in net.named_buffers()}
    if dist.get_rank():
        for buffer in net.buffers():
            flipped = buffer.flip(0)
            same = torch.equal(flipped, buffer)
            buffer.copy_(buffer + 1 if same and buffer.dtype != torch.bool else flipped)
    changed = {n: b.clone() for n, b in net.named_buffers()}
    wrapped(x, at=at)
    found = {n: not torch.equal(b, changed[n]) for n, b in net.named_buffers()}
    for name, buffer in net.named_buffers():
        buffer.copy_(before[name])
    return found


def train(net: Charted, wrapped: nn.Module, x: torch.Tensor, at: dict, rank: int, world: int):
    """Five steps on this rank's share of the batch."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    for step in range(5):
        optimizer.zero_grad()
        mine = (x + 0.1 * step).chunk(world)[rank]
        wrapped(mine, at=at).square().mean().backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()


def main(rank: int, world: int, file: str, out: Path) -> None:
    """Run the rank; batch norms are in eval mode, their statistics would be each rank's own."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=world)
    for kind in catalogue():
        case = make(kind)
        net, at = case.net.eval(), case.at
        x = torch.cat([case.x, 2 * case.x, case.x.flip(0), -case.x])
        wrapped = DistributedDataParallel(net, find_unused_parameters=bool(at))
        received = broadcast_in_a_forward(wrapped, case.x, at)
        train(net, wrapped, x, at, rank, world)
        result = {"state": net.state_dict(), "received": received}
        torch.save(result, out / f"{kind}.{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4]))
