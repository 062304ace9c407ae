"""What the tables of the ExpandNets paper share."""

from collections.abc import Iterable
from dataclasses import replace

from weightfold.lab.declare import Column, Number
from weightfold.train.recipe import RECIPES, Recipe

PAPER = (
    "Guo, Alvarez and Salzmann, ExpandNets: Linear Over-parameterization to Train Compact "
    "Convolutional Networks, NeurIPS 2020"
)

CIFAR10 = Column("cifar10", "CIFAR-10", 10, (3, 32, 32))
CIFAR100 = Column(
    "cifar100",
    "CIFAR-100",
    100,
    (3, 32, 32),
    "no data here; put cifar-100-binary below the data folder and run with data='cifar100'.",
)

SMOKE_DATA = "digits,rgb=true,size=32,limit=256"
SMOKE = Recipe(
    epochs=2,
    schedule="constant",
    crop_padding=0,
    flip=False,
    reset_momentum_each_epoch=True,
)
SMOKE_DIFFERS = (
    "Everything: two epochs on 256 of scikit-learn's digits, scaled to 32 x 32. This preset only "
    "shows that the experiment runs."
)

CPU = {"": RECIPES["expandnets-cifar-12"]}
FULL = {"": RECIPES["expandnets-cifar"]}
CPU_DIFFERS = (
    "12 epochs with learning rate steps after 6 and 9, not 150 with steps after 50 and 100."
)
SAME = (
    "Recipe, augmentation and momentum that restarts each epoch are those of the authors' code. "
    "The seeds are ours, the code sets none. The paper reports the best test epoch, so the first "
    "column does too, which is optimistic; the last epoch is beside it. The paper's spread is a "
    "population standard deviation over 5 runs, ours a sample standard deviation."
)
KD_NOTE = (
    "Distillation: the paper trains with a ResNet-18 teacher and does not print temperature, "
    "weight or the teacher's training; ours are temperature 4, weight 0.9 and 200 epochs with a "
    "cosine schedule."
)


def quick(recipe: Recipe) -> Recipe:
    """A recipe for one epoch without schedule."""
    return replace(recipe, epochs=1, schedule="constant", milestones=(), crop_padding=0, flip=False)


def printed(
    cifar10: Number | float, cifar100: Number | float, measure: str = "best_accuracy"
) -> dict[str, dict[str, Number]]:
    """The paper's numbers of one measure, with spread if printed."""
    numbers = {"cifar10": cifar10, "cifar100": cifar100}
    return {
        column: {measure: (number if isinstance(number, tuple) else (number, None))}
        for column, number in numbers.items()
    }


def labels_of(labels: Iterable[str], *, but: str) -> tuple[str, ...]:
    """The labels without those that contain `but`."""
    return tuple(label for label in labels if but not in label)
