"""Writes four small sets of the data folder in the Visual Decathlon's layout, for `experiment run`.

WEIGHTFOLD_DATA=/path/of/data python benchmarks/decathlon.py

Below the data folder: decathlon-1.0/DOMAIN/{train,test}/CLASS/NUMBER.png, 800 training and 300 test
images of each, of gtsrb.npz and omniglot.npz (50 characters, all their 750 and 250 drawings), which
are of the Decathlon, and of CIFAR-10 and usps.npz, which stand for its CIFAR-100 and SVHN. They are
drawn from a fixed seed, equally many of each class.
"""

import os
from collections import Counter
from pathlib import Path

import torch
from torchvision.io import write_png

from weightfold.data import Dataset, load

TRAIN, TEST = 800, 300
SETS = {"gtsrb": "{}/gtsrb.npz", "omniglot": "{}/omniglot.npz", "cifar10": "cifar10",
        "usps": "{}/usps.npz"}  # fmt: skip
CLASSES = {"omniglot": 50}


def write(dataset: Dataset, classes: int, folder: Path) -> None:
    """Write images of the first classes in a random order, of every class in turn."""
    for name, count in (("train", TRAIN), ("test", TEST)):
        part = dataset.parts[name]
        order = torch.randperm(len(part), generator=torch.Generator().manual_seed(0))
        seen = Counter[int]()
        drawn = []
        for index in order.tolist():
            label = int(part.targets[index])
            drawn.append((seen[label], index, label))
            seen[label] += 1
        kept = sorted(one for one in drawn if one[2] < classes)[:count]
        for label in range(classes):
            (folder / name / f"{label + 1:04d}").mkdir(parents=True)
        for number, (_, index, label) in enumerate(kept):
            home = folder / name / f"{label + 1:04d}"
            image = part.inputs[index]
            write_png(image.expand(3, *image.shape[1:]).contiguous(), f"{home}/{number:06d}.png")


def main() -> None:
    """Write every set."""
    root = Path(os.environ["WEIGHTFOLD_DATA"]).expanduser()
    for name, spec in SETS.items():
        dataset = load(spec.format(root), root)
        classes = CLASSES.get(name, dataset.num_classes)
        write(dataset, classes, root / "decathlon-1.0" / name)


if __name__ == "__main__":
    main()
