"""One more domain for a bundle, trained beside frozen ones: one new file, no other is changed."""

from dataclasses import dataclass
from pathlib import Path
from types import MethodType
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from weightfold.core.checkpoint_file import named_as
from weightfold.core.manifest import MANIFEST
from weightfold.core.part_file import file_stem
from weightfold.data import Dataset
from weightfold.files import foreign
from weightfold.methods.share.bundle import Bundle
from weightfold.methods.share.net import SharedNet
from weightfold.records import file_hash
from weightfold.train.domains.bundles import about, open_bundle
from weightfold.train.domains.fit import fit_domains
from weightfold.train.domains.inputs import check_sizes, read_weights
from weightfold.train.domains.joint import Joint
from weightfold.train.domains.options import DomainOptions
from weightfold.train.recipe import Recipe


@dataclass(frozen=True)
class Adding:
    """How a domain is added.

    Attributes:
        from_domain: Start from this domain's own filters and batch norm; or
        weights: from a plain network's: a safetensors file of its state_dict.
        seed: Of the classifier's initial weights, data order, augmentation and validation split.
        head_epochs: At first, in which only the classifier is trained.
        validation: Training images, or share of them, held out to choose the best epoch by.
        device: To train on.
        precision: Of the forward pass.
        model: Network spec, for a bundle that does not tell its own.
    """

    from_domain: str | None = None
    weights: Path | str | None = None
    seed: int = 0
    head_epochs: int = 0
    validation: int | float = 0
    device: str = "auto"
    precision: str = "32-true"
    model: str | None = None


@dataclass(frozen=True)
class Added:
    """What adding a domain came to.

    Attributes:
        accuracy: Test accuracy after the last epoch, a share.
        bundle: With the domain.
        unchanged: How many of its files are as they were, byte for byte: all there were.
        new: Name of each new file -> its bytes.
    """

    accuracy: float
    bundle: Bundle
    unchanged: int
    new: dict[str, int]


def add_domain(
    source: Path | str,
    name: str,
    dataset: Dataset,
    recipe: Recipe,
    *,
    options: Adding,
    folder: Path | str | None = None,
) -> Added:
    """Train a domain and add it to a bundle.

    Only what the new domain owns is trained; the shared tensors and the other domains are frozen.

    Args:
        source: A bundle, or the folder of a study or of one of its strategies that holds it.
        name: Of the new domain.
        dataset: Its data.
        recipe: Hyperparameters.
        options: Above all, what it starts from.
        folder: Of the record of the training, from which a call that was stopped goes on; None:
            beside the bundle, BUNDLE-add-NAME.

    Raises:
        KeyError: No such `from_domain`, or weights of another architecture.
        RuntimeError: A file of the bundle that should have stayed was changed meanwhile.
        ValueError: The bundle has the domain, no start or two are given, the images are not as the
            network takes them, or the domain would own nothing.
    """
    bundle, model, spec = open_bundle(source, options.model)
    check_new(bundle, name, options)
    weights = None
    if options.weights is not None:
        weights = named_as(read_weights(Path(options.weights)), model.state_dict())
    check_sizes(model, {name: dataset}, spec)
    net = _start(bundle, model, name, dataset.num_classes, options, weights)
    alone = _start(bundle, model, name, dataset.num_classes, options, weights)
    for other in alone.domains:
        if other != name:
            alone.remove_domain(other)
    _freeze(alone, name)
    precision: Any = options.precision
    history = fit_domains(
        alone,
        {name: dataset},
        recipe,
        folder=folder or bundle.folder.with_name(f"{bundle.folder.name}-add-{file_stem(name)}"),
        seed=options.seed,
        device=options.device,
        options=DomainOptions(
            joint=Joint(head_epochs=options.head_epochs),
            validation=options.validation,
            precision=precision,
            about={
                "model": spec,
                "from_domain": options.from_domain,
                "weights": options.weights and file_hash(Path(options.weights)),
                "base": bundle.manifest["tensors"]["sha256"],
            },
        ),
    )
    net.sharing.domains[name].load_state_dict(alone.sharing.domains[name].state_dict())
    net.about[name] = about(spec, dataset)
    before = _files(bundle.folder)
    bundle.add(net, name)
    after = _files(bundle.folder)
    if changed := [file for file, digest in before.items() if after.get(file) != digest]:
        raise RuntimeError(f"{bundle.folder / changed[0]} was changed while {name!r} was added")
    new = {file: (bundle.folder / file).stat().st_size for file in after.keys() - before.keys()}
    return Added(history.last_value, bundle, len(before), new)


def check_new(bundle: Bundle, name: str, options: Adding) -> None:
    """Refuse a domain that is there, none or two starts, and a start that is not there.

    Raises:
        KeyError: No such `from_domain`.
        ValueError: As said.
    """
    if name in bundle.classes:
        raise ValueError(f"domain {name!r} is in {bundle.folder}; remove it first")
    if (options.from_domain is None) == (options.weights is None):
        raise ValueError(
            f"give a start for the new domain: from_domain, one of {', '.join(bundle.domains)}, "
            "or weights; not both"
        )
    if options.from_domain is not None and options.from_domain not in bundle.classes:
        raise KeyError(
            f"from_domain={options.from_domain!r}; the domains are {', '.join(bundle.domains)}"
        )


def _start(
    bundle: Bundle,
    model: nn.Module,
    name: str,
    classes: int,
    options: Adding,
    weights: dict[str, Tensor] | None,
) -> SharedNet:
    """The bundle's net with the domain that the new one starts from, and the new one."""
    net = bundle.load(model, [options.from_domain or bundle.domains[0]])
    assert isinstance(net, SharedNet)
    net.add_domain(
        name, classes, from_domain=options.from_domain, weights=weights, seed=options.seed
    )
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
