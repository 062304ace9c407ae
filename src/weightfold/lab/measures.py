"""Figures of a run, for experiments to declare. Imports no torch."""

import math
from collections.abc import Callable, Mapping, Sequence
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


def learning_panels(
    histories: "Mapping[str, Sequence[History]]",
) -> dict[str, dict[str, list[list[float]]]]:
    """Label of an axis -> name -> values by epoch of each run, as `learning_curves` draws them."""
    return {
        "test accuracy (%)": {
            name: [[100 * row["test_accuracy"] for row in run.rows] for run in runs]
            for name, runs in histories.items()
        },
        "training error, augmented images (%)": {
            name: [[100 * (1 - row["train_accuracy"]) for row in run.rows] for run in runs]
            for name, runs in histories.items()
        },
    }


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

    from weightfold.core.charted import Charted, charts_of
    from weightfold.core.mixins import LayerExecution
    from weightfold.trace import Call, trace

    def cost(module: nn.Module, call: Call) -> int:
        outputs = math.prod(call.output or ())
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            return 2 * outputs
        if isinstance(module, (nn.modules.conv._ConvNd, nn.Linear)):
            return call.macs + outputs * (module.bias is not None)
        return 0

    def total(net: nn.Module, shape: tuple[int, ...], chains: dict[str, Any]) -> int:
        modules = dict(net.named_modules())
        calls = trace(net, torch.empty(shape, device="meta")).calls
        return sum(
            total(chains[call.path], call.input or (), {})
            if call.path in chains
            else cost(modules[call.path], call)
            for call in calls
        )

    chains: dict[str, Any] = {}
    for chart in charts_of(net, LayerExecution) if isinstance(net, Charted) else ():
        chains |= {path: chain for path, (chain, _) in chart.alternatives().items()}
    return total(net.deploy() if isinstance(net, Charted) else net, (1, *image_shape), chains)


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
