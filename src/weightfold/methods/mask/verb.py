"""`wf.mask`."""

import difflib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from weightfold.core.arguments import check_choices, unwrapped
from weightfold.core.charted import Charted, short_name
from weightfold.core.select import select_tensors
from weightfold.methods.mask.chart import Live, Mask


def mask(net: nn.Module, masks: Mapping[str, Tensor], *, live: bool = False) -> Charted:
    """Multiply tensors by fixed masks: theta = m * psi.

    >>> import torch, weightfold as wf
    >>> model = torch.nn.Linear(3, 2)
    >>> net = wf.mask(model, {"weight": torch.tensor([[1, 0, 0], [0, 1, 1]])}, live=True)
    >>> [tuple(p.shape) for p in net.parameters()]  # the bias, and three weights
    [(2,), (3,)]
    >>> net.deploy().weight.count_nonzero().item()
    3

    Args:
        net: A module or a Charted net; left unchanged.
        masks: Tensor name (full, or without the levels of Charted) -> mask of 0 and 1.
        live: Keep the live weights only, as one vector: dead ones then have no optimizer state, no
            decay and no place in a file. Otherwise every tensor keeps a coordinate of its name and
            shape, which charts above can be put on (`wf.expand` of a masked layer).

    Raises:
        TypeError: `net` is no module, or `masks` is no mapping of tensors.
        ValueError: A name is no trainable tensor, or a mask has another shape or other values.
    """
    net = unwrapped(net)
    check_choices({"live": live}, {"live": (True, False)})
    if not isinstance(masks, Mapping) or not masks:
        raise TypeError(f"masks={masks!r:.60}; give tensor name -> mask, a tensor")
    for name, m in masks.items():
        if not isinstance(m, Tensor) or m.is_meta or m.layout is not torch.strided:
            raise TypeError(f"masks[{name!r}]={m!r:.60}; give a tensor with its values")
    trainable = {n: p for n, p in net.named_parameters() if p.requires_grad}
    names = {short_name(net, n): n for n in trainable} | {n: n for n in trainable}
    for name in masks:
        if name not in names:
            near = difflib.get_close_matches(str(name), names, n=3) or list(names)[:8]
            raise ValueError(
                f"masks has {name!r}, no trainable tensor; there are {', '.join(near)}"
            )
    given = {names[name]: m for name, m in masks.items()}
    tensors = select_tensors(net, list(given))
    for name, m in given.items():
        if m.shape != tensors[name].shape:
            raise ValueError(
                f"masks[{name!r}] has shape {tuple(m.shape)}, "
                f"the tensor has {tuple(tensors[name].shape)}"
            )
        if not ((m == 0) | (m == 1)).all():
            raise ValueError(f"masks[{name!r}] has values other than 0 and 1")
    chart = Live if live else Mask
    return Charted(net, [chart(tensors, {n: m.to(torch.bool) for n, m in given.items()})])
