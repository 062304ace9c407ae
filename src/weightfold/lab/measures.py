"""Figures of a run, for experiments to declare. Imports no torch."""

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from weightfold.lab.declare import Measure

if TYPE_CHECKING:
    from weightfold.lab.outcomes import Outcome
    from weightfold.train import History


def _of(
    figure: "Callable[[History], float | None]",
) -> "Callable[[Outcome], float | None]":
    """A figure of the history, once there is one."""
    return lambda outcome: None if outcome.history is None else figure(outcome.history)


def _final_train_error(history: "History") -> float | None:
    return None if not history.finished else 100 * (1 - history.last(part="train_eval"))


def _parameters(outcome: "Outcome") -> float:
    return _counts_of(outcome)[0] / 1e3


def _multiply_adds(outcome: "Outcome") -> float:
    return _counts_of(outcome)[1] / 1e6


def _counts_of(outcome: "Outcome") -> tuple[int, int]:
    cell, column = outcome.cell, outcome.column
    return _counts(cell.model, cell.variant, column.classes, column.image_shape)


@cache
def _counts(
    model: str, variant: str, classes: int, image_shape: tuple[int, int, int]
) -> tuple[int, int]:
    """Parameters while training, and multiply-adds of one image when factors run as a chain."""
    from weightfold.lab.variants import make_net

    net = make_net(model, variant, seed=0, num_classes=classes, image_shape=image_shape)
    return sum(p.numel() for p in net.parameters()), multiply_adds(net, image_shape)


def multiply_adds(net: Any, image_shape: tuple[int, int, int]) -> int:
    """Multiply-adds of one image through a net whose chains are run factor by factor.

    Counted are convolutions, Linears, their biases (one an output) and batch norms (two an output),
    as the tool of ExpandNets' Table 6 does; it also counts ReLU and pooling, which are not modules
    here: 0.03 million in SmallNet B.

    Args:
        net: A module, or what `wf.expand` makes of one; left unchanged.
        image_shape: (channels, height, width).
    """
    import torch
    from torch import nn

    from weightfold.core.charted import Charted

    total = 0

    def count(module: nn.Module, args: tuple, output: torch.Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            total += 2 * output.numel()
        else:
            weight: Any = module.weight
            total += output.numel() * (weight[0].numel() + (module.bias is not None))

    def count_chain(module: nn.Module, args: tuple, output: torch.Tensor) -> None:
        chain = chains[module]
        for factor in chain:
            factor.register_forward_hook(count)
        chain(args[0])

    counted = (nn.modules.conv._ConvNd, nn.Linear, nn.modules.batchnorm._BatchNorm)
    plain = (net.deploy() if isinstance(net, Charted) else net).to("meta").eval()
    chains: dict[nn.Module, Any] = {}
    for chart in net.charts if isinstance(net, Charted) else ():
        for path, (chain, _) in chart.alternatives().items():  # type: ignore[operator]
            chains[plain.get_submodule(path)] = chain.to("meta")
    for module in plain.modules():
        if module in chains:
            module.register_forward_hook(count_chain)
        elif isinstance(module, counted):
            module.register_forward_hook(count)
    with torch.no_grad():
        plain(torch.empty(1, *image_shape, device="meta"))
    return total


BEST_ACCURACY = Measure(
    "best_accuracy", "test accuracy, best epoch (%)", _of(lambda h: 100 * h.best_value)
)
LAST_ACCURACY = Measure(
    "last_accuracy", "test accuracy, last epoch (%)", _of(lambda h: 100 * h.last_value)
)
BEST_ERROR = Measure(
    "best_error", "test error, best epoch (%)", _of(lambda h: 100 * (1 - h.best_value))
)
LAST_ERROR = Measure(
    "last_error", "test error, last epoch (%)", _of(lambda h: 100 * (1 - h.last_value))
)
TRAIN_ERROR = Measure(
    "train_error",
    "training error, last epoch, while training (%)",
    _of(lambda h: 100 * (1 - h.last(part="train"))),
)
FINAL_TRAIN_ERROR = Measure(
    "final_train_error", "training error, last epoch, unaugmented (%)", _of(_final_train_error)
)
PARAMETERS = Measure("parameters", "parameters while training (K)", _parameters, counted=True)
MULTIPLY_ADDS = Measure(
    "multiply_adds", "multiply-adds as a chain (M)", _multiply_adds, counted=True
)


def step_time(relative_to: str) -> Measure:
    """Median time of a training step over that of another line, of the same seed."""
    return Measure(
        "step_time",
        f"training step / that of {relative_to}",
        _of(lambda h: h.seconds_per_step),
        relative_to=relative_to,
    )
