"""What the tables and figures of the sharing paper have in common."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weightfold.lab.domains import Domain, DomainsTraining, plan_of
from weightfold.lab.experiment import Column, Experiment, Figure, Line, Preset, Quantity
from weightfold.lab.figures import domain_curves, scatter
from weightfold.lab.measures import domain_measures
from weightfold.lab.printed import Printed, mean_of, read_paper
from weightfold.lab.results import Results
from weightfold.train.domains.joint import Joint
from weightfold.train.recipe import Recipe

if TYPE_CHECKING:
    from weightfold.methods.share.account import Account

PAPER = (
    "Zhang, Yang, Liu and Guan, Rethinking Hard-Parameter Sharing in Multi-Domain Learning, "
    "arXiv:2107.11359"
)
NUMBERS = read_paper(Path(__file__).with_name("zhang2021.toml"))

FGC = ("aircraft", "birds", "cars", "dogs", "indoor")
FGC_CLASSES = (100, 200, 196, 120, 67)

PAPER_MODELS = {
    "MobileNetV2": "mobilenet_v2",
    "ResNet50": "resnet50",
    "MNasNet": "mnasnet1_0",
    "SqueezeNet": "squeezenet1_0",
    "SqueezeNet, batch norm": "squeezenet1_0_bn",
}
PAPER_STARTS: Mapping[str, DomainsTraining | str | None] = {
    name: f"weights/{model.removesuffix('_bn')}.safetensors" for name, model in PAPER_MODELS.items()
}
PAPER_RECIPE = Recipe(
    epochs=100,
    batch_size=32,
    optimizer="adamw",
    lr=1e-3,
    weight_decay=1e-4,
    schedule="step",
    milestones=(25, 50, 75),
    gamma=0.3,
    crop_padding=16,
)
PAPER_DIFFERS = (
    "The paper's optimizer, learning rate, schedule, batch, input size, augmentation and number of "
    "epochs are not known; ours follow what its authors do elsewhere: 32 images of each domain in "
    "every step, epochs as long as the smallest domain's, the unweighted sum of the losses, Adam "
    "at 1e-3 with steps of 0.3 (AdamW here), random crop and mirroring at 224 pixels. Classifiers "
    "are pretrained with the backbone frozen. Data: folders aircraft, birds, cars, dogs and indoor "
    "below the data folder, each with train/CLASS/IMAGE and test/CLASS/IMAGE, and the ImageNet "
    "weights as weights/<network>.safetensors; accuracy is on the test images, as the paper's grid "
    "of accuracies suggests for at least two of its sets. Which Birds set it used is not known. "
    "The number of own filters is the one that reproduces the paper's parameter column."
)


@dataclass(frozen=True)
class Size:
    """How a preset trains.

    Attributes:
        preset: How many seeds, and what differs from the paper.
        models: Backbone -> network spec.
        starts: Backbone -> what its networks start from.
        recipes: Backbone -> hyperparameters; "" are those of backbones without an entry.
        domains: In the order in which lines take the first ones.
        sizes: Backbone -> height and width of the images; "" as in `recipes`.
        joint: How the domains are trained together.
        test_limit: As for `DomainsTraining`.
    """

    preset: Preset
    models: Mapping[str, str]
    starts: Mapping[str, DomainsTraining | str | None]
    recipes: Mapping[str, Recipe]
    domains: tuple[Domain, ...]
    sizes: Mapping[str, int]
    joint: Joint = field(default_factory=Joint)
    test_limit: int | None = None


@dataclass(frozen=True)
class Shared:
    """A line: one plan for one backbone.

    Attributes:
        label: Of the line.
        backbone: Key of a size's `models`.
        plan: As `DomainsTraining` takes it.
        published: Of the line.
        domains: How many of the size's domains, the first ones; None: all.
        paper_plan: `plan` in the preset paper, where it differs.
        at: As in `Line`.
        series: As in `Line`.
    """

    label: str
    backbone: str
    plan: str
    published: Mapping[str, Printed] = field(default_factory=dict)
    domains: int | None = None
    paper_plan: str = ""
    at: float | None = None
    series: tuple[str, ...] = ("",)

    def over(self, sizes: Mapping[str, Size]) -> Line:
        """The line, with its training of each preset."""
        runs = {preset: self._training(size, preset) for preset, size in sizes.items()}
        return Line(self.label, runs, self.published, at=self.at, series=self.series)

    def _training(self, size: Size, preset: str) -> DomainsTraining:
        return DomainsTraining(
            model=size.models[self.backbone],
            plan=self.paper_plan if preset == "paper" and self.paper_plan else self.plan,
            domains=size.domains[: self.domains],
            recipe=size.recipes.get(self.backbone, size.recipes[""]),
            seed=0,
            size=size.sizes.get(self.backbone, size.sizes[""]),
            joint=size.joint,
            start=size.starts.get(self.backbone),
            test_limit=size.test_limit,
        )


def published_of(row: Mapping[str, Printed]) -> dict[str, Printed]:
    """Printed accuracies in percent by measure, with their mean; parameters as they are."""
    shares = {d: number.times(100) for d, number in row.items() if d != "parameters"}
    found = {f"accuracy/{domain}": number for domain, number in shares.items()}
    found["accuracy"] = mean_of(list(shares.values()))
    return found | ({"parameters": row["parameters"]} if "parameters" in row else {})


def sharing_experiment(
    plans: Sequence[Shared], sizes: Mapping[str, Size], *, curves: bool = False, **more: Any
) -> Experiment:
    """An experiment on several domains: their accuracies, and what each line stores.

    Args:
        plans: From top to bottom.
        sizes: Of each preset.
        curves: Draw accuracy by epoch, bottom against top.
        **more: As for `Experiment`.
    """
    domains = chain(*(sizes[preset].domains for preset in ("cpu", "paper", "smoke")))
    names = list(dict.fromkeys(domain.name for domain in domains))
    backbones = {plan.label: plan.backbone for plan in plans}
    figures = []
    if curves:
        figures.append(Figure("curves", "Accuracy while training", _curves(plans), _CURVES))
    if all(plan.domains is None for plan in plans):
        figures.append(Figure("front", "Storage and accuracy", _front(backbones), _COSTS))
    return Experiment(
        measures=(*domain_measures(names), *COSTS),
        lines=tuple(plan.over(sizes) for plan in plans),
        presets={name: size.preset for name, size in sizes.items()},
        figures=tuple(figures),
        **more,
    )


_CURVES = (
    "Means over seeds. In the first epochs of the presets cpu and paper only the classifiers are "
    "trained, on the frozen backbone."
)
_COSTS = (
    "Counted before training. Own weights and own compute: a domain's share of the convolutions' "
    "parameters and multiply-adds. Parameters: of all domains together, shared ones once; MB: of "
    "all tensors, buffers included."
)


def _curves(plans: Sequence[Shared]) -> Any:
    panels: dict[str, list[str]] = {}
    for plan in plans:
        if plan.plan.startswith(("bottom", "top")):
            panels.setdefault(plan.backbone, []).append(plan.label)
    return lambda results, path: domain_curves(results, path, panels)


def _front(backbones: Mapping[str, str]) -> Any:
    def draw(results: Results, path: Path) -> bool:
        return scatter(results, path, "stored", "accuracy", backbones.__getitem__)

    return draw


@cache
def _account(run: DomainsTraining) -> "Account":
    """What a run stores, with its domains' own numbers of classes."""
    return plan_of(run.model, run.plan, run.size, run.seed).account(run.classes)


