"""Filter-level sharing: each domain owns an exact set of filters and shares the rest.

Zhang, Yang, Liu, Guan: Rethinking hard-parameter sharing in multi-domain learning. This is the
gather alone; planning, training and serving many domains build on it.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from weightfold.core.chart import Chart, Example
from weightfold.core.slots import plant, split_name, tensor_at


class Sharing(Chart):
    """theta of domain d: a gather of shared filters and of d's own; no replaced filter exists.

    Own tensors of different domains are separate Parameters and buffers, so that a step on one
    domain leaves the others bitwise still.

    Args:
        tensors: Name -> start value, shared and own alike.
        own: Tensor name -> True for each filter (first axis) the domains own.
        private: Names of tensors each domain owns whole: batch norm with its statistics, the head.
        domains: Names of the domains.
    """

    kind = "sharing"

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        own: Mapping[str, Sequence[bool]],
        private: Sequence[str],
        domains: Sequence[str],
    ) -> None:
        super().__init__()
        self.own = {name: list(map(bool, mask)) for name, mask in own.items()}
        self.private = list(private)
        self.constants = tuple(f"{split_name(name)[1]}_order" for name in own)  # type: ignore[misc]
        self.shared, self.domains = nn.Module(), nn.ModuleDict({d: nn.Module() for d in domains})
        for name, mask in self.own.items():
            value, learnt = tensors[name].detach(), tensors[name].requires_grad
            chosen = torch.tensor(mask, device=value.device)
            plant(self.shared, name, nn.Parameter(value[~chosen], learnt))
            order = torch.cat([(~chosen).nonzero(), chosen.nonzero()]).flatten().argsort()
            plant(self.shared, f"{name}_order", order)
            for domain in self.domains.values():
                plant(domain, name, nn.Parameter(value[chosen], learnt))
        for name in self.private:
            for domain in self.domains.values():
                plant(domain, name, copy.deepcopy(tensors[name]))

    def forward(self, *, domain: str | None = None, **at: Any) -> dict[str, Tensor]:
        """The weights of one domain."""
        if domain is None or domain not in self.domains:
            raise KeyError(f"at['domain']={domain!r}; the domains are {list(self.domains)}")
        mine = self.domains[domain]
        theta: dict[str, Tensor] = {}
        for name in self.own:
            order = tensor_at(self.shared, f"{name}_order")
            filters = torch.cat([tensor_at(self.shared, name), tensor_at(mine, name)])
            theta[name] = filters[order]
        return theta | {name: tensor_at(mine, name) for name in self.private}

    def somewhere(self) -> dict[str, Any]:
        """The first domain."""
        return {"domain": next(iter(self.domains))}

    @torch.no_grad()
    def fit(self, theta: Mapping[str, Tensor]) -> dict[str, float]:
        """Every domain takes theta over; exact."""
        for name, mask in self.own.items():
            chosen = torch.tensor(mask, device=theta[name].device)
            self.shared.get_parameter(name).copy_(theta[name][~chosen])
            for domain in self.domains.values():
                domain.get_parameter(name).copy_(theta[name][chosen])
        for domain in self.domains.values():
            domain.load_state_dict({n: theta[n] for n in self.private}, strict=False)
        return self.residuals(theta, **self.somewhere())

    def config(self) -> dict[str, Any]:
        """Masks, private names, domains."""
        return {"own": self.own, "private": self.private, "domains": list(self.domains)}

    @classmethod
    def build(cls, net: nn.Module, **config: Any) -> Self:
        """All domains start from the weights of `net`."""
        tensors = {**dict(net.named_parameters()), **dict(net.named_buffers())}
        return cls(tensors, **config)

    @classmethod
    def example(cls) -> Example:
        """Two domains that own two of four filters, the batch norm and the classifier."""
        model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 3))
        own = {"0.weight": [True, False, False, True]}
        private = [f"1.{n}" for n, _ in model[1].state_dict().items()] + ["3.weight", "3.bias"]
        chart = cls.build(model, own=own, private=private, domains=["birds", "cars"])
        return Example(model, chart, torch.randn(3, 2, 6, 6), {"domain": "cars"}, fits=True)
