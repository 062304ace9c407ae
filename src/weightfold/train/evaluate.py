"""Top-1 accuracy."""

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from weightfold.core.charted import Charted
from weightfold.data import Batches, Dataset, ImageSet
from weightfold.train.feed import evaluation_batches


def accuracy(
    net: nn.Module,
    image_set: ImageSet,
    dataset: Dataset,
    forward: Callable[[Tensor], Tensor] | None = None,
) -> float:
    """Share of images whose highest logit is their label's, in eval mode; a tie goes to the first.

    Args:
        net: Maps float32 (B, C, H, W) to logits (B, classes); its mode is left as found.
        image_set: The images to count on.
        dataset: Whose mean and standard deviation normalise them.
        forward: What to call, if not `net` itself, such as one of its domains.
    """
    device = next((p.device for p in net.parameters()), torch.device("cpu"))
    batches = evaluation_batches(image_set, dataset, device)
    correct, seen = count_correct(net, batches, forward).tolist()
    return correct / seen


@torch.no_grad()
def count_correct(
    net: nn.Module,
    batches: Batches,
    forward: Callable[[Tensor], Tensor] | None = None,
    rank: int = 0,
    world: int = 1,
) -> Tensor:
    """Count the correct images, int64 (2,): correct and seen.

    A Charted net folds its weights once for all batches.

    Args:
        net: Put in eval mode meanwhile.
        batches: The images, all in `epoch(0)`.
        forward: What to call, if not `net` itself but a wrapper of it.
        rank: Of each batch, count every `world`-th image from this one.
        world: How many processes share the batches.
    """
    forward = net if forward is None else forward
    training = net.training
    net.eval()
    counts = []
    with net.hold() if isinstance(net, Charted) else nullcontext():
        for images, labels in batches.epoch(0):
            wanted = labels[rank::world]
            correct = (forward(images[rank::world]).argmax(dim=1) == wanted).sum()
            counts.append(torch.stack([correct, torch.full_like(correct, len(wanted))]))
    net.train(training)
    return torch.stack(counts).sum(dim=0)
