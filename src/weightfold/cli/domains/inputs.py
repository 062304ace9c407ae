"""What the commands read: data of domains, networks, start weights, bundles."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from weightfold.core.manifest import MANIFEST
from weightfold.core.tensor_file import read_tensors
from weightfold.data import Dataset
from weightfold.methods.share.bundle import PREPROCESSING, Bundle
from weightfold.methods.share.names import check_names
from weightfold.nets import build
from weightfold.nets.recorded import check_recorded, recorded_network
from weightfold.train.domains import parse_domains

BUNDLE = "bundle"


def read_domains(texts: Iterable[str], root: Path | None) -> dict[str, Dataset]:
    """The data of domains given as NAME=DATASET, all with equally many channels.

    Raises:
        ValueError: A text, a name or a data set is wrong, which the message names; no domain; or
            images of different channels.
        FileNotFoundError: As `weightfold.data.load`.
    """
    texts = list(texts)
    check_names([text.partition("=")[0].strip() for text in texts if "=" in text])
    found: dict[str, Dataset] = {}
    for text in texts:
        try:
            found |= parse_domains([text], root)
        except ValueError as error:
            raise ValueError(f"domain {text!r}: {error}" if "=" in text else error) from error
    if not found:
        raise ValueError("no domain is given; write 'name=dataset', such as 'digits=mnist'")
    channels = {name: dataset.image_shape[0] for name, dataset in found.items()}
    if len(set(channels.values())) > 1:
        shown = ", ".join(f"{name}: {count}" for name, count in channels.items())
        raise ValueError(
            f"domains have images of different channels ({shown}); add ',rgb=true' to the gray ones"
        )
    return found


def heads_of(texts: Iterable[str]) -> dict[str, int]:
    """Domains given as NAME=CLASSES.

    Raises:
        ValueError: A text is not of that form, or a name is given twice.
    """
    found: dict[str, int] = {}
    for text in texts:
        name, _, count = text.partition("=")
        if not (count.isascii() and count.isdigit() and int(count) > 0):
            raise ValueError(
                f"heads: {text!r} is not NAME=CLASSES, of 1 class or more; write 'birds=200'"
            )
        check_names([*found, name])
        found[name] = int(count)
    return found


def seeded_model(spec: str, *, classes: int, channels: int, seed: int = 0) -> nn.Module:
    """A network with initial weights of a seed; torch's global state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(spec, num_classes=classes, in_channels=channels)


def check_sizes(model: nn.Module, datasets: Mapping[str, Dataset], spec: str) -> None:
    """Refuse images that the network does not take.

    Raises:
        ValueError: As said; the message names the domain.
    """
    for name, dataset in datasets.items():
        shape = dataset.image_shape
        if (error := _refusal(model, shape)) is not None:
            raise ValueError(
                f"domain {name!r}: {spec!r} does not take its images of {shape}: {error}; "
                "add ',size=PIXELS' or ',rgb=true' to its data set"
            ) from error


def check_shape(model: nn.Module, shape: tuple[int, int, int], spec: str) -> None:
    """Refuse a shape of images (C, H, W) that the network does not take.

    Raises:
        ValueError: As said.
    """
    if (error := _refusal(model, shape)) is not None:
        raise ValueError(
            f"image_shape={shape}: {spec!r} does not take such images: {error}; "
            "give --image-shape CHANNELS HEIGHT WIDTH"
        ) from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """A plain network's state_dict from a safetensors file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no safetensors file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"weights={str(path)!r} is no file; give a .safetensors file")
    try:
        return read_tensors(path)
    except ValueError as error:
        raise ValueError(f"weights={str(path)!r} is no safetensors file: {error}") from error


def take_weights(model: nn.Module, weights: Mapping[str, Tensor], head: str) -> list[str]:
    """Fill `model` with trained weights, all but a classifier of other classes.

    Args:
        model: Changed in place.
        weights: A plain state_dict.
        head: Path of the classifier.

    Returns:
        Names of the classifier's tensors that were left as they are.

    Raises:
        ValueError: The weights are another network's; the message names what differs.
    """
    own = model.state_dict()
    differ = [n for n in own.keys() & weights.keys() if own[n].shape != weights[n].shape]
    left = [name for name in differ if name.rpartition(".")[0] == head]
    missing = [n for n in own.keys() - weights.keys() if not n.endswith("num_batches_tracked")]
    wrong = [f"{n!r} is {tuple(weights[n].shape)} there, {tuple(own[n].shape)} here"
             for n in set(differ) - set(left)]  # fmt: skip
    wrong += [f"it lacks {name!r}" for name in missing if name.rpartition(".")[0] != head]
    wrong += [f"it has {name!r} besides" for name in weights.keys() - own.keys()]
    if wrong:
        more = f" and {len(wrong) - 3} more differences" if len(wrong) > 3 else ""
        raise ValueError(
            f"weights are of another network than this {type(model).__name__}: "
            f"{'; '.join(sorted(wrong)[:3])}{more}"
        )
    model.load_state_dict({n: t for n, t in weights.items() if n not in left}, strict=False)
    return sorted(left)


def about(spec: str, dataset: Dataset) -> dict[str, Any]:
    """What a bundle tells of a domain: the network's spec, class names, preprocessing."""
    return {
        "model": spec,
        "class_names": list(dataset.class_names),
        "image_shape": list(dataset.image_shape),
        "mean": list(dataset.mean),
        "std": list(dataset.std),
    }


