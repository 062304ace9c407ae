"""What the tables and figures of the sharing paper have in common."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weightfold.lab.domains import Domain, DomainsTraining, plan_of
from weightfold.lab.experiment import Column, Experiment, Figure, Line, Measure, Preset
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
    Measure("own_weights", "own weights (%)", counted=_own_weights, digits=1, section=_STORAGE),
    Measure("own_compute", "own compute (%)", counted=_own_compute, digits=1, section=_STORAGE),
    Measure(
        "parameters",
        "parameters (M)",
        counted=lambda run, column: _account(run).total.parameters / 1e6,
        section=_STORAGE,
    ),
    Measure(
        "shared",
        "shared (MB)",
        counted=lambda run, column: _account(run).shared.bytes / 1e6,
        section=_STORAGE,
    ),
    Measure("domain", "first domain (MB)", counted=_one_domain, section=_STORAGE),
    Measure(
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

CPU_DOMAINS = (
    Domain("cifar10", "cifar10,limit=800", 10),
    Domain("gtsrb", "gtsrb.npz,limit=800", 43),
    Domain("fashion", "fashion_mnist,limit=800", 10),
    Domain("kmnist", "kmnist10k.npz,limit=800", 10),
    Domain("usps", "usps.npz,limit=800", 10),
)
CPU_MODELS = {
    "MobileNetV2": "mobilenet_v2,small_image=true",
    "ResNet50": "resnet50_narrow,divisor=4",
    "MNasNet": "mnasnet_narrow,alpha=0.25",
    "SqueezeNet": "squeezenet1_0",
    "SqueezeNet, batch norm": "squeezenet1_0_bn",
}
CPU_SIZES = {"": 32, "MobileNetV2": 16, "SqueezeNet": 64, "SqueezeNet, batch norm": 64}
_CPU = Recipe(
    epochs=8,
    batch_size=16,
    optimizer="adamw",
    lr=2e-3,
    weight_decay=1e-4,
    schedule="cosine",
    crop_padding=2,
    flip=False,
)
CPU_RECIPES = {
    "": _CPU,
    "MobileNetV2": replace(_CPU, epochs=3, lr=1e-3, crop_padding=1),
    "SqueezeNet": replace(_CPU, epochs=4, lr=3e-4, warmup_epochs=1, clip_norm=1.0),
    "SqueezeNet, batch norm": replace(_CPU, epochs=4, lr=1e-3, warmup_epochs=1, clip_norm=1.0),
}


def _pretraining(backbone: str) -> DomainsTraining:
    return DomainsTraining(
        model=CPU_MODELS[backbone],
        plan="independent",
        domains=(Domain("tiny_imagenet", "tiny_imagenet.npz,limit=20000", 200),),
        recipe=replace(_CPU, epochs=2, batch_size=64, lr=3e-3, flip=True),
        seed=0,
        size=CPU_SIZES[""],
        test_limit=1000,
    )


CPU_STARTS: dict[str, DomainsTraining | str | None] = {
    "MobileNetV2": "weights/mobilenet_v2.safetensors",
    "ResNet50": _pretraining("ResNet50"),
    "MNasNet": _pretraining("MNasNet"),
    "SqueezeNet": "weights/squeezenet1_0.safetensors",
    "SqueezeNet, batch norm": "weights/squeezenet1_0.safetensors",
}
CPU_DIFFERS = (
    "Other domains: CIFAR-10, GTSRB, Fashion-MNIST, KMNIST (its test half, split again) and USPS, "
    "800 training and 300 test images of each, so the accuracies are not comparable with the "
    "paper's; orderings and gaps are.\n\n"
    "MobileNetV2 is the paper's, at full width and from ImageNet weights, but sees 16 pixels and "
    "does not halve in its stem and first stage (2 x 2 at the end). The weights at hand have batch "
    "norm folded in; it is unfolded on 100 images of each domain, which leaves the function as it "
    "is. SqueezeNet 1.0 is from ImageNet weights too (pruned ones, a third of them non-zero), at "
    "64 pixels: at 32 its last map is 1 x 1 and its logits, which pass a ReLU, die. ResNet-50 with "
    "a quarter of the channels and MNASNet x0.25, at 32 pixels, start from two epochs on 20,000 "
    "images of a 200-class ImageNet of that size.\n\n"
    "25 steps of the classifiers alone (the backbone frozen), then joint steps of 16 images of "
    "each domain, 75 for MobileNetV2, 100 for SqueezeNet and 200 for the others, AdamW, cosine "
    "schedule: a short training. 20% is at most 20%; the paper's filters are 20 to 22%. Seeds draw "
    "the classifiers, the data order and the random plan; the paper's random rows are the mean of "
    "two networks."
)


def cpu(
    seeds: int, *, domains: tuple[Domain, ...] = CPU_DOMAINS, labels: tuple[str, ...] | None = None
) -> Size:
    """Real small-image domains, two backbones of the paper and two narrow ones."""
    return Size(
        preset=Preset(seeds, CPU_DIFFERS, lines=labels, comparable=False),
        models=CPU_MODELS,
        starts=CPU_STARTS,
        recipes=CPU_RECIPES,
        domains=domains,
        sizes=CPU_SIZES,
        joint=Joint(epoch=25, head_epochs=1),
        test_limit=300,
    )


def small_decathlon(seeds: int, *, labels: tuple[str, ...] | None = None) -> Size:
    """Four small sets in the Decathlon's layout, as benchmarks/decathlon.py writes them."""
    sets = (("gtsrb", 43), ("cifar10", 10), ("omniglot", 50), ("usps", 10))
    return replace(
        cpu(seeds, domains=tuple(Domain(n, f"decathlon-1.0/{n}", c) for n, c in sets)),
        preset=Preset(
            seeds, DECATHLON_DIFFERS, lines=labels, comparable=False, needs=_DECATHLON_NEEDS
        ),
        test_limit=None,
    )


