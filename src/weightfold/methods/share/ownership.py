"""What each domain owns of a network, and what its tensors are."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from weightfold.methods.share.layers import Layer
from weightfold.trace import TensorSize


@dataclass(frozen=True, repr=False)
class Ownership:
    """Filters, batch norms and classifier that every domain owns; all own the same.

    Attributes:
        layers: Every convolution that runs, the classifier apart, in execution order.
        own: Path of a convolution -> True for each of its filters that a domain owns; only layers
            with such a filter, in execution order.
        norms: Paths of the batch norms each domain owns, affine and running statistics.
        classifier: The layer that gives the classes.
        shared_head: All domains use one classifier.
        other_macs: Multiply-adds for one image outside convolutions and classifier.
        tensors: Name -> size of every tensor the model keeps.
    """

    layers: tuple[Layer, ...]
    own: Mapping[str, tuple[bool, ...]]
    norms: tuple[str, ...]
    classifier: Layer
    shared_head: bool
    other_macs: int
    tensors: Mapping[str, TensorSize]

    @property
    def head(self) -> str:
        """Path of the classifier."""
        return self.classifier.path

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the names and shapes of the model's tensors, the number of classes left out."""
        sizes = sorted((name, self.shape_of(name, size)) for name, size in self.tensors.items())
        return hashlib.sha256(json.dumps(sizes).encode()).hexdigest()

    @property
    def filters(self) -> int:
        """Number of filters a domain owns."""
        return sum(map(sum, self.own.values()))

    @property
    def weights_share(self) -> float:
        """Own share of the convolutions' weights and biases (E / C), 0 to 1."""
        return self._own_sum("weights_per_filter") / sum(layer.weights for layer in self.layers)

    @property
    def macs_share(self) -> float:
        """Own share of the convolutions' multiply-adds, 0 to 1."""
        return self._own_sum("macs_per_filter") / sum(layer.macs for layer in self.layers)

    def _own_sum(self, attribute: str) -> int:
        return sum(
            sum(self.own.get(layer.path, ())) * getattr(layer, attribute) for layer in self.layers
        )

    def shape_of(self, name: str, size: TensorSize) -> tuple[int, ...]:
        """Shape without the classes."""
        return size.shape[1:] if name.rpartition(".")[0] == self.head else size.shape
