"""Beta-lasso: plain training that finds sparse, local weights by itself (Neyshabur 2020)."""

from typing import Any

import torch

from weightfold.train.callbacks import Callback
from weightfold.train.context import Context

BETA = 50.0
"""As in the paper (arXiv:2007.13657)."""


class BetaLasso(Callback):
    """After each step w - lr lambda sign(w), and zero where |w| is below beta lambda.

    Of weights, not of biases.

    Args:
        strength: lambda.
    """

    def __init__(self, strength: float) -> None:
        super().__init__()
        self._strength, self._handle = strength, None

    def on_start(self, context: Context) -> None:
        """Follow the optimizer's steps."""
        optimizer: Any = context.strategy.optimizer
        self._handle = optimizer.register_step_post_hook(self._shrink)

    @torch.no_grad()
    def _shrink(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.dim() > 1:
                    parameter.sub_(parameter.sign(), alpha=group["lr"] * self._strength)
                    parameter.mul_(parameter.abs() >= BETA * self._strength)

    def on_end(self, context: Context) -> None:
        """Follow them no more."""
        if self._handle is not None:
            self._handle.remove()
