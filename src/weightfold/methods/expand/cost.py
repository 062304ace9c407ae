"""What a layer costs plain, as a chain, and folded: multiply-adds in one forward pass."""

import copy
from dataclasses import dataclass

import torch

from weightfold.methods.expand.algebra import Order, orders
from weightfold.methods.expand.chain import Chain
from weightfold.trace import trace


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


def chain_cost(chain: Chain, shape: tuple[int, ...]) -> LayerCost:
    """Cost of a chain and of the layer it folds to, on an input of that shape.

    Args:
        chain: The chain.
        shape: (N, C, *size) or (N, ..., features).
    """
    chain = copy.deepcopy(chain).to("meta")
    x = torch.empty(shape, device="meta", dtype=chain.factors[0].weight.dtype)
    factors = tuple(tuple(f.weight.shape) for f in chain.factors)
    return LayerCost(
        plain=trace(chain.fuse(), x).macs,
        chain=trace(chain, x).macs,
        orders={order_name(order): cost for cost, order, _ in orders(factors)},
    )
