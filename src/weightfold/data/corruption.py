"""Random labels, to see what a network does with noise it can only learn by heart."""

import numpy as np
import torch
from torch import Tensor


def corrupt_labels(
    labels: Tensor, fraction: float, num_classes: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Replace a share of the labels by random ones.

    The convention of Zhang, Bengio, Hardt, Recht, Vinyals, "Understanding deep learning requires
    rethinking generalization" (2017), in their released code: each label is drawn anew with
    probability `fraction`, independently of the others, and uniformly from *all* classes, its own
    included. So of 10 balanced classes about 0.9 * fraction of the labels end up wrong. seed=12345
    gives, for CIFAR-10 in its official order, the labels of that code.

    Args:
        labels: int64 (N,); left as it is.
        fraction: Probability from 0 to 1 that a label is drawn anew.
        num_classes: Classes to draw from.
        seed: From 0 to 2**32 - 1; the same seed gives the same labels.

    Returns:
        The new labels, int64 (N,), and where they differ from the old ones, bool (N,).

    Raises:
        ValueError: `fraction`, `num_classes` or `seed` is out of range.
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"corrupt fraction={fraction} is not a probability; give 0 to 1")
    if not 0 <= seed < 2**32:
        raise ValueError(f"corrupt seed={seed}; give 0 to 2**32 - 1")
    if num_classes <= int(labels.max()):
        raise ValueError(f"num_classes={num_classes}, but labels run to {int(labels.max())}")
    # NumPy froze this generator's stream, and the released code draws from it in this order.
    random = np.random.RandomState(seed)
    drawn = torch.from_numpy(random.rand(len(labels)) < fraction)
    fresh = torch.from_numpy(random.choice(num_classes, int(drawn.sum())).astype(np.int64))
    corrupted = labels.cpu().clone()
    corrupted[drawn] = fresh
    corrupted = corrupted.to(labels.device)
    return corrupted, corrupted != labels
