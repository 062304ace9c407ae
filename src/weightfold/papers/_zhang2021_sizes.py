"""How the sharing paper's experiments are run on two cores, and in seconds."""

from dataclasses import replace

from weightfold.lab.domains import Domain, DomainsTraining
from weightfold.lab.experiment import Preset
from weightfold.papers._zhang2021 import Size
from weightfold.train.domains.joint import Joint
from weightfold.train.recipe import Recipe

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
