"""What a network does with one image: which layers run, in what order, and what they cost."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

from weightfold.core.charted import Charted
from weightfold.core.slots import Slots, split_name

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
class TensorSize:
    """Shape and dtype of a parameter or buffer.

    Attributes:
        shape: Its shape.
        dtype: "float32", "int64" and so on.
        buffer: True for a buffer.
    """

    shape: tuple[int, ...]
    dtype: str
    buffer: bool

    @property
    def numel(self) -> int:
        """Number of elements."""
        return torch.Size(self.shape).numel()

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return getattr(torch, self.dtype).itemsize


@dataclass(frozen=True)
class Trace:
    """One image's way through a network.

    Attributes:
        layers: Convolutions but the classifier, in execution order; those with tied weights are
            one layer, where the first of them runs.
        norms: Paths of the batch norms that ran, in execution order.
        classifier: The layer that gives the classes.
        other_macs: Multiply-adds of everything else for one image.
        input_size: Shape of that image, (1, C, ...).
    """

    layers: tuple[Layer, ...]
    norms: tuple[str, ...]
    classifier: Layer
    other_macs: int
    input_size: tuple[int, ...]


@dataclass(frozen=True)
class _Run:
    calls: list[tuple[str, int]]  # path, elements of the layer's output
    width: int | None  # second axis of the net's output
    macs: int


def tensor_sizes(model: nn.Module) -> dict[str, TensorSize]:
    """The tensors `model` keeps (those of its state_dict), each under its first name."""
    kept = model.state_dict(keep_vars=True)
    return {
        name: TensorSize(
            tuple(tensor.shape),
            str(tensor.dtype).removeprefix("torch."),
            not isinstance(tensor, nn.Parameter),
        )
        for name, tensor in Slots.of(model).tensors.items()
        if name in kept
    }


def trace(
    model: nn.Module, example_input: Tensor | None = None, head_path: str | None = None
) -> Trace:
    """Run a copy of `model` on one image, in eval mode, and note what its layers do.

    The copy runs on the meta device: no memory, no arithmetic, no change of the model. Where that
    fails (control flow that reads values), a real copy runs on zeros.

    Args:
        model: A plain module; left unchanged.
        example_input: (N, C, ...); only its first image counts. None: (1, C, 224, 224), with the C
            channels of the first Conv2d.
        head_path: Path of the classifier; None: the last Linear or convolution to run that has as
            many outputs as the model.

    Raises:
        ValueError: The model does not run, no layer is the classifier, or a convolution's weight
            is no Parameter of its own.
        TypeError: The model is charted, or `example_input` is no tensor.
    """
    if isinstance(model, Charted):
        raise TypeError("model is a Charted net; plan the plain network, e.g. net.deploy()")
    image = _image(model, example_input)
    run = _run(model, image, given=example_input is not None)
    modules = dict(model.named_modules())
    ran = {path: modules[path] for path, _ in run.calls}
    head = _head(ran, run, head_path)
    macs = {p: 0 for p, m in ran.items() if isinstance(m, WEIGHTED)}
    for path, elements in run.calls:
        if path in macs:
            macs[path] += elements // _filters(ran[path]) * _kernel(ran[path])
    canonical = Slots.of(model).canonical
    layers: dict[str, Layer] = {}
    for path, module in ran.items():
        if path == head or not isinstance(module, CONVOLUTIONS):
            continue
        first = split_name(_own_weight(path, module, canonical))[0]
        if first == head or not isinstance(modules[first], CONVOLUTIONS):
            continue
        seen = layers[first].macs_per_filter if first in layers else 0
        layers[first] = _layer(first, modules[first], seen + macs[path], canonical)
    if not layers:
        raise ValueError(f"no convolution of the model runs besides its classifier {head!r}")
    _own_weight(head, ran[head], canonical)
    classifier = _layer(head, ran[head], macs[head], canonical)
    counted = sum(layer.macs for layer in layers.values()) + classifier.macs
    norms = tuple(p for p, m in ran.items() if isinstance(m, _BatchNorm))
    return Trace(tuple(layers.values()), norms, classifier, run.macs - counted, tuple(image.shape))


def _image(model: nn.Module, example_input: Tensor | None) -> Tensor:
    """One image of zeros like the example's, or as ImageNet networks take it."""
    if not isinstance(example_input, Tensor | None):
        raise TypeError(f"example_input is a {type(example_input).__name__}; give a tensor")
    if example_input is not None:
        return torch.zeros_like(example_input[:1])
    first = next((m for m in model.modules() if isinstance(m, CONVOLUTIONS)), None)
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


def _run(model: nn.Module, image: Tensor, *, given: bool) -> _Run:
    try:
        return _observe(_ghost(model, lambda t: t.detach().to("meta")), image.to("meta"))
    except Exception:  # reads values, or makes tensors on a device of its own
        pass
    try:
        return _observe(_ghost(model, lambda t: t.detach().clone()), image)
    except Exception as error:
        source = "example_input" if given else "the default image"
        raise ValueError(
            f"{source} of shape {tuple(image.shape)} does not run through the model ({error}); "
            "give as example_input a batch of what the model takes"
        ) from error


def _ghost(model: nn.Module, convert: Callable[[Tensor], Tensor]) -> nn.Module:
    """A deep copy in eval mode with other tensors in place of the model's; ties stay ties."""
    memo = {
        id(t): nn.Parameter(convert(t), t.requires_grad)
        if isinstance(t, nn.Parameter)
        else convert(t)
        for t in chain(model.parameters(), model.buffers())
    }
    return copy.deepcopy(model, memo).eval()


def _observe(meta_copy: nn.Module, image: Tensor) -> _Run:
    calls: list[tuple[str, int]] = []
    names = {module: name for name, module in meta_copy.named_modules()}

    def note(module: nn.Module, args: object, output: Tensor) -> None:
        calls.append((names[module], output.numel()))

    for module in names:
        if isinstance(module, (*WEIGHTED, _BatchNorm)):
            module.register_forward_hook(note)
    counter = FlopCounterMode(display=False)
    devices = [image.device] if image.is_cuda else []
    with torch.no_grad(), torch.random.fork_rng(devices), counter:
        output = meta_copy(image)
    is_batch = isinstance(output, Tensor) and output.ndim > 1
    return _Run(calls, output.shape[1] if is_batch else None, counter.get_total_flops() // 2)


def _head(ran: dict[str, nn.Module], run: _Run, head_path: str | None) -> str:
    weighted = {path: module for path, module in ran.items() if isinstance(module, WEIGHTED)}
    if head_path is not None:
        if head_path not in weighted:
            raise ValueError(
                f"head_path={head_path!r} is no Linear or convolution that runs; the last ones are "
                f"{', '.join(list(weighted)[-5:])}"
            )
        return head_path
    fitting = [path for path, _ in run.calls if path in weighted]
    fitting = [path for path in fitting if _filters(weighted[path]) == run.width]
    if not fitting:
        gives = f"{run.width} outputs" if run.width else "no tensor of shape (N, classes)"
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
