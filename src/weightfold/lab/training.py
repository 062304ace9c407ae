"""A training as a run: one network, one data set, one seed. Imports no torch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weightfold.lab.run import UNHASHED_DEFAULT, Run, by_epoch
from weightfold.tasks.distillation import Distillation
from weightfold.train.progress import ProgressCallback
from weightfold.train.recipe import Recipe

if TYPE_CHECKING:
    from torch import nn

    from weightfold.data import Dataset
    from weightfold.tasks.task import Task
    from weightfold.train import History


@dataclass(frozen=True)
class Given:
    """A network or a data set that no spec names, known by its contents.

    Attributes:
        name: For people.
        digest: Of its contents; two of one digest are one.
        value: A function that makes the network of a seed, or the data set.
    """

    name: str
    digest: str
    value: Any = field(compare=False, repr=False)

    def __str__(self) -> str:
        return self.name


def given_net(make: "Callable[[int], nn.Module]") -> Given:
    """A network by the function that makes it of a seed."""
    from weightfold.probes.models import net_of
    from weightfold.train.record import digest, structure

    net = net_of(make, 0)
    return Given(type(net).__name__, f"{structure(net)}-{digest(net)[:16]}", make)


def given_data(data: "Task | Dataset") -> Given:
    """A task, or a data set, by its contents."""
    from weightfold.data.contents import digest_of
    from weightfold.data.pairs import as_dataset
    from weightfold.tasks.task import Task

    if isinstance(data, Task):
        return Given(data.dataset.name, digest_of(data.identity()), data)
    return Given(data.name, as_dataset(data).digest, data)


@dataclass(frozen=True)
class Training(Run):
    """What is trained, on what, how, and from which seed.

    Attributes:
        model: Network spec, as `weightfold.nets.build` takes it; or one given.
        variant: How it is trained: "compact", "acnet", or an expansion, see
            `weightfold.lab.variants`.
        data: Data spec, as `weightfold.data.load` takes it; or one given.
        recipe: Hyperparameters.
        seed: Of initial weights, data order, augmentation and dropout.
        distillation: Temperature and weight, with `teacher`.
        teacher: Training whose last weights teach.
        task: What is learnt, as `weightfold.tasks.build` takes it.
        twin: Training of its nonlinear twin, from whose last weights it starts.
        test_limit: Test examples kept, the first of a random order; None: all.
    """

    model: str | Given
    variant: str
    data: str | Given
    recipe: Recipe
    seed: int = 0
    distillation: Distillation | None = None
    teacher: "Training | None" = None
    task: str = field(default="classify", metadata=UNHASHED_DEFAULT)
    twin: "Training | None" = field(default=None, metadata=UNHASHED_DEFAULT)
    test_limit: int | None = field(default=None, metadata=UNHASHED_DEFAULT)

    @property
    def title(self) -> str:
        """What is being trained, in a few words."""
        return f"{self.model} {self.variant} seed {self.seed}"

    @property
    def parts(self) -> tuple[str, ...]:
        """Network, variant, data and seed."""
        return (str(self.model), self.variant, str(self.data), f"seed{self.seed}")

    @property
    def before(self) -> "Training | None":
        """The training that must be finished first."""
        return self.teacher or self.twin

    def over(self, seeds: Sequence[int]) -> "tuple[Training, ...]":
        """This training with each of the seeds, from a twin of the same seed; one teacher."""
        return tuple(
            replace(self, seed=seed, twin=self.twin and replace(self.twin, seed=seed))
            for seed in seeds
        )

    def on(self, there: str, here: str) -> "Training":
        """The same on other data, its teacher's and its twin's too."""
        if not isinstance(self.data, str) or not self.data.startswith(there):
            raise ValueError(f"data={here!r}: {self.title} is on {self.data}; leave data out")
        return replace(
            self,
            data=here + self.data[len(there) :],
            teacher=self.teacher and self.teacher.on(there, here),
            twin=self.twin and self.twin.on(there, here),
        )

    def finished(self, root: Path) -> "History | None":
        """The record of its run below `root`; None if it has not come to its end."""
        from weightfold.train import checkpoint

        return checkpoint.finished(root / self.folder)

    def train(
        self, root: Path, *, data_root: Path | None = None, progress: bool | ProgressCallback = True
    ) -> "History":
        """Train it in its folder below `root`, or go on where it stopped; a no-op once finished."""
        from weightfold.train import Options, Start, fit
        from weightfold.train.starts import begin

        task = task_of(self, data_root)

        def trained(other: Training) -> "nn.Module":
            return begin(net_of(other, task), Start(root / other.folder))

        if self.teacher is not None:
            taught: dict[str, Any] = {
                "teacher": trained(self.teacher),
                "distillation": self.distillation,
            }
            task = replace(task, **taught)
        start = Start(trained(self.twin), through="twin") if self.twin else None
        about = {"model": str(self.model), "variant": self.variant, "data": str(self.data)}
        return fit(
            net_of(self, task),
            task,
            self.recipe,
            folder=root / self.folder,
            seed=self.seed,
            progress=by_epoch(progress, self.recipe.epochs, task.measure),
            options=Options(about=about, start=start),
        )

    def to_json(self, record: "History") -> Any:
        """The history as `History.as_json` gives it."""
        return record.as_json()

    def from_json(self, written: Any) -> "History":
        """The history again."""
        from weightfold.train import History

        return History.from_json(written)


def task_of(training: Training, root: Path | None = None, **options: Any) -> "Task":
    """What a training learns, on its data.

    Args:
        training: Which.
        root: Data folder; None: $WEIGHTFOLD_DATA.
        **options: Of the task, beside those it was given with.
    """
    from weightfold.data import load
    from weightfold.data.pairs import as_dataset
    from weightfold.tasks.registry import build
    from weightfold.tasks.task import Task

    data = training.data
    given = data.value if isinstance(data, Given) else load(data, root)
    dataset = given.dataset if isinstance(given, Task) else as_dataset(given)
    if training.test_limit is not None:
        dataset = dataset.limited(test=training.test_limit)
    if isinstance(given, Task):
        return replace(given, dataset=dataset, **options)
    return build(training.task, dataset, **options)


def net_of(training: Training, task: "Task") -> "nn.Module":
    """The network of a training with its seeded initial weights."""
    from weightfold.lab.variants import net_for

    model = training.model
    made = model.value if isinstance(model, Given) else model
    return net_for(task, made, training.variant, seed=training.seed)
