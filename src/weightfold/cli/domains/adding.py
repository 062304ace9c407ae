"""What `weightfold domains add` does: a domain trained beside frozen ones, and its one new file."""

from pathlib import Path
from types import MethodType

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from weightfold.cli.domains.add import Add
from weightfold.cli.domains.inputs import (
    about,
    check_sizes,
    open_bundle,
    read_domains,
    read_weights,
)
from weightfold.core.manifest import MANIFEST
from weightfold.core.store import file_stem
from weightfold.files import foreign
from weightfold.methods.share.bundle import Bundle
from weightfold.methods.share.net import SharedNet
from weightfold.records import file_hash
from weightfold.train.domains import DomainOptions, Joint, fit_domains


def add_domain(asked: Add) -> None:
    """Train the domain, add it to the bundle, and print what changed.

    Raises:
        KeyError: No such `from_domain`, or weights of another architecture.
        RuntimeError: A file of the bundle that should have stayed was changed meanwhile.
        ValueError: The bundle has the domain, no start or two are given, the images are not as the
            network takes them, or the domain would own nothing.
    """
    bundle, model, spec = open_bundle(asked.source, asked.model)
    name = asked.domain.partition("=")[0].strip()
    if name in bundle.classes:
        raise ValueError(f"domain {name!r} is in {bundle.folder}; remove it first")
    _check_start(asked, bundle)
    weights = None if asked.weights is None else read_weights(asked.weights)
    ((name, dataset),) = read_domains([asked.domain], asked.data_root).items()
    check_sizes(model, {name: dataset}, spec)
    net = _start(bundle, model, name, dataset.num_classes, asked, weights)
    alone = _start(bundle, model, name, dataset.num_classes, asked, weights)
    for other in alone.domains:
        if other != name:
            alone.remove_domain(other)
    _freeze(alone, name)
    history = fit_domains(
        alone,
        {name: dataset},
        asked.recipe,
        folder=asked.folder
        or bundle.folder.with_name(f"{bundle.folder.name}-add-{file_stem(name)}"),
        seed=asked.seed,
        device=asked.device,
        options=DomainOptions(
            joint=Joint(head_epochs=asked.head_epochs),
            validation=asked.validation,
            precision=asked.precision,
            about={
                "model": spec,
                "domain": asked.domain,
                "from_domain": asked.from_domain,
                "weights": asked.weights and file_hash(asked.weights),
                "base": bundle.manifest["tensors"]["sha256"],
            },
        ),
    )
    net.sharing.domains[name].load_state_dict(alone.sharing.domains[name].state_dict())
    net.about[name] = about(spec, dataset)
    before = _files(bundle.folder)
    bundle.add(net, name)
    print(f"{name}: test accuracy {history.last_value:.2%} after the last epoch")
    _report(bundle, name, before)


def _check_start(asked: Add, bundle: Bundle) -> None:
    """Refuse none or two starts, and one that is not there."""
    if (asked.from_domain is None) == (asked.weights is None):
        raise ValueError(
            f"give a start for the new domain: --from-domain, one of {', '.join(bundle.domains)}, "
            "or --weights; not both"
        )
    if asked.from_domain is not None and asked.from_domain not in bundle.classes:
        raise KeyError(
            f"from_domain={asked.from_domain!r}; the domains are {', '.join(bundle.domains)}"
        )


def _start(
    bundle: Bundle,
    model: nn.Module,
    name: str,
    classes: int,
    asked: Add,
    weights: dict[str, Tensor] | None,
) -> SharedNet:
    """The bundle's net with the domain that the new one starts from, and the new one."""
    net = bundle.load(model, [asked.from_domain or bundle.domains[0]])
    assert isinstance(net, SharedNet)
    net.add_domain(name, classes, from_domain=asked.from_domain, weights=weights, seed=asked.seed)
    return net


def _freeze(net: SharedNet, name: str) -> None:
    """Let training move only what the domain owns: no shared parameter, no shared statistics.

    Raises:
        ValueError: Nothing is left.
    """
    own = {id(p) for p in net.sharing.domains[name].parameters()}
    if not own:
        raise ValueError(f"domain {name!r} would own nothing that can be trained in this bundle")
    for parameter in net.parameters():
        parameter.requires_grad_(id(parameter) in own)
    for module in net.model.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
            module.train = MethodType(_stay, module)  # type: ignore[method-assign]


def _stay(module: nn.Module, mode: bool = True) -> nn.Module:
    """In eval mode, whatever `mode`."""
    return module


def _files(folder: Path) -> dict[str, str]:
    """Name -> hash, of all files but the manifest."""
    return {path.name: file_hash(path) for path in foreign(folder) if path.name != MANIFEST}


def _report(bundle: Bundle, name: str, before: dict[str, str]) -> None:
    after = _files(bundle.folder)
    if changed := [file for file, digest in before.items() if after.get(file) != digest]:
        raise RuntimeError(f"{bundle.folder / changed[0]} was changed while {name!r} was added")
    print(f"{len(before)} files of {bundle.folder} are unchanged, byte for byte")
    for file in after.keys() - before.keys():
        size = (bundle.folder / file).stat().st_size
        print(f"new: {file}, {size:,} bytes; domains: {', '.join(bundle.domains)}")
