"""Files of a save, a part in each: named by their hash, written once, checked as they are read."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as serialize
from torch import Tensor

from weightfold.core.tensor_file import LABEL, Stored, read_label
from weightfold.files import write_bytes
from weightfold.records import file_hash

PART = "domain-"
LONGEST_STEM = 100


def entry_of(manifest: Mapping[str, Any], part: str | None) -> Mapping[str, Any]:
    """What a manifest says of a part's file; None: of the shared one."""
    return manifest["tensors"] if part is None else manifest["parts"][part]


def file_of(folder: Path, manifest: Mapping[str, Any], part: str | None) -> Path:
    """Path of a part's file; None: the shared one."""
    return folder / entry_of(manifest, part)["file"]


def existing_file(folder: Path, manifest: Mapping[str, Any], part: str | None) -> Path:
    """Path of a part's file, which is there.

    Raises:
        FileNotFoundError: It is not.
        ValueError: It is a link.
    """
    file = file_of(folder, manifest, part)
    if file.is_symlink():
        raise ValueError(f"{file} is a link; copy the files themselves (cp -L)")
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing; the manifest beside it names it")
    return file


def check_label(
    file: Path, label: Mapping[str, Any], manifest: Mapping[str, Any], part: str | None
) -> None:
    """Hold what a file says of itself against the manifest.

    Raises:
        ValueError: It is another part's, or was saved with other shared tensors.
    """
    if label.get("part") != part:
        raise ValueError(f"{file} holds {label.get('part')!r}, where the manifest says {part!r}")
    base = manifest["tensors"]["sha256"]
    if part is not None and label.get("base") != base:
        raise ValueError(
            f"{file} was saved with the shared tensors {str(label.get('base'))[:12]}, but this "
            f"folder's are {base[:12]}; take {part!r} from a save with the same shared tensors"
        )


def check_file(folder: Path, manifest: Mapping[str, Any], part: str | None) -> None:
    """Check a part's file against the manifest's hash, and its label against part and base.

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: It is damaged or changed, another part's, or was saved with other shared
            tensors than the folder's.
    """
    file = existing_file(folder, manifest, part)
    if file_hash(file) != entry_of(manifest, part)["sha256"]:
        raise ValueError(f"{file} is truncated or was changed: its hash is not the manifest's")
    check_label(file, read_label(file), manifest, part)


def read_part(folder: Path, manifest: Mapping[str, Any], part: str | None) -> Stored:
    """A part's tensors, read once and checked as they were read; None: the shared ones.

    Whatever then happens to the file, what is returned stays as it is.

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: It is damaged or changed, another part's, or was saved with other shared
            tensors than the folder's.
    """
    file = existing_file(folder, manifest, part)
    with file.open("rb") as opened:
        content = bytearray(os.fstat(opened.fileno()).st_size)
        # One more byte is asked for: a file that grows meanwhile is not the one saved.
        whole = opened.readinto(content) == len(content) and not opened.read(1)
    if not whole or hashlib.sha256(content).hexdigest() != entry_of(manifest, part)["sha256"]:
        raise ValueError(f"{file} is truncated or was changed: its hash is not the manifest's")
    try:
        stored = Stored(content)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    check_label(file, stored.label, manifest, part)
    return stored


def write_part(folder: Path, part: str, tensors: Mapping[str, Tensor], base: str) -> dict[str, str]:
    """Write one part's file, labelled with its name and `base`, the hash of the shared file."""
    label = json.dumps({"base": base, "part": part})
    return write_hashed(folder, f"{PART}{file_stem(part)}-", tensors, {LABEL: label})


def copy_part(source: Path, manifest: Mapping[str, Any], part: str, folder: Path) -> dict[str, str]:
    """Copy a part's file, checked, to another save, under the name that its content gives it.

    Args:
        source: Folder that it lies in.
        manifest: Of that folder.
        part: Its name.
        folder: Where the copy goes; whatever the manifest calls the file, nothing is overwritten.

    Returns:
        Its entry for the other manifest.

    Raises:
        FileExistsError: Another file has that name.
        FileNotFoundError: As `read_part`.
        ValueError: As `read_part`.
    """
    content = read_part(source, manifest, part).content
    digest = entry_of(manifest, part)["sha256"]
    target = folder / _name(f"{PART}{file_stem(part)}-", digest)
    if target.exists() or target.is_symlink():
        if target.is_symlink() or file_hash(target) != digest:
            raise FileExistsError(f"{target} is another file than {part!r} of {source}; move it")
    else:
        write_bytes(target, content)
    return {"file": target.name, "sha256": digest}


def write_hashed(
    folder: Path, prefix: str, tensors: Mapping[str, Tensor], labels: dict[str, str] | None = None
) -> dict[str, str]:
    """Write a file named by its hash, unless it is there already.

    Args:
        folder: There already.
        prefix: Of the file's name.
        tensors: Any layout and device.
        labels: At most one: safetensors writes several in an order that changes by the process.

    Returns:
        {"file": name, "sha256": of the file}.
    """
    content = _serialized(tensors, labels)
    digest = hashlib.sha256(content).hexdigest()
    file = folder / _name(prefix, digest)
    if not file.exists() or file_hash(file) != digest:
        write_bytes(file, content)
    return {"file": file.name, "sha256": digest}


def shared_hash(tensors: Mapping[str, Tensor]) -> str:
    """The sha256 that a file of these shared tensors has."""
    return hashlib.sha256(_serialized(tensors, None)).hexdigest()


def _serialized(tensors: Mapping[str, Tensor], labels: dict[str, str] | None) -> bytes:
    plain = {
        name: tensor.detach().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    return serialize(plain, labels)


def _name(prefix: str, digest: str) -> str:
    return f"{prefix}{digest[:12]}.safetensors"


def file_stem(name: str) -> str:
    """A name as the beginning of a file's name: whole, or short with a hash if it is long."""
    if len(name) <= LONGEST_STEM:
        return name
    return f"{name[:LONGEST_STEM]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"
