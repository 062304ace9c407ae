"""manifest.json, the list of a saved net's files and charts, and what it may hold."""

from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

from weightfold.records import SEAL, conform, matching, read_record, within

FORMAT = 3
SEALED_SINCE = 3
MANIFEST = "manifest.json"
NAME = r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,240}\.safetensors"


class Entry(TypedDict):
    """A file of a save, in the manifest beside it."""

    file: Annotated[str, matching(NAME, "plain name of a .safetensors file")]
    sha256: Annotated[str, matching("[0-9a-f]{64}", "sha256")]


class SharedEntry(Entry):
    """The file of all that belongs to no part."""

    aliases: dict[str, str]
    extra: NotRequired[dict[str, Any]]


class ChartEntry(TypedDict):
    """How a chart is made again."""

    kind: str
    config: dict[str, Any]


class Manifest(TypedDict):
    """What manifest.json holds."""

    format: Annotated[int, within(1, FORMAT)]
    tensors: SharedEntry
    parts: NotRequired[dict[str, Entry]]
    levels: list[list[ChartEntry]]
    preprocessing: NotRequired[dict[str, Any]]


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """The manifest of a saved net: "tensors", "parts", "levels" and versions.

    Raises:
        FileNotFoundError: It is missing.
        ValueError: It is damaged, was changed, is a link, or of a later format.
    """
    path = Path(folder) / MANIFEST
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; folder={str(folder)!r} holds no saved net")
    if path.is_symlink():
        raise ValueError(f"{path} is a link; copy the files themselves (cp -L)")
    manifest = read_record(path)
    version = manifest.get("format", 0)
    if isinstance(version, int) and version > FORMAT:
        raise ValueError(f"{path} has format {version}; this version reads up to {FORMAT}")
    conform(manifest, Manifest, f"{path} is damaged")
    if version >= SEALED_SINCE and SEAL not in manifest:
        raise ValueError(f"{path} is damaged: it lacks {SEAL!r}, the hash of its content")
    manifest.setdefault("parts", {})
    return manifest