_DECATHLON_NEEDS = "the four sets as benchmarks/decathlon.py writes them, and ImageNet weights"
DECATHLON_DIFFERS = (
    "Other domains, in the Visual Decathlon's layout of folders: GTSRB and 50 characters of "
    "Omniglot, which are of the Decathlon, and CIFAR-10 and USPS, which stand for its CIFAR-100 "
    "and SVHN; at most 800 training and 300 test images of each, as many of each class. "
    "Accuracies are not comparable with the paper's; orderings and gaps are.\n\n"
    "MobileNetV2 at full width and from ImageNet weights, at 16 pixels and without halving in its "
    "stem and first stage. The weights at hand have batch norm folded in; it is unfolded on 100 "
    "images of each domain. 25 steps of the classifiers alone (the backbone frozen), then 75 joint "
    "steps of 16 images of each domain, AdamW, cosine schedule: a short training."
)


def norms(seeds: int) -> Size:
    """SqueezeNet with and without batch norm, on three of the domains of `cpu`."""
    return replace(
        cpu(seeds, domains=CPU_DOMAINS[:3]),
        preset=Preset(seeds, NORMS_DIFFERS, lines=_NORM_LINES, comparable=False),
        sizes={"": 54},
    )


_NORM_LINES = tuple(
    f"{backbone}, {strategy}"
    for backbone in ("SqueezeNet", "SqueezeNet, batch norm")
    for strategy in ("top", "bottom", "independent")
)
NORMS_DIFFERS = (
    "Other domains: CIFAR-10, GTSRB and Fashion-MNIST, 800 training and 300 test images of each; "
    "SqueezeNet 1.0 from ImageNet weights (pruned ones, a third of them non-zero), at 54 pixels, "
    "the batch norms added to it started on 100 images of each domain. 25 steps of the classifiers "
    "alone, then 100 joint steps of 16 images of each domain. Without the random plan."
)

SMOKE_DIFFERS = (
    "Everything: one epoch on scikit-learn's digits, scaled to 32 pixels, under several names, "
    "from random weights. This preset only shows that the experiment runs."
)


def smoke(count: int = 5, *, labels: tuple[str, ...] | None = None) -> Size:
    """Seconds; needs no data."""
    return Size(
        preset=Preset(1, SMOKE_DIFFERS, lines=labels, comparable=False),
        models=dict.fromkeys(CPU_MODELS, "squeezenet1_1")
        | {"SqueezeNet, batch norm": "squeezenet1_0_bn"},
        starts={},
        recipes={"": replace(_CPU, epochs=1, batch_size=8, schedule="constant")},
        domains=tuple(Domain(f"digits{i}", f"digits,limit={16 + i}", 10) for i in range(count)),
        sizes={"": 32},
        test_limit=20,
    )
