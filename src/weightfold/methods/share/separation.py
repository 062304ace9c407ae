"""Whether one forward may hold images of several domains: seen by running the network, not assumed.

What lies between the layers of a network may change the batch (frames of a video, crops, views) or
let classes meet (a softmax behind the classifier). Where images keep their rows and classes their
columns, a mixture runs in one forward; else domain by domain, as each would alone.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from weightfold.core.charted import Charted
from weightfold.core.precision import full_precision
from weightfold.methods.share.chart import Sharing
from weightfold.methods.share.executors import DomainLayer
from weightfold.methods.share.mixture import Mixture
from weightfold.methods.share.outputs import tensors_of

IMAGES = 4
"""Of two domains in turn; the second image is poisoned."""


@dataclass(frozen=True)
class Separation:
    """What a network does to the rows and columns of a batch.

    Attributes:
        together: Several domains may run in one forward.
        class_axes: For each tensor it returns, the axis of the classes; None: it has none. Empty
            if all domains have equally many.
    """

    together: bool
    class_axes: tuple[int | None, ...] = ()


APART = Separation(together=False)


class Mixed(Exception):
    """Rows or columns of a batch depend on others."""


@dataclass(frozen=True)
class Poisoned(Mixture):
    """A mixture whose second image is NaN, and nothing that does not depend on it.

    Attributes:
        spreads: Whether the poison may reach the other image of the same domain.
    """

    spreads: bool = field(default=False, compare=False)

    def check(self, x: Tensor) -> None:
        """Refuse a batch of another size, in which another is poisoned, or that one is not.

        Raises:
            Mixed: As said.
        """
        if len(x) != IMAGES:
            raise Mixed("the batch grows")
        found = set(_poisoned(x).nonzero().flatten().tolist())
        if 1 not in found or not found <= ({1, 3} if self.spreads else {1}):
            raise Mixed("images do not keep their rows")


def separation(net: Charted, sharing: Sharing, images: Tensor) -> Separation:
    """Run a few images of noise through `net`, and see what depends on what.

    In the modes the layers are in, but for batch norms of the plan, which are in eval mode; others
    (of auxiliary classifiers) let images meet. No buffer changes.

    Args:
        net: With the layers of `sharing`.
        sharing: With at least two domains.
        images: Floating point (B, C, ...); only the shape of an image, dtype and device count.
    """
    if not images.is_floating_point():
        return APART
    here = [name for name in sharing.classes if name in sharing.splits]  # a server has not all
    names = here[0], here[-1]
    classes = min(sharing.classes.values()), max(sharing.classes.values())
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(IMAGES, *images.shape[1:], generator=generator, device="cpu").to(images)
    poisoned = x.clone()
    poisoned[1] = torch.nan
    spreads = not sharing.layout.images_apart
    rows = Poisoned(names, (2, 2), spreads)
    try:
        with torch.no_grad(), _still(net, sharing):
            for tensor in _run(net, sharing, poisoned, rows, classes, 0.0):
                rows.check(tensor)
            if classes[0] == classes[1]:
                return Separation(together=True)
            mixture = Mixture(names, (2, 2))
            clean = _run(net, sharing, x, mixture, classes, 0.0)
            found = _run(net, sharing, x, mixture, classes, torch.nan)
    except Mixed:
        return APART
    axes = [_class_axis(a[::2], b[::2], *classes) for a, b in zip(clean, found, strict=True)]
    known = tuple(axis for axis in axes if axis != 0)
    return Separation(True, known) if len(known) == len(axes) and any(known) else APART


def _class_axis(clean: Tensor, found: Tensor, few: int, most: int) -> int | None:
    """The axis along which absent classes are NaN; 0 if they are anywhere else, None if nowhere."""
    poison = found.isnan()
    if not poison.any():
        return None if torch.equal(clean, found) else 0
    for axis in range(1, found.dim()):
        if found.shape[axis] == most:
            columns = poison.movedim(axis, -1).flatten(0, -2)
            if columns[:, few:].all() and not columns[:, :few].any():
                return axis
    return 0


def _poisoned(x: Tensor) -> Tensor:
    """Whether there is a NaN in each row, bool (B,)."""
    return x.isnan().flatten(1).any(1) if x.dim() > 1 else x.isnan()


def _run(
    net: Charted,
    sharing: Sharing,
    x: Tensor,
    mixture: Mixture,
    classes: tuple[int, int],
    absent: float,
) -> Sequence[Tensor]:
    """The tensors that the network returns.

    Args:
        net: As `separation`.
        sharing: As `separation`.
        x: A batch.
        mixture: Of two domains.
        classes: That the first one is to have, and the second, which has at least as many.
        absent: Weights of the classes that the first one lacks.
    """
    layout, splits = sharing.layout, sharing.splits
    few, most = classes
    with full_precision(sharing):
        tensors = layout.operands([splits[name] for name in mixture.domains], most)
    for name in layout.names[layout.head]:
        shared, own = (f"{layout.head}.{slot}" for slot in layout.slots(layout.head, name))
        if own in tensors:
            tensors[own][0, few:] = absent
        else:
            tensors[shared] = tensors[shared].clone()
            tensors[shared][few:] = absent
    buffers = {name: buffer.clone() for name, buffer in net.model.named_buffers()}
    net._set_context({"domain": mixture})
    try:
        with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
            torch.manual_seed(0)
            outputs = functional_call(net.model, {**buffers, **tensors}, (x,), tie_weights=False)
    finally:
        net._set_context({})
    found = tensors_of(outputs)
    if not all(tensor.dim() for tensor in found):
        raise Mixed("an output has no row for each image")
    return found


@contextmanager
def _still(net: Charted, sharing: Sharing) -> Iterator[None]:
    """Inside, batch norms that domains own, or that the plan lets them share, are in eval mode."""
    shared = None if sharing.plan is None else sharing.plan["choice"]["shared_norms"]
    norms: list[nn.Module] = [
        module
        for path, module in net.model.named_modules()
        if isinstance(module, DomainLayer)
        or (isinstance(module, _BatchNorm) and (shared is None or path in shared))
    ]
    held = [module for module in sharing.modules() if isinstance(module, _BatchNorm)]
    training = [norm for norm in (*norms, *held) if norm.training]
    for norm in training:
        norm.training = False
    try:
        yield
    finally:
        for norm in training:
            norm.training = True
