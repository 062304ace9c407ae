"""What a training step minimises: cross-entropy, distillation, and decay on theta."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weightfold.core.chart import Chart
from weightfold.core.charted import Charted
from weightfold.train.recipe import Distillation, Recipe


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


class Penalty(nn.Module):
    """weight_decay / 2 times a squared norm over all trainable parameters of the deployed network.

    On a plain module these are its parameters; on a Charted net the tensors that charts compute,
    folded once more for this, and the parameters no chart computes.

    Args:
        net: Whose tensors are read when the penalty is called; not part of this module.
        recipe: `decay_on` "theta" is |theta|^2, "theta-theta0" is |theta - theta0|^2 with theta0
            the weights of `net` now.

    Raises:
        ValueError: A plain module that holds a Charted net, whose theta has no single name space.
    """

    def __init__(self, net: nn.Module, recipe: Recipe) -> None:
        super().__init__()
        if not isinstance(net, Charted) and any(isinstance(m, Chart) for m in net.modules()):
            raise ValueError(
                f"decay_on={recipe.decay_on!r} needs a plain module or a Charted net, but was "
                f"given a {type(net).__name__} that holds one; chart the whole model, or use "
                "decay_on='psi'"
            )
        self._net, self._factor = (net,), recipe.weight_decay / 2
        psi = {id(p) for m in net.modules() if isinstance(m, Chart) for p in m.parameters()}
        self._plain = [n for n, p in net.named_parameters() if p.requires_grad and id(p) not in psi]
        self._charted: set[str] = set()
        if isinstance(net, Charted):
            deployed = net.deploy(net.default_context()).named_parameters()
            self._charted = {name for name, p in deployed if p.requires_grad}
        self._origins = 0
        if recipe.decay_on == "theta-theta0":
            for tensor in self._theta():
                self.register_buffer(f"origin{self._origins}", tensor.detach().clone())
                self._origins += 1

    def _theta(self) -> list[Tensor]:
        net = self._net[0]
        parameters = dict(net.named_parameters())
        theta = net.theta() if isinstance(net, Charted) else {}
        folded = [t for name, t in theta.items() if name in self._charted]
        return folded + [parameters[name] for name in self._plain]

    def forward(self) -> Tensor:
        """The penalty, a scalar."""
        theta = self._theta()
        if self._origins:
            theta = [t - getattr(self, f"origin{i}") for i, t in enumerate(theta)]
        return self._factor * torch.stack([t.square().sum() for t in theta]).sum()
