"""A study of domains in one backbone: what is asked for, and what it came to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from weightfold.lab.measures import domain_accuracies
from weightfold.methods.share.plan import Plan
from weightfold.train import History
from weightfold.train.domains.joint import Joint
from weightfold.train.domains.sharing import Sharing
from weightfold.train.recipe import Recipe

INDEPENDENT = "independent"
"""Strategy of one network per domain."""


@dataclass(frozen=True)
class Study:
    """How domains share a backbone and are trained.

    Attributes:
        model: Network spec.
        recipe: Hyperparameters.
        strategies: Which filters the domains own: those nearest the image ("bottom"), those
            nearest the classifier ("top"), or random ones, drawn anew for each seed. "independent":
            one whole network per domain, trained for as many steps.
        sharing: How much they own.
        plan: In place of a strategy and of `sharing`.
        weights: Safetensors file of a plain network's state_dict to start from.
        seeds: Each of initial weights, data order, augmentation, sampler and validation split; the
            nets of the first are kept.
        validation: Training images, or share of them, of each domain held out.
        unflipped: Domains whose images are not mirrored although the recipe does it.
        joint: How the domains are trained together.
        device: To train on.
        devices: Processes that share every batch.
        precision: Of the forward pass.
        tensorboard: Also log in TensorBoard's format.
    """

    model: str
    recipe: Recipe
    strategies: tuple[str, ...] = ("bottom",)
    sharing: Sharing = field(default_factory=Sharing)
    plan: Plan | None = None
    weights: Path | str | None = None
    seeds: Sequence[int] = (0,)
    validation: int | float = 0
    unflipped: tuple[str, ...] = ()
    joint: Joint = field(default_factory=Joint)
    device: str = "auto"
    devices: int = 1
    precision: Any = "32-true"
    tensorboard: bool = False

    def check(self) -> None:
        """Refuse options that contradict each other.

        Raises:
            ValueError: As said.
        """
        if not self.seeds:
            raise ValueError("seeds=0; give at least 1")
        if not self.strategies or len(set(self.strategies)) < len(self.strategies):
            raise ValueError(f"strategies={self.strategies}; name at least one, each once")
        if self.plan is not None and (self.sharing, self.strategies) != (Sharing(), ("bottom",)):
            raise ValueError("a plan says what the domains own; leave the options of planning out")
        sized = [strategy for strategy in self.strategies if strategy != INDEPENDENT]
        if self.sharing.num_filters is not None and len(sized) > 1:
            raise ValueError(
                f"num_filters={self.sharing.num_filters} is of another size in each of "
                f"{', '.join(sized)}; compare them by fraction"
            )


@dataclass(frozen=True)
class StudyRecord:
    """All domains trained one way, with one seed.

    Attributes:
        histories: Domain -> the run it was trained in; the same run for all, if together.
        parameters: Of all domains, each with its classifier.
        bytes: The same, every buffer included.
        shared_bytes: Of those, what exists once for all domains.
        weights_share: A domain's own share of the convolutions' weights, 0 to 1.
        macs_share: Of their multiply-adds.
    """

    histories: Mapping[str, History]
    parameters: int
    bytes: int
    shared_bytes: int
    weights_share: float
    macs_share: float

    @property
    def accuracies(self) -> dict[str, float]:
        """Domain -> test accuracy after the last epoch, in percent."""
        return {name: domain_accuracies(run)[name] for name, run in self.histories.items()}

    @property
    def seconds(self) -> float:
        """Wall time of all its runs."""
        return sum(run.seconds for run in {id(r): r for r in self.histories.values()}.values())
