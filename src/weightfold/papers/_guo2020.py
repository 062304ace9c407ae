"""What the tables of the ExpandNets paper share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from weightfold.lab.claims import Check, above, all_of
from weightfold.lab.experiment import Column, Experiment, Line
from weightfold.lab.measures import BEST_ACCURACY, LAST_ACCURACY, PARAMETERS
from weightfold.lab.printed import Printed, read_paper
from weightfold.lab.training import Training
from weightfold.tasks.distillation import Distillation
from weightfold.train.recipe import RECIPES, Recipe

PAPER = (
    "Guo, Alvarez and Salzmann, ExpandNets: Linear Over-parameterization to Train Compact "
    "Convolutional Networks, NeurIPS 2020"
)

ACCURACIES = (BEST_ACCURACY, LAST_ACCURACY, PARAMETERS)
NUMBERS = read_paper(Path(__file__).with_name("guo2020.toml"))

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


def decayed(recipe: Recipe) -> Recipe:
    """With weight decay on the deployed weights."""
    return replace(recipe, weight_decay=5e-4, decay_on="theta")


_SIX = replace(RECIPES["expandnets-cifar"], epochs=6, milestones=(3, 5))
SHORT = {
    "": _SIX,
    "decay": decayed(_SIX),
    "teacher": replace(RECIPES["teacher-cifar-resnet18"], epochs=10, lr=0.05),
}
"""For tables of many lines at cpu, with `SHORT_OPTIONS`."""
SHORT_OPTIONS, SHORT_TEST, SHORT_TEACHER = "limit=7680", 5000, "resnet_narrow,depth=8,width=12"
SHORT_DIFFERS = (
    "6 epochs on 7,680 training images, 360 steps in all, with learning rate steps after 3 and 5 "
    "epochs, not 150 on all 50,000 with steps after 50 and 100; tested on 5,000 images. 3 seeds, "
    "not 5. So short a training is no reproduction of the paper's accuracies; it tells which "
    "lines are ahead at first."
)
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


def beside(
    table: str, row: str, cells: Mapping[str, str]
) -> tuple[dict[str, Printed], dict[str, dict[str, Printed]]]:
    """A row's numbers for `Line.published` and, of CIFAR-100, for `Line.elsewhere`.

    Args:
        table: In guo2020.toml.
        row: Of it.
        cells: Measure -> its cell, with {} for the data set.
    """
    found = NUMBERS.row(table, row)
    first, second = (
        {measure: found[cell.format(title)] for measure, cell in cells.items()}
        for title in ("CIFAR-10", "CIFAR-100")
    )
    return first, {"cifar100": second}


@dataclass(frozen=True)
class Size:
    """How a preset trains a table's networks.

    Attributes:
        recipes: Hyperparameters; "" are those of networks that name none.
        data: Data spec.
        options: More options of the data, "limit=5000".
        test_limit: As of `Training`.
        teacher: Network spec of all teachers, in place of each line's; "": theirs.
        models: Network spec -> what stands for it.
    """

    recipes: Mapping[str, Recipe]
    data: str = "cifar10"
    options: str = ""
    test_limit: int | None = None
    teacher: str = ""
    models: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Network:
    """A line: one network trained in one way, in the presets that have its recipe.

    Attributes:
        label: Of the line.
        model: Network spec.
        variant: As `weightfold.lab.variants` takes it.
        published: As in `Line`.
        elsewhere: As in `Line`.
        options: Of the data, "corrupt=0.8,seed=0".
        recipe: Which of the preset's recipes.
        teacher: Network spec of a teacher, trained compact with the preset's recipe "teacher".
        twin: Variant of the nonlinear twin from whose weights, trained with the same recipe, it
            starts.
        at: As in `Line`.
        series: As in `Line`.
    """

    label: str
    model: str
    variant: str
    published: Mapping[str, Printed] = field(default_factory=dict)
    elsewhere: Mapping[str, Mapping[str, Printed]] = field(default_factory=dict)
    options: str = ""
    recipe: str = ""
    teacher: str = ""
    twin: str = ""
    at: float | None = None
    series: tuple[str, ...] = ("",)

    def over(self, sizes: Mapping[str, Size]) -> Line:
        """The line, with its training of each preset."""
        needed = {self.recipe, *(["teacher"] if self.teacher else [])}
        runs = {
            preset: self._training(size)
            for preset, size in sizes.items()
            if needed <= size.recipes.keys()
        }
        return Line(
            self.label, runs, self.published, self.elsewhere, at=self.at, series=self.series
        )

    def _training(self, size: Size) -> Training:
        clean = ",".join(filter(None, (size.data, size.options)))
        plain = Training(
            size.models.get(self.model, self.model),
            self.variant,
            ",".join(filter(None, (clean, self.options))),
            size.recipes[self.recipe],
            test_limit=size.test_limit,
        )
        if self.twin:
            return replace(plain, twin=replace(plain, variant=self.twin))
        if not self.teacher:
            return plain
        teacher = replace(
            plain,
            model=size.teacher or self.teacher,
            variant="compact",
            data=clean,
            recipe=size.recipes["teacher"],
        )
        return replace(plain, distillation=Distillation(), teacher=teacher)


def better(*pairs: tuple[str, str]) -> Check:
    """In each pair of lines the first is more accurate, at its best epoch."""
    return all_of(*(above(a, b, "best_accuracy") for a, b in pairs))


def cifar_table(name: str, *, source: str, **more: Any) -> Experiment:
    """A table of accuracies on CIFAR-10 and CIFAR-100.

    Args:
        name: Of the experiment, behind "guo2020-".
        source: In the paper.
        **more: As for `Experiment`.
    """
    return Experiment(
        name=f"guo2020-{name}",
        paper=f"{PAPER}{source}",
        columns=(CIFAR10, CIFAR100),
        measures=ACCURACIES,
        **more,
    )


def lines_of(networks: Sequence[Network], sizes: Mapping[str, Size]) -> tuple[Line, ...]:
    """The lines of networks, each with a training of each preset that has its recipe."""
    return tuple(network.over(sizes) for network in networks)
