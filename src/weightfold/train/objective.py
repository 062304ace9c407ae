"""What a training step minimises: cross-entropy, distillation, and decay on theta."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weightfold.core.chart import Chart
from weightfold.core.charted import Charted
from weightfold.train.recipe import Distillation


def sample_losses(
    logits: Tensor,
    labels: Tensor,
    *,
    label_smoothing: float = 0.0,
    teacher_logits: Tensor | None = None,
    distillation: Distillation | None = None,
) -> Tensor:
    """The loss of each image, with a teacher's term if there is one.

    Args:
        logits: (B, classes).
        labels: (B,) int64.
        label_smoothing: Of the cross-entropy.
        teacher_logits: (B, classes), without gradient; given together with `distillation`.
        distillation: Temperature and weight.

    Returns:
        (B,) losses, in the dtype of `logits`.
    """
    hard = F.cross_entropy(logits, labels, reduction="none", label_smoothing=label_smoothing)
    if teacher_logits is None or distillation is None:
        return hard
    t = distillation.temperature
    soft = F.kl_div(
        F.log_softmax(logits / t, dim=1),
        F.log_softmax(teacher_logits / t, dim=1),
        log_target=True,
        reduction="none",
    ).sum(dim=1)
    return (1 - distillation.weight) * hard + distillation.weight * t**2 * soft


def squared_norm(net: nn.Module) -> Callable[[], Tensor]:
    """A function that gives |theta|^2 over all trainable parameters of the deployed network.

    On a plain module theta is its parameters; on a Charted net the tensors that charts compute,
    folded once more for this, and the parameters no chart computes.

    Raises:
        ValueError: A plain module that holds a Charted net, whose theta has no single name space.
    """
    if not isinstance(net, Charted):
        if any(isinstance(module, Chart) for module in net.modules()):
            raise ValueError(
                "decay_on='theta' needs a plain module or a Charted net, but was given a "
                f"{type(net).__name__} that holds one; chart the whole model, or use decay_on='psi'"
            )
        return lambda: _sum_of_squares([p for p in net.parameters() if p.requires_grad])
    psi = {id(p) for m in net.modules() if isinstance(m, Chart) for p in m.parameters()}
    plain = [p for p in net.parameters() if p.requires_grad and id(p) not in psi]
    theta = net.theta
    deployed = {name for name, p in net.deploy().named_parameters() if p.requires_grad}

    def norm() -> Tensor:
        folded = [t for name, t in theta().items() if name in deployed]
        return _sum_of_squares(folded + plain)

    return norm


def _sum_of_squares(tensors: list[Tensor]) -> Tensor:
    return torch.stack([t.square().sum() for t in tensors]).sum()
