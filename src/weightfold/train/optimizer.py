"""The optimizer that a recipe asks for."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weightfold.train.recipe import Recipe


def make_optimizer(
    tensors: Iterable[Tensor], recipe: Recipe, weight_decay: float
) -> torch.optim.Optimizer:
    """The recipe's optimizer of those tensors that require a gradient."""
    return _optimizer([{"params": [p for p in tensors if p.requires_grad]}], recipe, weight_decay)


def optimizer_of(
    net: nn.Module,
    recipe: Recipe,
    weight_decay: float,
    *,
    lr_factors: Mapping[str, float] | None = None,
    in_place: bool = False,
) -> torch.optim.Optimizer:
    """The recipe's optimizer of what a network trains, a group for each factor of the rate.

    Args:
        net: Its parameters are moved by the optimizer.
        recipe: Hyperparameters.
        weight_decay: By the optimizer.
        lr_factors: As in `Options`; a group has its own under "factor".
        in_place: As in `Options`; the optimizer is an `InPlaceSGD`.

    Raises:
        ValueError: A name is none of the network's parameters, or `in_place` with a recipe that
            needs more than plain SGD.
    """
    factors = dict(lr_factors or {})
    named = {name: p for name, p in net.named_parameters() if p.requires_grad}
    if unknown := [name for name in factors if name not in dict(net.named_parameters())]:
        raise ValueError(
            f"lr_factors has {unknown[0]!r}; the network's parameters are {', '.join(named)}"
        )
    values = dict.fromkeys([1.0, *factors.values()])
    groups = [
        {"params": [p for n, p in named.items() if factors.get(n, 1.0) == value], "factor": value}
        for value in values
    ]
    groups = [group for group in groups if group["params"]]
    if not in_place:
        return _optimizer(groups, recipe, weight_decay)
    plain = recipe.optimizer == "sgd" and not recipe.momentum and not recipe.weight_decay
    if not plain or recipe.clip_norm is not None:
        raise ValueError(
            "in_place=True: needs optimizer='sgd', momentum=0, weight_decay=0 and clip_norm=None; "
            f"the recipe is {recipe}"
        )
    return InPlaceSGD(net, groups, recipe.lr)


def _optimizer(
    groups: list[dict[str, Any]], recipe: Recipe, weight_decay: float
) -> torch.optim.Optimizer:
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.lr, weight_decay=weight_decay)
    return torch.optim.SGD(
        groups,
        lr=recipe.lr,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        weight_decay=weight_decay,
    )


class InPlaceSGD(torch.optim.Optimizer):
    """Plain SGD whose steps are taken in the backward pass, parameter by parameter.

    A layer with an attribute `product`, which it calls in the place of
    `torch.nn.functional.linear`, has its gradient added to the weight as it is computed; of every
    other parameter the gradient is there until the next one's.

    Args:
        net: Whose layers are looked for; changed until `close`.
        groups: Of its parameters, as any optimizer takes them, with "factor".
        lr: Learning rate.
    """

    def __init__(self, net: nn.Module, groups: list[dict[str, Any]], lr: float) -> None:
        super().__init__(groups, {"lr": lr})
        group_of = {p: group for group in self.param_groups for p in group["params"]}
        self._layers = [
            module
            for module in net.modules()
            if callable(getattr(module, "product", None)) and module.weight in group_of
        ]
        for layer in self._layers:
            group = group_of[layer.weight]  # type: ignore[index]
            layer.product = _in_place(group)  # type: ignore[assignment]
        self._hooks = [
            p.register_post_accumulate_grad_hook(_stepping(group)) for p, group in group_of.items()
        ]

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Nothing is left to do."""

    def close(self) -> None:
        """Leave the network as it was."""
        for layer in self._layers:
            del layer.product
        for hook in self._hooks:
            hook.remove()


def _in_place(group: Mapping[str, Any]) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
    def product(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if not torch.is_grad_enabled():
            return F.linear(input, weight, bias)
        return _Product.apply(input, weight, bias, group)  # type: ignore[return-value]

    return product


def _stepping(group: Mapping[str, Any]) -> Callable[[Tensor], None]:
    @torch.no_grad()
    def step(parameter: Tensor) -> None:
        if parameter.grad is None:  # of a layer whose weight has taken its step
            return
        parameter.add_(parameter.grad, alpha=-group["lr"])
        parameter.grad = None

    return step


class _Product(torch.autograd.Function):
    """x W^T + b; the backward pass takes W's step of plain SGD."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, group: Mapping[str, Any]
    ) -> Tensor:
        """(B, in) to (B, out)."""
        ctx.save_for_backward(x)
        ctx.weight, ctx.group = weight, group
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple:
        """First the input's gradient, then the step."""
        (x,), (grad,) = ctx.saved_tensors, grads
        below = grad @ ctx.weight if ctx.needs_input_grad[0] else None
        ctx.weight.detach().addmm_(grad.t(), x, alpha=-ctx.group["lr"])
        return below, None, grad.sum(0) if ctx.needs_input_grad[2] else None, None
