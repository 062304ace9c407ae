"""Figures of a run, for experiments to declare. Imports no torch."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from statistics import fmean
from typing import TYPE_CHECKING, Any

from weightfold.lab.experiment import Column, Estimate, Quantity
from weightfold.tasks.measure import ACCURACY, Measure

if TYPE_CHECKING:
    from weightfold.train import History


def by_probe(
    of: Mapping[str, Callable[[Sequence[Any]], Estimate | None]],
) -> Callable[[Sequence[Any]], Estimate | None]:
    """`Quantity.over` by the probe that found the records; "" of networks trained plainly."""

    def over(records: Sequence[Any]) -> Estimate | None:
        found = of.get(getattr(records[0], "probe", ""))
        return None if found is None else found(records)

    return over


def last_accuracy(history: "History") -> float:
    """Test accuracy after the last epoch, in percent."""
    return 100 * history.last_value


def best_accuracy(history: "History") -> float:
    """Test accuracy at the best epoch, in percent."""
    return 100 * history.best_value


def domains_of(history: "History") -> list[str]:
    """The domains of a history; none of one of a single data set."""
    return list(history.rows[0].domains) if history.rows else []


def domain_accuracies(history: "History", epoch: int | None = None) -> dict[str, float]:
    """Domain -> test accuracy in percent after an epoch, from 1; None: the last."""
    row = history.rows[-1 if epoch is None else epoch - 1]
    return {name: 100 * (of["test_accuracy"] or 0.0) for name, of in row.domains.items()}


def column_by_domain(history: "History", domain: str) -> list[float]:
    """Test accuracy of a domain after each epoch, in percent."""
    return [domain_accuracies(history, epoch + 1)[domain] for epoch in range(len(history.rows))]


def _final_train_error(history: "History") -> float | None:
    return None if not history.finished else 100 * (1 - history.last(part="train_eval"))


def task_measures(measure: Measure) -> tuple[Quantity, Quantity, Quantity]:
    """A task's measure after the last and at the best epoch, and at the end on training examples.

    Shares are in percent; of accuracy the last one is the error.
    """
    name = measure.name
    if name == ACCURACY.name:
        return (
            Quantity("last_accuracy", "accuracy, last epoch (%)", of=last_accuracy),
            Quantity("best_accuracy", "accuracy, best epoch (%)", of=best_accuracy),
            FINAL_TRAIN_ERROR,
        )
    scale, unit, digits = (100.0, " (%)", 2) if measure.share else (1.0, "", 4)

    def of(key: str, title: str, value: "Callable[[History], float]") -> Quantity:
        return Quantity(
            f"{key}_{name}", f"{title}{unit}", lambda h: scale * value(h), digits=digits
        )

    return (
        of("last", f"{measure.title}, last epoch", lambda h: h.last_value),
        of("best", f"{measure.title}, best epoch", lambda h: h.best_value),
        of("final_train", f"training {name}, last epoch", lambda h: h.last(part="train_eval")),
    )


def domain_measures(domains: Sequence[str]) -> tuple[Quantity, ...]:
    """Test accuracy of the mean over domains and of each, after the last and the best epoch.

    Keys are "accuracy" and "accuracy/DOMAIN", "best_accuracy" and "best/DOMAIN"; the best epoch is
    that of the best mean.
    """

    def of(domain: str, best: bool) -> "Callable[[History], float | None]":
        def value(history: "History") -> float | None:
            found = domain_accuracies(history, history.best_epoch if best else None)
            return found.get(domain) if domain else fmean(found.values())

        return value

    return (
        Quantity("accuracy", "mean over domains (%)", of=of("", False)),
        *(Quantity(f"accuracy/{name}", f"{name} (%)", of=of(name, False)) for name in domains),
        Quantity("best_accuracy", "mean, best epoch (%)", of=of("", True)),
        *(
            Quantity(f"best/{name}", f"{name}, best epoch (%)", of=of(name, True), section=None)
            for name in domains
        ),
    )


def _parameters(run: Any, column: Column) -> float:
    return _counts(run.model, run.variant, column.classes, column.image_shape)[0] / 1e3


def _multiply_adds(run: Any, column: Column) -> float:
    return _counts(run.model, run.variant, column.classes, column.image_shape)[1] / 1e6


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


BEST_ACCURACY = Quantity("best_accuracy", "test accuracy, best epoch (%)", of=best_accuracy)
LAST_ACCURACY = Quantity("last_accuracy", "test accuracy, last epoch (%)", of=last_accuracy)
BEST_ERROR = Quantity(
    "best_error", "test error, best epoch (%)", of=lambda h: 100 - best_accuracy(h)
)
LAST_ERROR = Quantity(
    "last_error", "test error, last epoch (%)", of=lambda h: 100 - last_accuracy(h)
)
TRAIN_ERROR = Quantity(
    "train_error",
    "training error, last epoch, while training (%)",
    of=lambda h: 100 * (1 - h.last(part="train")),
)
FINAL_TRAIN_ERROR = Quantity(
    "final_train_error", "training error, last epoch, unaugmented (%)", of=_final_train_error
)
PARAMETERS = Quantity(
    "parameters", "parameters while training (K)", counted=_parameters, everywhere=True
)
MULTIPLY_ADDS = Quantity(
    "multiply_adds", "multiply-adds as a chain (M)", counted=_multiply_adds, everywhere=True
)


def step_time(relative_to: str) -> Quantity:
    """Median time of a training step over that of another line, of the same seed."""
    return Quantity(
        "step_time",
        f"training step / that of {relative_to}",
        of=lambda h: h.seconds_per_step,
        relative_to=relative_to,
    )
