"""Several seeds in one vmapped batch (fit_seeds) against one after another (fit).

    python benchmarks/seeds.py [--threads 1]

Prints milliseconds per step and seed of both, the best of three runs that alternate, and their
ratio: above 1, fit_seeds is faster.
"""

import argparse
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torch import nn

import weightfold as wf
from weightfold.data import Dataset, load
from weightfold.nets import build
from weightfold.train import RECIPES, fit, fit_seeds


def network(name: str, rate: float, channels: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    net = build(name, num_classes=10, in_channels=channels)
    return wf.expand(net, rate=rate, seed=seed) if rate else net


def seconds(
    name: str, rate: float, dataset: Dataset, batch: int, count: int
) -> tuple[float, float]:
    """Median seconds per step and seed: one after another, and together."""
    recipe = replace(RECIPES["digits"], epochs=2, batch_size=batch)
    make = partial(network, name, rate, dataset.train.inputs.shape[1])
    options = {"device": "cpu", "progress": False}
    with tempfile.TemporaryDirectory() as folder:
        together = fit_seeds(
            make, dataset, recipe, range(count), folder=Path(folder, "all"), **options
        )
        alone = [
            fit(make(seed), dataset, recipe, folder=Path(folder, str(seed)), seed=seed, **options)
            for seed in range(count)
        ]
    return median(h.seconds_per_step for h in alone), together[0].seconds_per_step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    torch.set_num_threads(parser.parse_args().threads)
    dataset = load("digits")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, digits (8 x 8)")
    print("network    rate  batch  seeds    alone, ms  together, ms  ratio")
    for rate in (0, 4):
        for batch in (32, 64, 128):
            for count in (3, 5, 10):
                runs = [seconds("digitnet", rate, dataset, batch, count) for _ in range(3)]
                one, many = (min(times) for times in zip(*runs, strict=True))
                print(
                    f"digitnet  {rate or '-':>5}  {batch:>5}  {count:>5}  {1e3 * one:>11.2f}  "
                    f"{1e3 * many:>12.2f}  {one / many:>5.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
