"""The layers of a network that domains may own: its convolutions, batch norms and classifier."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from weightfold.core.charted import Charted
from weightfold.core.slots import Slots, split_name
from weightfold.trace import Trace, trace

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
WEIGHTED = (*CONVOLUTIONS, nn.Linear)


@dataclass(frozen=True)
class Layer:
    """A convolution, or the classifier.

    Attributes:
        path: Its path in the model.
        filters: Output channels; the first axis of its weight.
        weights_per_filter: Elements of one filter's kernel, and 1 for its bias.
        macs_per_filter: Multiply-adds of one filter for one image; biases are not counted. A layer
            that runs twice counts twice.
        groups: Groups of the convolution; 1 for a Linear.
    """

    path: str
    filters: int
    weights_per_filter: int
    macs_per_filter: int
    groups: int

    @property
    def weights(self) -> int:
        """Elements of the layer, biases included."""
        return self.filters * self.weights_per_filter

    @property
    def macs(self) -> int:
        """Multiply-adds of the layer for one image."""
        return self.filters * self.macs_per_filter


@dataclass(frozen=True)
class Layers:
    """What of a network can be shared, and what the rest costs.

    Attributes:
        convolutions: All but the classifier, in execution order; those with tied weights are one
            layer, where the first of them runs.
        norms: Paths of the batch norms that ran, in execution order.
        classifier: The layer that gives the classes.
        other_macs: Multiply-adds of everything else for one image.
        input_size: Shape of that image, (1, C, ...).
    """

    convolutions: tuple[Layer, ...]
    norms: tuple[str, ...]
    classifier: Layer
    other_macs: int
    input_size: tuple[int, ...]


def find_layers(
    net: nn.Module, example_input: Tensor | None = None, head_path: str | None = None
) -> Layers:
    """Run a copy of `net` on one image, without memory, and see which layers it has.

    Args:
        net: A plain module; left unchanged.
        example_input: (N, C, ...); only its first image counts. None: (1, C, 224, 224), with the C
            channels of the first Conv2d.
        head_path: Path of the classifier; None: the last Linear or convolution to run that has as
            many outputs as the network.

    Raises:
        ValueError: The network does not run, no layer is the classifier, or a convolution's weight
            is no Parameter of its own.
        TypeError: The network is charted, or `example_input` is no tensor.
    """
    if isinstance(net, Charted):
        raise TypeError("net is a Charted net; plan the plain network, e.g. net.deploy()")
    image = _image(net, example_input)
    source = "example_input" if example_input is not None else "no example_input: an image"
    run = trace(net, image, argument=source)
    modules = dict(net.named_modules())
    ran = {path: modules[path] for path in run.runs}
    head = _head(ran, run, head_path)
    canonical = Slots.of(net).canonical
    layers: dict[str, Layer] = {}
    for path, module in ran.items():
        if path == head or not isinstance(module, CONVOLUTIONS):
            continue
        first = split_name(_own_weight(path, module, canonical))[0]
        if first == head or not isinstance(modules[first], CONVOLUTIONS):
            continue
        seen = layers[first].macs_per_filter if first in layers else 0
        macs = run.macs_of(path) // _filters(module)
        layers[first] = _layer(first, modules[first], seen + macs, canonical)
    if not layers:
        raise ValueError(f"no convolution of the model runs besides its classifier {head!r}")
    _own_weight(head, ran[head], canonical)
    classifier = _layer(head, ran[head], run.macs_of(head) // _filters(ran[head]), canonical)
    counted = sum(layer.macs for layer in layers.values()) + classifier.macs
    norms = tuple(p for p, m in ran.items() if isinstance(m, _BatchNorm))
    return Layers(tuple(layers.values()), norms, classifier, run.macs - counted, tuple(image.shape))


def _image(net: nn.Module, example_input: Tensor | None) -> Tensor:
    """One image of zeros like the example's, or as ImageNet networks take it."""
    if not isinstance(example_input, Tensor | None):
        raise TypeError(f"example_input is a {type(example_input).__name__}; give a tensor")
    if example_input is not None:
        return torch.zeros_like(example_input[:1])
    first = next((m for m in net.modules() if isinstance(m, CONVOLUTIONS)), None)
    if first is None:
        raise ValueError("the model has no convolution (nn.Conv1d, nn.Conv2d, nn.Conv3d) to share")
    if not isinstance(first, nn.Conv2d):
        raise ValueError(
            f"the first convolution is a {type(first).__name__}; give example_input, a batch of "
            "what the model takes"
        )
    weight = first.weight
    size = (1, first.in_channels, 224, 224)
    return torch.zeros(size, device=weight.device, dtype=weight.dtype)


def _head(ran: dict[str, nn.Module], run: Trace, head_path: str | None) -> str:
    weighted = {path: module for path, module in ran.items() if isinstance(module, WEIGHTED)}
    if head_path is not None:
        if head_path not in weighted:
            raise ValueError(
                f"head_path={head_path!r} is no Linear or convolution that runs; the last ones are "
                f"{', '.join(list(weighted)[-5:])}"
            )
        return head_path
    width = run.output[1] if run.output and len(run.output) > 1 else None
    called = [call.path for call in run.calls if call.path in weighted]
    fitting = [path for path in called if _filters(weighted[path]) == width]
    if not fitting:
        gives = f"{width} outputs" if width else "no tensor of shape (N, classes)"
        raise ValueError(
            f"the model gives {gives}, and no Linear or convolution that runs has as many; name "
            f"its classifier as head_path; the last layers are {', '.join(list(weighted)[-5:])}"
        )
    return fitting[-1]


def _layer(path: str, module: nn.Module, macs: int, canonical: dict[str, str]) -> Layer:
    has_bias = canonical.get(f"{path}.bias") == f"{path}.bias"
    return Layer(
        path=path,
        filters=_filters(module),
        weights_per_filter=_kernel(module) + has_bias,
        macs_per_filter=macs,
        groups=getattr(module, "groups", 1),  # type: ignore[arg-type]
    )


def _filters(module: nn.Module) -> int:
    return int(module.out_features if isinstance(module, nn.Linear) else module.out_channels)  # type: ignore[arg-type]


def _kernel(module: nn.Module) -> int:
    """Elements of one filter's kernel."""
    if isinstance(module, nn.Linear):
        return module.in_features
    size = math.prod(module.kernel_size)  # type: ignore[arg-type]
    return size * module.in_channels // module.groups  # type: ignore[operator]


def _own_weight(path: str, module: nn.Module, canonical: dict[str, str]) -> str:
    """First name of the layer's weight."""
    if not isinstance(module._parameters.get("weight"), nn.Parameter):
        raise ValueError(
            f"layer {path!r} has no Parameter 'weight' (a parametrization computes it?); remove "
            "parametrizations and weight norm first"
        )
    return canonical[f"{path}.weight"]