def _own_weights(run: DomainsTraining, column: Column) -> float:
    return 100 * plan_of(run.model, run.plan, run.size, run.seed).weights_share


def _own_compute(run: DomainsTraining, column: Column) -> float:
    return 100 * plan_of(run.model, run.plan, run.size, run.seed).macs_share


def _one_domain(run: DomainsTraining, column: Column) -> float:
    return next(iter(_account(run).domains.values())).bytes / 1e6


_STORAGE = "Storage and compute"
COSTS = (
    Quantity("own_weights", "own weights (%)", counted=_own_weights, digits=1, section=_STORAGE),
    Quantity("own_compute", "own compute (%)", counted=_own_compute, digits=1, section=_STORAGE),
    Quantity(
        "parameters",
        "parameters (M)",
        counted=lambda run, column: _account(run).total.parameters / 1e6,
        section=_STORAGE,
    ),
    Quantity(
        "shared",
        "shared (MB)",
        counted=lambda run, column: _account(run).shared.bytes / 1e6,
        section=_STORAGE,
    ),
    Quantity("domain", "first domain (MB)", counted=_one_domain, section=_STORAGE),
    Quantity(
        "stored",
        "all (MB)",
        counted=lambda run, column: _account(run).total.bytes / 1e6,
        section=_STORAGE,
    ),
)


def fgc(seeds: int = 1) -> Size:
    """The paper's own setting, as far as it is known."""
    return Size(
        preset=Preset(seeds, PAPER_DIFFERS, needs=_NEEDS),
        models=PAPER_MODELS,
        starts=PAPER_STARTS,
        recipes={"": PAPER_RECIPE},
        domains=tuple(Domain(n, f"{n},size=224", c) for n, c in zip(FGC, FGC_CLASSES, strict=True)),
        sizes={"": 224},
        joint=Joint(epoch="min", head_epochs=5),
    )


_NEEDS = "the domains' images as folders and ImageNet weights in the data folder"
