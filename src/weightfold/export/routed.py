"""A SharedNet in eval mode as one plain graph of images and their domains, for export."""

import copy
import json
from typing import Any

import torch
from torch import Tensor, nn

from weightfold.core.charted import Charted
from weightfold.core.slots import replace_module
from weightfold.export.layers import (
    PaddedHead,
    Padding,
    Route,
    RoutedNorm,
    Segments,
    SplitConv,
    layer_of,
    parts,
)
from weightfold.export.subject import (
    ExportError,
    Run,
    Subject,
    frozen,
    plain_subject,
    probe,
    relative_difference,
    traceable,
)
from weightfold.folding import foldable, fuse
from weightfold.methods.share.chart import Sharing
from weightfold.methods.share.layout import filled
from weightfold.methods.share.net import SharedNet

BATCHES = (1, 2, 7)
"""Sizes of the batches, of one domain and mixed, on which a file is compared with the net."""

LARGEST_BATCH = 2**20
"""torch.export wants a bound for sizes that add up."""


class RoutedNet(nn.Module):
    """`forward(images, domain)`: (B, C, H, W) and int64 ids (B,) to logits (B, most classes).

    Images are sorted by domain; shared filters run once for all, each domain's own filters and
    classifier on its images, and what comes out is put back in order. The sizes of the parts are
    data, so one graph serves any mixture, at the cost of one backbone. Logits of classes that an
    image's domain lacks are -inf. Always in eval mode: batch norm that follows a convolution of
    own filters is folded into it, any other is one scale and one shift a domain and channel.

    Args:
        net: Left unchanged; its tensors are copied to the CPU.

    Raises:
        ValueError: A batch norm has no running statistics.
    """

    absent: Tensor

    def __init__(self, net: SharedNet) -> None:
        super().__init__()
        sharing = copy.deepcopy(net.sharing).cpu().requires_grad_(False)
        self.model = copy.deepcopy(net.model).cpu().eval()
        self.route = Route()
        layers = {path: _domain_layers(sharing, path) for path in sharing.layout.names}
        whole = {p for p, mask in sharing.layout.own.items() if all(mask)}
        for before, norm in _foldable(net.deploy(domain=net.domains[0])):
            if before in whole and norm in layers:
                pairs = zip(layers[before], layers[norm], strict=True)
                layers[before] = [fuse(*pair) for pair in pairs]
                layers[norm] = [nn.Identity()]
        for path, candidates in layers.items():
            replace_module(self.model, path, _routed(sharing, path, candidates, self.route))
        counts = torch.tensor(list(sharing.classes.values()))
        self.register_buffer("absent", torch.arange(int(counts.max())) >= counts[:, None])
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor, domain: Tensor) -> Tensor:
        """Logits (B, most classes) of images of any mixture of domains."""
        order = domain.argsort()
        ids = domain.index_select(0, order)
        if len(self.absent) == 1:  # all images, in a number that is known
            places = [torch.arange(images.shape[0], device=images.device)]
        else:
            places = [(ids == index).nonzero().flatten() for index in range(len(self.absent))]
            torch._check(sum(place.shape[0] for place in places) == images.shape[0])
        self.route.ids, self.route.places = ids, places
        logits = self.model(images.index_select(0, order)).index_select(0, order.argsort())
        del self.route.ids, self.route.places
        return logits.masked_fill(self.absent.index_select(0, domain), -torch.inf)


def lowered(net: nn.Module) -> SharedNet:
    """The SharedNet below the charts stacked on it, with what they compute filled in.

    Raises:
        TypeError: There is none.
    """
    below: Any = net
    while isinstance(below, Charted) and not isinstance(below, SharedNet):
        below = below.lower(below.default_context())
    if not isinstance(below, SharedNet):
        raise TypeError(
            f"net is {type(net).__name__}, not a SharedNet (wf.share) or charts on one; "
            "weightfold.export takes plain networks"
        )
    return below


