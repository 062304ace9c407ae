"""wf.share: many domains in one backbone."""

from collections.abc import Mapping

import torch
from torch import nn

from weightfold.core.arguments import check_memory, checked_seed, unwrapped
from weightfold.core.charted import Charted
from weightfold.core.preprocessing import Preprocessing
from weightfold.core.slots import Slots
from weightfold.methods.share.chart import Sharing
from weightfold.methods.share.heads import reset_head
from weightfold.methods.share.names import check_classes, check_names
from weightfold.methods.share.net import SharedNet
from weightfold.methods.share.plan import Plan


def share(
    net: nn.Module,
    domains: Mapping[str, int],
    plan: Plan,
    *,
    seed: int = 0,
) -> SharedNet:
    """Let several domains share the filters of one backbone (Zhang et al., section 3).

    Every domain starts from the weights of `net` (ImageNet's, say) and owns the filters that
    `plan` says, its batch norm and a classifier; all else is shared.

    >>> import torch, weightfold as wf
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(32, 5))
    >>> x = torch.randn(2, 3, 4, 4)
    >>> plan = wf.plan_sharing(model, "bottom", 0.5, example_input=x)
    >>> net = wf.share(model, {"birds": 4, "cars": 2}, plan)
    >>> net(x, domain="birds").shape, net(x, domain="cars").shape
    (torch.Size([2, 4]), torch.Size([2, 2]))
    >>> type(net.deploy(domain="cars")).__name__
    'Sequential'

    Args:
        net: A plain convolutional network; left unchanged.
        domains: Name -> number of classes.
        plan: From `wf.plan_sharing(net, ...)`.
        seed: Of the classifiers, which start as torch initialises them, for each domain anew.

    Returns:
        The net. `net(x, domain="birds")`; see `SharedNet`.

    Raises:
        TypeError: `net` is a Charted net or no module, or an argument is of another type.
        ValueError: No domain, a name twice or not of letters, digits, "-" and "_", classes below
            1, a plan made for another model; or a layer that domains own is tied to another, has
            weights that are not finite, or a function put on it that holds a module.
        MemoryError: The domains take more memory than there is.
    """
    net = unwrapped(net)
    if isinstance(net, Charted):
        raise TypeError(
            "net is a Charted net; share the plain network, and chart the shared one, "
            "e.g. wf.expand(net, where='domains.cars.*')"
        )
    if not isinstance(domains, Mapping):
        raise TypeError(f"domains={domains!r}; give name -> number of classes")
    if not isinstance(plan, Plan):
        raise TypeError(f"plan={plan!r:.60}; give what wf.plan_sharing returns")
    seed = checked_seed(seed)
    if not domains:
        raise ValueError("domains is empty; give at least one, name -> number of classes")
    check_names(list(domains))
    domains = check_classes(domains)
    plan.check(net)
    _check_size(plan, domains)
    paths = (*plan.own, *plan.norms, plan.head)
    layers = {path: net.get_submodule(path) for path in paths}
    _check_untied(net, layers)
    _check_finite(layers)
    rows = max(domains.values()) if plan.shared_head else 0
    made = plan.to_json()
    fed = Preprocessing.of(net)
    told = {} if fed is None else fed.without_classes().record()
    about = {name: told for name in domains if told}
    chart = Sharing(layers, plan.own, plan.norms, plan.head, domains, rows, about, plan=made)
    for domain in domains:
        reset_head(chart, domain, seed)
    with torch.no_grad():
        shared = SharedNet(net, [chart])
    Preprocessing.detach(shared)  # of each domain it stands in `about`
    return shared


def _check_untied(model: nn.Module, layers: Mapping[str, nn.Module]) -> None:
    """Refuse layers whose tensors other layers use, too: those would go on without them."""
    slots = Slots.of(model)
    for path, layer in layers.items():
        for name in layer.state_dict():
            places = slots.places[slots.canonical[f"{path}.{name}"]]
            if len(places) > 1:
                raise ValueError(
                    f"{' and '.join(map(repr, places))} are one tied tensor, which domains cannot "
                    "own; plan with masks or shared_norms that leave it out, or untie it"
                )


def _check_size(plan: Plan, domains: Mapping[str, int]) -> None:
    """Refuse domains that this machine cannot hold, before anything is allocated.

    Raises:
        MemoryError: As said.
    """
    size = plan.account(domains).total.bytes
    check_memory(f"domains={dict(domains)} with this plan make a net", size)


def _check_finite(layers: Mapping[str, nn.Module]) -> None:
    """Refuse weights that are NaN or infinite: every domain would start from them.

    Raises:
        ValueError: The message names one.
    """
    for path, layer in layers.items():
        for name, tensor in layer.named_parameters():
            if not tensor.is_meta and not tensor.isfinite().all():
                raise ValueError(f"'{path}.{name}' has values that are NaN or infinite")
