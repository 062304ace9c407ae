"""The loss of several domains, and what each of them reaches."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from weightfold.methods.share.net import SharedNet
from weightfold.train.objective import sample_losses
from weightfold.train.steps import count


class Terms(NamedTuple):
    """What a forward over several domains gives."""

    losses: dict[str, Tensor]
    """Domain -> its weighted term of the loss, a scalar."""
    counts: dict[str, Tensor]
    """Domain -> (3,): summed cross-entropy, misclassified, images."""


class Objective(nn.Module):
    """A net with the weights of its domains' losses, so that one forward holds all that is trained.

    Args:
        net: Takes domain -> images and gives domain -> logits.
        weights: Domain -> factor of its loss; None: learned (see `Joint.loss_weights`).
        domains: All names.
        label_smoothing: Of the cross-entropy.
    """

    def __init__(
        self,
        net: nn.Module,
        weights: Mapping[str, float] | None,
        domains: tuple[str, ...],
        label_smoothing: float,
    ) -> None:
        super().__init__()
        self.net, self._weights, self._label_smoothing = net, weights, label_smoothing
        learned = [nn.Parameter(torch.zeros(())) for _ in domains if weights is None]
        self.log_variances = nn.ParameterList(learned)
        self._place = {name: place for place, name in enumerate(domains)}

    def forward(
        self,
        images: dict[str, Tensor],
        labels: dict[str, Tensor] | None = None,
        shares: dict[str, float] | None = None,
    ) -> dict[str, Tensor] | Terms:
        """Logits by domain or, with labels, the loss.

        Args:
            images: Domain -> float (B, C, H, W).
            labels: Domain -> int64 (B,).
            shares: Domain -> factor of its images' summed loss; with `labels`.
        """
        logits = self.net(images)
        if labels is None or shares is None:
            return logits
        terms = Terms({}, {})
        for name, given in logits.items():
            losses = sample_losses(
                given.float(), labels[name], label_smoothing=self._label_smoothing
            )
            terms.losses[name] = self._weighted(name, losses.sum() * shares[name])
            terms.counts[name] = count(losses, given, labels[name])
        return terms

    def weights(self) -> dict[str, float]:
        """Domain -> factor of its loss, now."""
        if self._weights is not None:
            return dict(self._weights)
        return {
            name: (-self.log_variances[place].detach()).exp().item()
            for name, place in self._place.items()
        }

    def _weighted(self, name: str, loss: Tensor) -> Tensor:
        if self._weights is not None:
            return self._weights[name] * loss
        s = self.log_variances[self._place[name]]
        return torch.exp(-s) * loss + s / 2


def shared_net(net: nn.Module) -> SharedNet:
    """The SharedNet that `net` is, or that lies under its charts.

    Raises:
        TypeError: There is none.
    """
    for module in net.modules():
        if isinstance(module, SharedNet):
            return module
    raise TypeError(
        f"net is a {type(net).__name__} without domains; give a SharedNet, from wf.share, or a "
        "Charted net over one"
    )


def classifiers(net: nn.Module) -> list[nn.Parameter]:
    """The parameters of the domains' classifiers.

    Raises:
        ValueError: A chart computes a classifier, so that it has no parameters of its own.
    """
    sharing = shared_net(net).sharing
    owners = [sharing.shared] if sharing.layout.shared_head else sharing.domains.values()
    found = [list(owner.get_submodule(sharing.layout.head).parameters()) for owner in owners]
    if not all(found):
        raise ValueError(
            "head_epochs needs classifiers that no chart computes; give head_epochs=0, or chart "
            "the net after they are trained"
        )
    return [parameter for owner in found for parameter in owner]


@contextmanager
def only(net: nn.Module, trained: list[nn.Parameter]) -> Iterator[None]:
    """Inside, no parameter of `net` but those requires a gradient."""
    chosen = {id(p) for p in trained}
    frozen = [p for p in net.parameters() if p.requires_grad and id(p) not in chosen]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_()


def shared_parameters(
    net: nn.Module, shapes: Mapping[str, tuple[int, int, int]]
) -> list[nn.Parameter]:
    """The parameters that more than one domain's outputs depend on.

    Args:
        net: In any mode; no buffer changes.
        shapes: Domain -> (C, H, W) of its images.
    """
    training = net.training
    net.eval()
    parameters = [p for p in net.parameters() if p.requires_grad]
    reached = torch.zeros(len(parameters), dtype=torch.int64)
    with torch.enable_grad():
        for name, shape in shapes.items():
            x = torch.zeros(1, *shape, device=parameters[0].device)
            gradients = torch.autograd.grad(
                net({name: x})[name].sum(), parameters, allow_unused=True
            )
            reached += torch.tensor([gradient is not None for gradient in gradients])
    net.train(training)
    return [p for p, domains in zip(parameters, reached.tolist(), strict=True) if domains > 1]