def subject_of(net: nn.Module, example_input: Tensor, *, dynamic_batch: bool = True) -> Subject:
    """A plain network, a Charted one deployed, or a SharedNet (or charts on one) as one graph.

    Args:
        net: Left unchanged.
        example_input: Floating point (B, ...).
        dynamic_batch: Any batch size; else only B. A SharedNet takes any.

    Raises:
        TypeError: `example_input` or the network's output is not one floating-point tensor.
        ValueError: The network does not take the shape of `example_input`, or a SharedNet has a
            batch norm without running statistics.
    """
    below = net
    while isinstance(below, Charted) and not isinstance(below, SharedNet):
        below = below.model
    if not isinstance(below, SharedNet):
        plain = net.deploy(net.default_context()) if isinstance(net, Charted) else net
        return plain_subject(plain, example_input, dynamic_batch=dynamic_batch)
    shared: Any = frozen(lowered(net))
    images = traceable(shared.deploy(domain=shared.domains[0]), example_input)
    if len(shared.domains) > 1 and not shared.separation(images).together:
        raise ExportError(
            f"{type(shared.model).__name__} does not keep the images of a batch, or the classes of "
            "several domains, apart, so that no one graph holds all domains; export each one, "
            "net.deploy(domain=...)"
        )
    batch = torch.export.Dim("batch", max=LARGEST_BATCH)
    return Subject(
        RoutedNet(shared),
        type(shared).__name__,
        {"images": images, "domain": torch.arange(len(images)) % len(shared.domains)},
        ({0: batch}, {0: batch}),
        lambda run: _differences(run, shared, example_input),
        metadata(shared),
    )


def metadata(net: SharedNet) -> dict[str, str]:
    """What a file says of its domains, as JSON texts."""
    values = {"domains": net.domains, "classes": list(net.classes.values()), "about": net.about}
    return {name: json.dumps(value) for name, value in values.items()}


@torch.no_grad()
def _differences(run: Run, net: SharedNet, example_input: Tensor) -> dict[Any, float]:
    """Per domain, the largest difference of its images over the net's largest logit."""
    count = len(net.domains)
    worst = dict.fromkeys(net.domains, 0.0)
    for size in BATCHES:
        images = probe(example_input, size)
        for first in range(count):
            for ids in (torch.full((size,), first), (first + torch.arange(size)) % count):
                found, right = run(images, ids), net(images, domain=ids)
                # Of one domain the net gives that domain's classes only.
                missing = (0, found.shape[1] - right.shape[1])
                right = nn.functional.pad(right, missing, value=-torch.inf)
                for index in ids.unique().tolist():
                    name = net.domains[index]
                    difference = relative_difference(found[ids == index], right[ids == index])
                    worst[name] = max(worst[name], difference)
    return worst


def _foldable(plain: nn.Module) -> list[tuple[str, str]]:
    """As `foldable`; none where torch.fx cannot see which batch norm follows which convolution."""
    try:
        return foldable(plain)
    except ValueError:
        return []


def _domain_layers(sharing: Sharing, path: str) -> list[Any]:
    """What runs at `path`, for each domain.

    Raises:
        ValueError: It is a batch norm without running statistics.
    """
    layers: list[Any] = [layer_of(sharing, path, domain) for domain in sharing.classes]
    if path in sharing.layout.norms and layers[0].running_mean is None:
        raise ValueError(
            f"batch norm {path!r} keeps no running statistics, so that what an image gets depends "
            "on the rest of its batch; make it with track_running_stats=True"
        )
    return layers


def _routed(sharing: Sharing, path: str, layers: list[Any], route: Route) -> nn.Module:
    """One layer for all domains, from what runs at `path` for each."""
    outline: Any = sharing.layout.skeletons[path]
    if getattr(outline, "padding_mode", "zeros") == "zeros" or sharing.layout.runs_itself(path):
        return _of_domains(sharing, path, layers, route)
    # Before the images are divided: runtimes do not pad parts without images.
    padding = Padding(outline._reversed_padding_repeated_twice, outline.padding_mode)
    routed = _of_domains(sharing, path, layers, route)
    for module in routed.modules():
        if getattr(module, "padding_mode", "zeros") != "zeros":
            module.padding_mode, module.padding = "zeros", (0,) * len(outline.padding)  # type: ignore[assignment]
    return nn.Sequential(padding, routed)


def _of_domains(sharing: Sharing, path: str, layers: list[Any], route: Route) -> nn.Module:
    layout = sharing.layout
    if len(layers) == 1 and isinstance(layers[0], nn.Identity):
        return layers[0]
    if layout.runs_itself(path) and path != layout.head:
        return Segments(layers, route)
    if path in layout.norms:
        return RoutedNorm(layers, route)
    if path == layout.head:
        most = max(sharing.classes.values())
        if layout.shared_head:
            return filled(
                layout.skeletons[path], parts(sharing, path, next(iter(sharing.classes)))[0]
            )
        missing = [most - count for count in sharing.classes.values()]
        heads = zip(layers, missing, strict=True)
        return Segments([PaddedHead(*head) for head in heads], route)
    outline: Any = layout.skeletons[path]
    shared = parts(sharing, path, next(iter(sharing.classes)))[0]
    if not shared or outline.groups > 1:
        return Segments(layers, route)
    own = [filled(outline, parts(sharing, path, domain)[1]) for domain in sharing.classes]
    return SplitConv(filled(outline, shared), Segments(own, route), layout.own[path])
