"""The loss of several domains, and what each of them reaches."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from weightfold.methods.share.net import SharedNet
from weightfold.tasks.task import Task
from weightfold.train.strategies.base import count, mean_scores


class DomainTerms(NamedTuple):
    """What a forward over several domains gives."""

    losses: dict[str, Tensor]
    """Domain -> its weighted term of the loss, a scalar."""
    counts: dict[str, Tensor]
    """Domain -> what `count` gives, of its loss without the weight."""


class Objective(nn.Module):
    """A net with the weights of its domains' losses, so that one forward holds all that is trained.

    Args:
        net: Takes domain -> inputs and gives domain -> outputs.
        weights: Domain -> factor of its loss; None: learned (see `Joint.loss_weights`).
        tasks: All domains', of equal measures.
    """

    def __init__(
        self, net: nn.Module, weights: Mapping[str, float] | None, tasks: Mapping[str, Task]
    ) -> None:
        super().__init__()
        self.net, self._weights, self._tasks = net, weights, dict(tasks)
        learned = [nn.Parameter(torch.zeros(())) for _ in tasks if weights is None]
        self.log_variances = nn.ParameterList(learned)
        self._place = {name: place for place, name in enumerate(tasks)}
        self._scores = mean_scores(next(iter(tasks.values())))

    def forward(
        self,
        inputs: dict[str, Tensor],
        targets: dict[str, Any] | None = None,
        shares: dict[str, float] | None = None,
    ) -> dict[str, Any] | DomainTerms:
        """Outputs by domain or, with targets, the loss.

        Args:
            inputs: Domain -> float (B, ...).
            targets: Domain -> what its task takes.
            shares: Domain -> factor of its examples' summed loss; with `targets`.
        """
        outputs = self.net(inputs)
        if targets is None or shares is None:
            return outputs
        terms = DomainTerms({}, {})
        for name, given in outputs.items():
            found = given.float() if isinstance(given, Tensor) else given
            one = self._tasks[name].objective(
                lambda _, found=found: found, inputs[name], targets[name]
            )
            summed = one.losses.sum() * shares[name] if one.losses.dim() else one.losses
            terms.losses[name] = self._weighted(name, summed)
            terms.counts[name] = count(one, len(targets[name]), self._scores)
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


def shared_parameters(net: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> list[nn.Parameter]:
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
