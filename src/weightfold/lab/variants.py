"""The network of a variant, a way to train one: "compact", "ck+fc,rate=4,first=m", "acnet"."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from weightfold.methods.variants import Variant, variants
from weightfold.nets import asymmetric, build
from weightfold.spec import parse_spec, read_options
from weightfold.tasks.task import Task


def _asymmetric(net: nn.Module, example: Tensor, seed: int) -> nn.Module:
    return asymmetric(net, example_input=example, seed=seed)


ACNET = Variant("acnet", _asymmetric, plain=True)
"""With asymmetric branches; of a model, no method."""


def _read(variant: str) -> tuple[Variant, dict[str, str]]:
    """A variant and the texts of its options.

    Raises:
        ValueError: There is none of that name.
    """
    name, texts = parse_spec(variant)
    known = {**variants(), ACNET.name: ACNET}
    if name not in known:
        raise ValueError(f"variant={variant!r}; choose {', '.join(sorted(known))}")
    return known[name], texts


def make_net(
    model: str | Callable[[int], nn.Module],
    variant: str,
    *,
    seed: int,
    num_classes: int,
    image_shape: tuple[int, ...],
) -> nn.Module:
    """A network with seeded initial weights; all variants share those of the plain one of a seed.

    Args:
        model: Network spec, or a function that makes the network of a seed.
        variant: One of `weightfold.methods.variants`, or "acnet", with its options.
        seed: Of all initial weights.
        num_classes: Number of logits.
        image_shape: (channels, height, width), or what other shape an input has.

    Raises:
        ValueError: The variant is unknown or has other options.
    """
    chosen, texts = _read(variant)
    options = read_options(chosen.name, texts, chosen.options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if callable(model):
            net = model(seed)
        else:
            net = build(model, num_classes=num_classes, in_channels=image_shape[0])
    try:
        return chosen.make(net, torch.zeros(2, *image_shape), seed, **options)
    except ValueError as error:
        raise ValueError(f"variant={variant!r}: {error}") from error


def net_for(
    task: Task, model: str | Callable[[int], nn.Module], variant: str, *, seed: int
) -> nn.Module:
    """The network of a variant that fits a task; as `make_net`."""
    return make_net(
        model if callable(model) else lambda _: task.network(model),
        variant,
        seed=seed,
        num_classes=task.outputs,
        image_shape=task.dataset.shape,
    )


def shape_of(variant: str) -> str:
    """A variant with tensors of the same shapes, whose making reads no weights.

    Raises:
        ValueError: The variant is unknown, or cannot be read.
    """
    chosen, texts = _read(variant)
    kept = [f"{key}={texts[key]}" for key in chosen.shaping if key in texts]
    return "compact" if chosen.plain else ",".join([chosen.name, *kept])
