"""Fits 50,000 CIFAR-10 images by `wf.memorizer`: wrong labels, residual, weights, seconds.

WEIGHTFOLD_DATA=/path/of/data python benchmarks/memorizer.py [images]
"""

import sys
import time

import torch

import weightfold as wf
from weightfold.data import load


def main() -> None:
    """Fit true and random labels, and print."""
    train = load("cifar10").train
    count = int(sys.argv[1]) if len(sys.argv) > 1 else len(train)
    x, true = train.inputs[:count], train.targets[:count]
    noise = torch.randint(10, true.shape, generator=torch.Generator().manual_seed(0))
    for name, y in (("true", true), ("random", noise)):
        start = time.perf_counter()
        net = wf.memorizer(x, y)
        weights = sum(p.numel() for p in net.parameters())
        print(
            f"{name} labels: n = {count:,}, {net.wrong} wrong, residual {net.residual:.1e}, "
            f"{weights:,} weights (2n + d = {2 * count + x[0].numel():,}), "
            f"{time.perf_counter() - start:.1f} s"
        )


if __name__ == "__main__":
    main()
