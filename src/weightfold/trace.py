"""One traced run of a network: which layers run, in what order, on what shapes, at what cost."""

from collections import Counter
from collections.abc import Callable, Container
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import FlopCounterMode

from weightfold.core.copying import copied
from weightfold.core.slots import Slots

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Call:
    """One call of a module while the network ran.

    Attributes:
        path: The module's, under its first name; "" is the network.
        input: Shape of its first tensor argument; None if it has none.
        output: Shape of what it returned; None if that is not one tensor.
        macs: Multiply-adds inside the call, for the whole batch.
        reads: Path of the module whose output the first argument is, as that left it; None if an
            operation outside modules made or changed it.
    """

    path: str
    input: Shape | None
    output: Shape | None
    macs: int
    reads: str | None


@dataclass(frozen=True)
class Trace:
    """What a network does with one batch.

    Attributes:
        calls: Of all modules, in the order in which they returned; the last is the network, "".
    """

    calls: tuple[Call, ...]

    @property
    def output(self) -> Shape | None:
        """Shape of what the network returned; None if that is not one tensor."""
        return self.calls[-1].output

    @property
    def macs(self) -> int:
        """Multiply-adds of everything."""
        return self.calls[-1].macs

    @cached_property
    def runs(self) -> Counter[str]:
        """Path -> how often the module ran; in the order of the first times."""
        return Counter(call.path for call in self.calls)

    @cached_property
    def inputs(self) -> dict[str, Shape]:
        """Path -> shape of the first tensor argument, at the module's first run that has one."""
        shapes: dict[str, Shape] = {}
        for call in self.calls:
            if call.input is not None:
                shapes.setdefault(call.path, call.input)
        return shapes

    def macs_of(self, path: str) -> int:
        """Multiply-adds of all calls of a module."""
        return sum(call.macs for call in self.calls if call.path == path)

    def sources(self, readers: Container[str]) -> dict[str, str]:
        """Which module each reader reads directly, of those that always read one and the same.

        Args:
            readers: Paths of modules, the batch norms say.

        Returns:
            Reader -> the module whose output it reads, in the order in which the readers ran.
        """
        read: dict[str, set[str | None]] = {}
        for call in self.calls:
            if call.path in readers:
                read.setdefault(call.path, set()).add(call.reads)
        return {
            path: source
            for path, found in read.items()
            for source in found
            if len(found) == 1 and source is not None
        }


@torch.inference_mode(False)  # whose tensors have no versions
def trace(net: nn.Module, *args: Any, argument: str = "example_input", **kwargs: Any) -> Trace:
    """Run a copy of a plain network once, in eval mode, and note what its modules do.

    The copy runs on the meta device: no memory, no arithmetic, no change of the network. Where that
    fails (control flow that reads values), a real copy runs on the inputs as they are.

    Args:
        net: Left unchanged.
        *args: What the network takes.
        argument: What the caller calls its inputs, for errors.
        **kwargs: The network's own.

    Raises:
        ValueError: The network does not run on the inputs; the message has their shapes.
    """
    given = (args, kwargs)
    try:
        copied = _copy_of(net, lambda t: t.detach().to("meta"))
        return _observe(copied, *tree_map(lambda v: _to(v, "meta"), given))
    except Exception:  # reads values, or makes tensors on a device of its own
        pass
    device = next((t.device for t in chain(net.parameters(), net.buffers())), "cpu")
    try:
        copied = _copy_of(net, lambda t: t.detach().clone())
        return _observe(copied, *tree_map(lambda v: _to(v, device), given))
    except Exception as error:
        leaves = tree_leaves(given)
        shapes = [str(tuple(v.shape)) if isinstance(v, Tensor) else repr(v)[:40] for v in leaves]
        raise ValueError(
            f"{argument} of shape {', '.join(shapes)} does not run through the model ({error}); "
            "give a batch of what the model takes"
        ) from error


def _to(value: Any, device: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    # What is empty already has values of no kind to run on.
    return torch.zeros_like(value, device=device) if value.is_meta else value.to(device, copy=True)


def _copy_of(net: nn.Module, convert: Callable[[Tensor], Tensor]) -> nn.Module:
    """A deep copy in eval mode with other tensors in place of the network's; ties stay ties."""
    memo = {
        id(t): nn.Parameter(convert(t), t.requires_grad)
        if isinstance(t, nn.Parameter)
        else convert(t)
        for t in chain(net.parameters(), net.buffers())
    }
    return copied(net, memo).eval()


def _observe(net: nn.Module, args: tuple, kwargs: dict[str, Any]) -> Trace:
    calls: list[Call] = []
    begun: list[tuple[nn.Module, int, Tensor | None, str | None]] = []
    made: dict[tuple[int, int], tuple[str, Tensor]] = {}
    counter = FlopCounterMode(display=False)

    def before(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        first = next((v for v in (*args, *kwargs.values()) if isinstance(v, Tensor)), None)
        source = made.get((id(first), first._version)) if first is not None else None
        begun.append((module, counter.get_total_flops(), first, source and source[0]))

    def after(path: str, module: nn.Module, output: Any) -> None:
        while begun[-1][0] is not module:  # one that raised, and whose caller went on
            begun.pop()
        _, flops, first, source = begun.pop()
        if isinstance(output, Tensor):  # kept, so that its id stays its own
            made.setdefault((id(output), output._version), (path, output))
        macs = (counter.get_total_flops() - flops) // 2
        calls.append(Call(path, _shape(first), _shape(output), macs, source))

    for path, module in net.named_modules():
        module.register_forward_pre_hook(before, prepend=True, with_kwargs=True)
        module.register_forward_hook(lambda m, _, out, path=path: after(path, m, out))
    devices = [v.device for v in tree_leaves((args, kwargs)) if isinstance(v, Tensor) and v.is_cuda]
    with torch.no_grad(), torch.random.fork_rng(devices), counter:
        net(*args, **kwargs)
    return Trace(tuple(calls))


def _shape(value: Any) -> Shape | None:
    return tuple(value.shape) if isinstance(value, Tensor) else None


@dataclass(frozen=True)
class TensorSize:
    """Shape and dtype of a parameter or buffer.

    Attributes:
        shape: Its shape.
        dtype: "float32", "int64" and so on.
        buffer: True for a buffer.
    """

    shape: Shape
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
