"""What a layer costs plain, as a chain, and folded: multiply-adds in one forward pass."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from weightfold.methods.expand.algebra import Order, orders
from weightfold.methods.expand.chain import Chain


@dataclass(frozen=True)
class LayerCost:
    """Multiply-adds of one layer; forward, for the whole batch. Backward costs twice as much.

    Attributes:
        plain: The layer itself.
        chain: Its factors one after another.
        orders: Composing the factors to one weight, for each contraction order.
    """

    plain: int
    chain: int
    orders: dict[str, int]

    @property
    def fold(self) -> int:
        """The cheapest contraction order, which is the one used."""
        return min(self.orders.values())

    @property
    def cheaper(self) -> str:
        """'fold' or 'chain'."""
        return "fold" if self.plain + self.fold <= self.chain else "chain"


def order_name(order: Order) -> str:
    """'((W1 W0) W2)'-like notation, last layer on the left as in a matrix product."""
    if isinstance(order, int):
        return f"W{order + 1}"
    return f"({order_name(order[1])} {order_name(order[0])})"


def input_shapes(model: nn.Module, example_input: Tensor) -> dict[str, tuple[int, ...]]:
    """Input shape of every convolution and Linear of a plain model, from a run without memory.

    Args:
        model: Left unchanged; it runs on the meta device, in eval mode.
        example_input: Its batch size counts.

    Raises:
        ValueError: The model does not run on that input.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    meta_copy = copy.deepcopy(model).to("meta").eval()
    names = {module: name for name, module in meta_copy.named_modules()}

    def note(module: nn.Module, args: tuple, kwargs: dict[str, Tensor]) -> None:
        x = args[0] if args else kwargs["input"]
        shapes.setdefault(names[module], tuple(x.shape))

    for module in names:
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear):
            module.register_forward_pre_hook(note, with_kwargs=True)
    try:
        with torch.no_grad():
            meta_copy(example_input.to("meta"))
    except Exception as error:
        raise ValueError(
            f"example_input of shape {tuple(example_input.shape)} does not run through the model: "
            f"{error}"
        ) from error
    return shapes


def chain_cost(chain: Chain, shape: tuple[int, ...]) -> LayerCost:
    """Cost of a chain and of the layer it folds to, on an input of that shape.

    Args:
        chain: The chain.
        shape: (N, C, *size) or (N, ..., features).
    """
    meta_copy = copy.deepcopy(chain).to("meta")
    x = torch.empty(shape, device="meta", dtype=chain.factors[0].weight.dtype)
    factors = tuple(tuple(f.weight.shape) for f in chain.factors)
    return LayerCost(
        plain=_macs(meta_copy.fuse(), x),
        chain=_macs(meta_copy, x),
        orders={order_name(order): cost for cost, order, _ in orders(factors)},
    )


def _macs(module: nn.Module, x: Tensor) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(x)
    return counter.get_total_flops() // 2
