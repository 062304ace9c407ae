"""Networks stepped as one vmapped batch against one after another: where `fit_together` groups.

    python benchmarks/together.py [threads]

Prints, per network and number of runs, steps of all runs one after another over one step of them
together: above 1, a batch pays.
"""

import sys
from collections.abc import Callable
from copy import deepcopy
from functools import partial

import torch

from weightfold.data import as_dataset
from weightfold.nets import build
from weightfold.tasks import as_task
from weightfold.timing import alternate
from weightfold.train import Recipe
from weightfold.train.strategies.fabric import Fabric, Single
from weightfold.train.strategies.stack import Stack

NETWORKS = {
    "mlp,depth=1,width=20": 128,
    "mlp,depth=2,width=50": 128,
    "lenet_300_100": 60,
    "mlp": 128,
    "lenet": 128,
}
"""Network on 28 x 28 images -> batch size."""
RUNS = (2, 4, 8, 16)
RECIPE = Recipe(lr=0.1, crop_padding=0, flip=False)


def steps(singles: list[Single], x: torch.Tensor, y: torch.Tensor) -> None:
    """One step of every run; `x` and `y` are of all runs."""
    for single, images, labels in zip(singles, x, y, strict=True):
        single.step((images, labels), RECIPE.lr)


def main() -> None:
    """Time and print."""
    fabric = Fabric(accelerator="cpu", devices=1)
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else torch.get_num_threads())
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    for model, batch in NETWORKS.items():
        ratios = []
        for runs in RUNS:
            nets = [build(model, num_classes=10, in_channels=1) for _ in range(runs)]
            x, y = torch.randn(runs, batch, 1, 28, 28), torch.randint(10, (runs, batch))
            task = as_task(as_dataset(((x[0], y[0]), (x[0], y[0]))))
            ways: dict[str, Callable[[], None]] = {
                "alone": partial(
                    steps, [Single(fabric, deepcopy(net), task, RECIPE, 0) for net in nets], x, y
                ),
                "together": partial(Stack(nets, task, RECIPE).step, x, y, RECIPE.lr),
            }
            times = alternate(ways, warmup=3, repeats=10)
            ratios.append(f"{runs}: {times['alone'].median_ms / times['together'].median_ms:.2f}")
        size = sum(p.numel() for p in nets[0].parameters())
        print(f"{model:22} {size:>8,} weights, batch {batch}: {', '.join(ratios)}")


if __name__ == "__main__":
    main()