def open_bundle(source: Path, model: str | None) -> tuple[Bundle, nn.Module, str]:
    """A bundle, a network of its architecture, and that network's spec.

    Args:
        source: As for `find_bundle`.
        model: The network's spec, as the user says; None: the one the bundle tells, which is no
            "module:function".

    Raises:
        FileNotFoundError: There is none.
        ValueError: There are several; the bundle is damaged, or asks for far more memory than it
            holds; neither it nor `model` says which network it is, or they disagree; or it names
            code and `model` is None.
    """
    bundle = find_bundle(source)
    told = {of["model"] for of in bundle.about.values() if "model" in of}
    spec = recorded_network(told, model, bundle.folder / MANIFEST)
    shapes = [of["image_shape"] for of in bundle.preprocessing.values() if "image_shape" in of]
    channels = shapes[0][0] if shapes else 3
    classes = max(bundle.classes.values())
    stored = sum(file.stat().st_size for file in bundle.folder.glob("*.safetensors"))
    if classes > stored:
        raise ValueError(
            f"{bundle.folder / MANIFEST} has {classes:,} classes, more than the {stored:,} bytes "
            "of its files"
        )
    make = partial(seeded_model, spec, classes=classes, channels=channels)
    if model is None:
        check_recorded(make, [spec], stored=stored, where=bundle.folder / MANIFEST)
    return bundle, make(), spec


def find_bundle(source: Path) -> Bundle:
    """The bundle in a folder, or in that of `weightfold domains train` or of its strategy.

    Raises:
        FileNotFoundError: There is none.
        ValueError: There are several, or it is damaged.
    """
    nested = (f"{BUNDLE}/{MANIFEST}", f"*/{BUNDLE}/{MANIFEST}")
    found = sorted(path.parent for pattern in nested for path in source.glob(pattern))
    if (source / MANIFEST).exists() or not found:
        return Bundle(source)
    if len(found) > 1:
        raise ValueError(
            f"{source} holds {len(found)} bundles; give one of them: {', '.join(map(str, found))}"
        )
    return Bundle(found[0])


def as_trained(bundle: Bundle, datasets: Mapping[str, Dataset]) -> dict[str, Dataset]:
    """`datasets` normalised as the bundle's domains were in training.

    Raises:
        KeyError: The bundle has no such domain.
        ValueError: Images or classes differ from those the bundle was trained on.
    """
    found = {}
    for name, dataset in datasets.items():
        if name not in bundle.classes:
            raise KeyError(f"domain={name!r}; the domains are {', '.join(bundle.domains)}")
        if dataset.num_classes != bundle.classes[name]:
            raise ValueError(
                f"domain {name!r} has {bundle.classes[name]} classes in {bundle.folder}, but its "
                f"data set {dataset.name!r} has {dataset.num_classes}"
            )
        names, told = bundle.class_names[name], bundle.preprocessing[name]
        if names and list(dataset.class_names) != names:
            raise ValueError(
                f"domain {name!r} has the classes {_shown(names)} in {bundle.folder}, the data set "
                f"{_shown(dataset.class_names)}; give data with the same ones in the same order"
            )
        if (shape := tuple(told.get("image_shape", dataset.image_shape))) != (
            given := dataset.image_shape
        ):
            raise ValueError(
                f"domain {name!r} takes images of {shape}, the data set has {given}; add "
                "',size=PIXELS' or ',rgb=true' to it"
            )
        scale: dict[str, Any] = {key: tuple(told[key]) for key in PREPROCESSING[1:] if key in told}
        found[name] = replace(dataset, **scale)
    return found


def _refusal(model: nn.Module, shape: tuple[int, ...]) -> Exception | None:
    """Why the network takes no image of a shape; None if it does. Its mode is left as found."""
    training = model.training
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, *shape))
    except (RuntimeError, ValueError, TypeError) as error:
        return error
    finally:
        model.train(training)
    return None


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
