"""A saved SharedNet as a folder of domains: read one by one, added, removed and copied."""

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from weightfold.core.store import (
    Stored,
    check_file,
    contents,
    file_of,
    levels,
    read_manifest,
    read_state,
    rebuild,
    shared_hash,
    write_manifest,
    write_part,
)
from weightfold.files import replacing

KIND = "sharing"
PREPROCESSING = ("image_shape", "mean", "std")


@dataclass(frozen=True)
class Sizes:
    """Payload of a bundle's files in bytes: the tensors, without the files' headers.

    Attributes:
        shared: Of what exists once.
        domains: Domain -> of its delta.
    """

    shared: int
    domains: dict[str, int]

    @property
    def total(self) -> int:
        """Of all files."""
        return self.shared + sum(self.domains.values())


class Bundle:
    """What `wf.save` wrote of a SharedNet; only the manifest is read at first.

    A delta is what one domain owns: its filters, batch norm and classifier, in a file that names
    the shared file it was trained with. Files are checked against their hashes when first read, and
    again only if they were replaced. Several threads may read; one process at a time may write.

    Args:
        folder: Written by `wf.save`.

    Attributes:
        folder: Of the bundle.
        manifest: As read.

    Raises:
        FileNotFoundError: There is no manifest.
        ValueError: The manifest is damaged, of a later format, or of a net without domains.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.manifest = read_manifest(self.folder)
        self._checked: dict[str | None, tuple[int, int, int]] = {}
        _config(self.manifest["levels"], self.folder)

    @property
    def domains(self) -> list[str]:
        """Names, in the net's order."""
        return list(self.classes)

    @property
    def classes(self) -> dict[str, int]:
        """Domain -> number of classes."""
        return dict(self._config["classes"])

    @property
    def about(self) -> dict[str, dict[str, Any]]:
        """Domain -> what was saved with it: class names, preprocessing; may be empty."""
        return {name: dict(self._config["about"].get(name, {})) for name in self.domains}

    @property
    def class_names(self) -> dict[str, list[str]]:
        """Domain -> names of its classes in order; empty if none were given."""
        return {name: list(about.get("class_names", [])) for name, about in self.about.items()}

    @property
    def preprocessing(self) -> dict[str, dict[str, Any]]:
        """Domain -> those of "image_shape" (C, H, W), "mean" and "std" per channel that it has."""
        return {
            name: {key: about[key] for key in PREPROCESSING if key in about}
            for name, about in self.about.items()
        }

    @property
    def _config(levels: list[list[dict[str, Any]]], where: object) -> dict[str, Any]:
    """Configuration of the chart that shares filters between domains."""
    found = [c["config"] for level in levels for c in level if c["kind"] == KIND]
    if len(found) != 1:
        raise ValueError(f"{where} is no saved net of several domains; see wf.share")
    classes, about = found[0].get("classes"), found[0].get("about")
    if not (isinstance(classes, dict) and isinstance(about, dict)) or not (
        all(isinstance(count, int) for count in classes.values())
        and all(isinstance(told, dict) for told in about.values())
    ):
        raise ValueError(f"{where} does not say its domains' classes and what is told about them")
    return found[0]


def _with_domains(
    levels: list[list[dict[str, Any]]], classes: Mapping[str, int], about: Mapping[str, Any]
) -> list[list[dict[str, Any]]]:
    """`levels` with other domains; what is told about further ones is left out."""
    levels = copy.deepcopy(levels)
    told = {name: about[name] for name in classes if about.get(name)}
    _config(levels, "net").update(classes=dict(classes), about=told)
    return levels
