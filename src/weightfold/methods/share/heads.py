"""The classifiers of a shared network."""

import hashlib

import torch
from torch import nn

from weightfold.core.slots import fill
from weightfold.methods.share.chart import Sharing


@torch.no_grad()
def reset_head(sharing: Sharing, domain: str, seed: int) -> None:
    """Draw a domain's own classifier anew, as torch initialises the layer.

    Args:
        sharing: The chart; one with a shared head, or without memory, is left as it is.
        domain: Whose.
        seed: With the name of the domain, of the weights.
    """
    layout = sharing.layout
    if layout.shared_head or all(p.is_meta for p in sharing.domains[domain].parameters()):
        return
    layer = layout.classifier(sharing.classes[domain])
    own = sharing.domains[domain].get_submodule(layout.head)
    tensors = {name: nn.Parameter(p.cpu().clone()) for name, p in own.named_parameters()}
    fill(layer, {name: (name,) for name in tensors}, tensors)
    mixed = hashlib.blake2b(f"{seed} {domain}".encode(), digest_size=6).digest()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int.from_bytes(mixed))
        layer.reset_parameters()  # type: ignore[operator]
    for name, p in own.named_parameters():
        p.copy_(tensors[name])
