"""The optimizer that a recipe asks for."""

from collections.abc import Iterable

import torch
from torch import Tensor

from weightfold.train.recipe import Recipe


def make_optimizer(
    tensors: Iterable[Tensor], recipe: Recipe, weight_decay: float
) -> torch.optim.Optimizer:
    """The recipe's optimizer of those tensors that require a gradient."""
    parameters = [p for p in tensors if p.requires_grad]
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=recipe.lr, weight_decay=weight_decay)
    return torch.optim.SGD(
        parameters,
        lr=recipe.lr,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        weight_decay=weight_decay,
    )
