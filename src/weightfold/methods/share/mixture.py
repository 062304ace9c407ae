"""Which domain each image of a batch belongs to, and the order in which the images run."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Mixture:
    """A batch of several domains, each with its images.

    With equal counts the domains are interleaved: image i is of domain i mod K, so that (B, C, ...)
    is, in place, (B / K, K * C, ...), on which one grouped convolution or one batch norm serves all
    domains. With unequal counts the domains follow one another.

    Two mixtures of the same domains in the same order are equal: they run on the same tensors.

    Attributes:
        domains: Names, each once.
        counts: Images of each, at least 1.
    """

    domains: tuple[str, ...]
    counts: tuple[int, ...] = field(compare=False)

    @property
    def equal(self) -> bool:
        """Whether all domains have equally many images, and so are interleaved."""
        return len(set(self.counts)) == 1

    def check(self, x: Tensor) -> None:
        """Refuse what are not the images of this mixture, in its order.

        Raises:
            ValueError: They are of another number.
        """
        if len(x) != sum(self.counts):
            raise ValueError(
                f"a layer that domains own gets {len(x)} rows of the {sum(self.counts)} images of "
                "a mixture, whose domains are then not known; run one domain a call"
            )

    def join(self, batches: Sequence[Tensor]) -> Tensor:
        """One tensor (B, ...) of a batch per domain, in the order this mixture runs in."""
        if len(batches) == 1:
            return batches[0]
        return torch.stack(list(batches), 1).flatten(0, 1) if self.equal else torch.cat([*batches])

    def part(self, x: Tensor) -> list[Tensor]:
        """Inverse of `join`: the rows of each domain, as views."""
        if self.equal:
            return list(x.unflatten(0, (-1, len(self.domains))).unbind(1))
        return list(x.split(list(self.counts)))

    @classmethod
    def arrange(cls, names: Sequence[str], *, level: bool = False) -> tuple["Mixture", Tensor]:
        """The mixture of images that belong to `names`, one each.

        Args:
            names: The domain of every image.
            level: Repeat images so that all counts are equal, if that is at most half as many more.

        Returns:
            The mixture, domains in the order of their names, and int64: the position among
            `names` of each image in the order it runs in.
        """
        places: dict[str, list[int]] = {name: [] for name in sorted(set(names))}
        for position, name in enumerate(names):
            places[name].append(position)
        most = max(map(len, places.values()))
        if level and most * len(places) <= 1.5 * len(names):
            places = {n: [p[i % len(p)] for i in range(most)] for n, p in places.items()}
        mixture = cls(tuple(places), tuple(map(len, places.values())))
        return mixture, mixture.join([torch.tensor(p, device="cpu") for p in places.values()])
