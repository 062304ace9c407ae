"""Weights from files of others: safetensors, or what torch.save wrote; nothing in them runs."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import torch
from torch import Tensor

from weightfold.core.tensor_file import read_tensors

WRAPPERS = ("module", "_orig_mod")
"""What DataParallel and DistributedDataParallel, and torch.compile, put into the names of tensors,
at the front or inside."""

NESTED = ("state_dict", "model_state_dict", "model_state", "model", "net", "weights", "params")
"""Under which training scripts keep a network's tensors beside the optimizer's."""


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a network, by the names that they have in a file.

    Args:
        path: A safetensors file; or one of torch.save that holds a state_dict, alone or in a dict
            under one of `NESTED`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, holds more than tensors and plain values, or no state_dict.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing, or no file")
    with path.open("rb") as file:
        start = file.read(9)
    if start[8:] == b"{" or start[:2] not in (b"PK", b"\x80\x02"):
        return read_tensors(path)
    try:
        if start[:2] == b"PK":
            check_archive(path)
        held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        first = str(error).partition("\n")[0]
        raise ValueError(
            f"{path} cannot be read without running what it names ({first}); save the network's "
            "state_dict, as safetensors or with torch.save"
        ) from error
    return _state_dict(held, path)


def _state_dict(held: Any, path: Path) -> dict[str, Tensor]:
    found = [key for key in NESTED if isinstance(held, Mapping) and _tensors(held.get(key))]
    if len(found) > 1:
        raise ValueError(
            f"{path} has tensors under {' and '.join(map(repr, found))}; save the one that is meant"
        )
    tensors = _tensors(held[found[0]] if found else held)
    if not tensors:
        shown = ", ".join(map(repr, held)) if isinstance(held, Mapping) else type(held).__name__
        raise ValueError(f"{path} holds no state_dict but {shown:.200}; save net.state_dict()")
    return tensors


def _tensors(held: Any) -> dict[str, Tensor]:
    """The tensors among the values of a dict."""
    items = held.items() if isinstance(held, Mapping) else ()
    return {name: value for name, value in items if isinstance(value, Tensor)}


def check_archive(path: Path) -> None:
    """Refuse an archive that torch.save did not write as it is: changed, or compressed.

    Raises:
        ValueError: A member is compressed.
        BadZipFile: One was changed; torch does not look at their checksums.
    """
    with ZipFile(path) as archive:
        for member in archive.infolist():
            if member.compress_type != ZIP_STORED:
                raise ValueError(f"{member.filename} is compressed")
        if (bad := archive.testzip()) is not None:
            raise BadZipFile(f"{bad} was changed")


def named_as(tensors: Mapping[str, Tensor], wanted: Iterable[str]) -> dict[str, Tensor]:
    """Tensors under the names that a network has for them.

    Names that differ in `WRAPPERS` alone are one, wherever these stand; and if no name is the
    network's, but all are with a first part left out that all of them have ("model." as Lightning
    writes it), that is left out.

    Args:
        tensors: By their names in a checkpoint; those that cannot be told keep them.
        wanted: Names of the network.

    Raises:
        ValueError: Two tensors would get one name.
    """
    wanted = list(wanted)
    known, plain = set(wanted), {_unwrapped(name): name for name in wanted}
    firsts = {name.partition(".")[0] for name in map(_unwrapped, tensors)}
    if len(firsts) == 1 and not any(_unwrapped(name) in plain for name in tensors):
        shorter = {name: _unwrapped(name).partition(".")[2] for name in tensors}
        if all(name in plain for name in shorter.values()):
            return {plain[short]: tensors[name] for name, short in shorter.items()}
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        given = name if name in known else plain.get(_unwrapped(name), name)
        if given in found:
            raise ValueError(
                f"{given!r} is in the weights more than once, also as {name!r}; leave one out"
            )
        found[given] = tensor
    return found


def _unwrapped(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)
