"""INT8 in training: torchao's PT2E quantization-aware training of a deployed network."""

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import chain, islice
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.nn.functional import cross_entropy

from weightfold.core.preprocessing import Preprocessing
from weightfold.export.batch_norm import drop_unused, fold_batch_norms
from weightfold.export.extras import need, quiet
from weightfold.export.processor import Cpu, check_cpu, this_cpu
from weightfold.export.subject import ExportError, attempting, batch_dimension, traceable


class QuantizedNet(nn.Module):
    """A network with int8 weights, which it multiplies by activations rounded to 8 bits.

    It computes in float32 what an INT8 runtime computes; write it with `to_onnx` (tolerance=0.1)
    for one. It is fixed: `train` and `eval` only set the flag.

    Attributes:
        graph_module: The converted graph; its int8 weights are buffers.
    """

    def __init__(self, graph_module: GraphModule) -> None:
        super().__init__()
        self.graph_module = graph_module
        self.requires_grad_(False)
        self.training = False

    def forward(self, x: Tensor) -> Tensor:
        """Images float32 (B, ...) to outputs."""
        return self.graph_module(x)

    def train(self, mode: bool = True) -> Self:
        """Set the flag of this module only: an exported graph has no other mode."""
        self.training = mode
        return self


def quantize_aware(
    module: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    steps: int,
    lr: float = 1e-4,
    momentum: float = 0.9,
    loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy,
    cpu: Cpu | None = None,
) -> QuantizedNet:
    """Fine-tune a trained network with rounded weights and activations, then make it int8.

    Weights are int8 per output channel and symmetric; what goes into a convolution or linear layer
    is uint8 per tensor (torchao's X86InductorQuantizer). Weights have 7 bits for processors that
    need it, see `weightfold.export.processor`. The optimizer is SGD, without decay.

    Batch norms are folded into the convolutions before the fine-tuning, as they will be when
    deployed. torchao can instead train through them, but switches them to batch statistics with
    eps 1e-5 and momentum 0.1 whatever the network has (seen in 0.18), and then takes some 20 s to
    convert even the smallest network. Dropout is off.

    Args:
        module: A trained network, one tensor to one; left unchanged. Trained on its device.
        batches: Pairs of images float32 (B, ...), augmented and normalised as in training, and
            labels. Gone through again if they are fewer than `steps`.
        steps: Steps of the optimizer.
        lr: Learning rate, about the last one of the training.
        momentum: Of SGD.
        loss: Of outputs and labels.
        cpu: The kind of processor it will run on; None: this one's.

    Returns:
        A new network on the same device.

    Raises:
        ImportError: The extra is not installed (`weightfold[int8]`).
        TypeError: The images or the network's output are not one floating-point tensor.
        ValueError: `steps` is not positive, `cpu` is no kind of processor, the network does not
            take the images, or `batches` is a generator that ran out before `steps`.
        ExportError: torch could not export the network (the cause is attached), or a layer pads
            with other values than zeros.
        FloatingPointError: The loss is not finite.
    """
    with quiet():
        need("int8", "torchao")
    cpu = cpu or this_cpu()
    check_cpu(cpu)
    if steps < 1:
        raise ValueError(f"steps={steps}; use steps >= 1")
    stream = islice(_repeated(batches), steps)
    first = next(stream, None)
    if first is None:
        raise ValueError("batches is empty; give pairs of images and labels")
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    net = _prepared(module, first[0], device, cpu)
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=momentum)
    done = 0
    for images, labels in chain([first], stream):
        value = loss(net(images.to(device)), labels.to(device))
        if not math.isfinite(value.item()):
            raise FloatingPointError(
                f"the loss is {value.item()} at step {done}; use a smaller lr than {lr}"
            )
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        done += 1
    if done < steps:
        raise ValueError(
            f"batches ran out after {done} of steps={steps}; give a list or a loader, which can be "
            "gone through again"
        )
    quantized = _converted(net)
    if (told := Preprocessing.of(module)) is not None:
        told.attach(quantized)
    return quantized


def _repeated(batches: Iterable[Any]) -> Iterator[Any]:
    while True:
        count = 0
        for batch in batches:
            count += 1
            yield batch
        if not count:
            return


def _prepared(module: nn.Module, images: Tensor, device: torch.device, cpu: Cpu) -> GraphModule:
    """The network as a graph on its device, batch norms folded, with a rounding at each place."""
    net = copy.deepcopy(module).eval().requires_grad_(True)
    for path, layer in net.named_modules():
        if (mode := getattr(layer, "padding_mode", "zeros")) != "zeros":
            raise ExportError(
                f"layer {path!r} has padding_mode={mode!r}, which torchao's quantizer does not "
                "take in training; quantize_static does"
            )
    images = traceable(net, images, argument="images of batches").to(device)
    with quiet():
        from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e
        from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (
            X86InductorQuantizer,
            get_default_x86_inductor_quantization_config,
        )

        with attempting("torch.export.export", type(net).__name__, images):
            # The quantizer finds a convolution with its ReLU only in a graph of strict export.
            graph_module = torch.export.export(
                net,
                (images,),
                dynamic_shapes=batch_dimension(True),
                strict=True,
            ).module()
        assert isinstance(graph_module, GraphModule)
        fold_batch_norms(graph_module)
        configuration = get_default_x86_inductor_quantization_config(is_qat=True)
        if cpu == "x86-without-vnni":
            # Not torchao's reduce_range, 7 bits of activations: an .onnx file clips at 8 bits.
            weight: Any = configuration.weight
            weight = replace(weight, quant_min=-64, quant_max=63)
            configuration = replace(configuration, weight=weight)
        quantizer = X86InductorQuantizer().set_global(configuration)
        return prepare_qat_pt2e(graph_module, quantizer)


def _converted(net: GraphModule) -> QuantizedNet:
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e

    with quiet():
        graph_module = convert_pt2e(net)
    drop_unused(graph_module)
    return QuantizedNet(graph_module)
