"""How each layer best runs a batch of several domains on this machine: measured, not guessed."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from weightfold.methods.share.executors import DomainLayer
from weightfold.methods.share.net import SharedNet
from weightfold.timing import alternate

Kernel = Literal["grouped", "segments"]


@dataclass(frozen=True)
class Choice:
    """What was measured of one layer.

    Attributes:
        kernel: The faster one.
        milliseconds: Kernel -> median of a call.
    """

    kernel: Kernel
    milliseconds: dict[str, float]


@torch.no_grad()
def tune(
    net: SharedNet, x: Tensor, domain: Tensor | Sequence[str], *, repeats: int = 9
) -> dict[str, Choice]:
    """Choose for each layer the faster kernel: all domains in one grouped call, or one by one.

    Args:
        net: Its layers are set to what was found; its mode is left as found.
        x: A batch as it will be served, float (B, C, H, W).
        domain: The domain of each image, at least two different ones.
        repeats: Timed calls of each kernel, in turn.

    Returns:
        Path of the layer -> the choice.

    Raises:
        ValueError: All images are of one domain, so that there is nothing to choose.
    """
    inputs: dict[str, tuple[DomainLayer, Tensor, dict[str, Tensor], Any]] = {}
    layers = {p: m for p, m in net.model.named_modules() if isinstance(m, DomainLayer)}

    def look(path: str, layer: DomainLayer) -> Any:
        def hook(module: nn.Module, args: tuple[Tensor]) -> None:
            tensors = {
                name: value
                for name, value in (*layer._parameters.items(), *layer._buffers.items())
                if value is not None
            }
            inputs[path] = (layer, args[0].clone(), tensors, layer.at)

        return layer.register_forward_pre_hook(hook)

    with ExitStack() as stack:
        stack.callback(net.train, net.training)
        for path, layer in layers.items():
            stack.callback(look(path, layer).remove)
        net.eval()(x, domain=domain)
    found: dict[str, Choice] = {}
    for path, (layer, images, tensors, at) in inputs.items():
        if isinstance(at.get("domain"), str):
            raise ValueError("domain names one domain only; give images of at least two")
        found[path] = _measure(layer, images, tensors, at, repeats)
        layer.kernel = found[path].kernel
    return found


def _measure(
    layer: DomainLayer, x: Tensor, tensors: dict[str, Tensor], at: Any, repeats: int
) -> Choice:
    def run(kernel: Kernel) -> None:
        layer.kernel, layer.at = kernel, at
        functional_call(layer, tensors, (x,), tie_weights=False)

    kernels: tuple[Kernel, ...] = ("grouped", "segments")
    training, before = layer.training, layer.at
    layer.eval()
    times = alternate({k: partial(run, k) for k in kernels}, warmup=2, repeats=repeats)
    layer.train(training)
    layer.at = before
    milliseconds = {kernel: time.median_ms for kernel, time in times.items()}
    return Choice(min(kernels, key=milliseconds.__getitem__), milliseconds)
