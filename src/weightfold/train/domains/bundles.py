"""Bundles of domains in the folders that training leaves, opened with their network."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from weightfold.core.manifest import MANIFEST
from weightfold.core.preprocessing import Preprocessing
from weightfold.data import Dataset
from weightfold.methods.share.bundle import Bundle
from weightfold.nets.recorded import check_recorded, recorded_network
from weightfold.train.domains.evaluate import evaluate_domains
from weightfold.train.domains.inputs import seeded_model

BUNDLE = "bundle"
"""Folder of a bundle in that of the run that made it."""


def open_bundle(source: Path | str, model: str | None) -> tuple[Bundle, nn.Module, str]:
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


def find_bundle(source: Path | str) -> Bundle:
    """The bundle in a folder, or in that of `weightfold domains train` or of its strategy.

    Raises:
        FileNotFoundError: There is none.
        ValueError: There are several, or it is damaged.
    """
    source = Path(source)
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
        what, about = f"domain {name!r} of {bundle.folder}", bundle.about[name]
        dataset.check_fits(about.get("image_shape", ()), bundle.class_names[name], what)
        told = Preprocessing.of_record(about)
        found[name] = dataset if told is None else dataset.fed_as(told, what)
    return found


def about(spec: str, dataset: Dataset) -> dict[str, Any]:
    """What a bundle tells of a domain: the network's spec, class names, preprocessing."""
    shape = {"image_shape": list(dataset.image_shape), "class_names": list(dataset.class_names)}
    told = dataset.preprocessing
    return {"model": spec} | (shape if told is None else told.record())


def evaluate_bundle(
    source: Path | str, datasets: Mapping[str, Dataset], *, model: str | None = None
) -> dict[str, float]:
    """Test accuracy, a share, of some or all of a bundle's domains.

    Images are normalised as they were in training; only the files of these domains are read.

    Args:
        source: As for `find_bundle`.
        datasets: Domain -> data.
        model: As for `open_bundle`.

    Raises:
        FileNotFoundError: As `open_bundle`.
        KeyError: The bundle has no such domain.
        ValueError: As `open_bundle`, and as `as_trained`.
    """
    bundle, net, _ = open_bundle(source, model)
    found = as_trained(bundle, datasets)
    return evaluate_domains(bundle.load(net, list(found)), found)
