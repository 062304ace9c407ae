"""Write a good example, damage it, read it: refused by an error that names the file, or harmless.

A format of files plugs in as a `Format`: how a good example is written below a new folder, and how
it is read; what the reading returns is compared with `==`.
"""

import os
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from mutation.edits import Canary, edit_json, edit_member, edits_for, is_json

DELIBERATE = (ValueError, KeyError, FileNotFoundError, FileExistsError, RuntimeError, OSError)
NO_MEMORY = ("allocate", "out of memory")


@dataclass(frozen=True)
class Format:
    """A kind of file, or of folder.

    Attributes:
        name: What it is called.
        write: Writes a good example into a folder that is there, the same on every call.
        read: Reads it from that folder and returns what came of it, a value to be compared by
            `==`: bytes of outputs, figures. It changes nothing in the folder.
        mutated: Glob of the files that are damaged.
        seal: Makes the checks against accident right again after a JSON file was edited, as
            somebody would who means harm; what is read may then differ, but nothing else.
        errors: What a reader may raise.
    """

    name: str
    write: Callable[[Path], None]
    read: Callable[[Path], object]
    mutated: str = "**/*"
    seal: Callable[[bytes], bytes] | None = None
    errors: tuple[type[Exception], ...] = DELIBERATE


class Broken(AssertionError):
    """A damaged file did harm, or was refused by an error that does not say which file."""


def attack(format: Format, folder: Path, count: int, seed: int = 0) -> Counter[str]:
    """Damage a good example `count` times, and read it each time.

    Args:
        format: What is damaged.
        folder: New or empty; work is done there.
        count: How many mutations; number i depends on the format's name, `seed` and i alone.
        seed: Of the mutations.

    Returns:
        How many were "refused", "harmless", or, sealed again, "other" (read as something else).

    Raises:
        Broken: The first that did harm; the message says how to repeat it.
    """
    canary, good = Canary(folder / "canary"), folder / "good"
    (code := folder / "code").mkdir(parents=True)
    canary.plant(code)
    good.mkdir()
    format.write(good)
    expected = format.read(good)
    if format.read(good) != expected:
        raise Broken(f"{format.name}: two readings of a good example differ")
    tally: Counter[str] = Counter()
    here = Path.cwd()
    os.chdir(code)  # so that the planted module is found wherever modules are
    try:
        for i in range(count):
            tally[_one(format, folder, expected, canary, f"{format.name} {seed} {i}")] += 1
    finally:
        os.chdir(here)
    return tally


def _one(format: Format, folder: Path, expected: object, canary: Canary, number: str) -> str:
    rng, tried = Random(number), folder / "tried"
    shutil.rmtree(tried, ignore_errors=True)
    shutil.copytree(folder / "good", tried)
    files = sorted(f for f in tried.glob(format.mutated) if f.is_file())
    file = rng.choice(files)
    sealed, what = damage(format, file, files, rng, canary)
    about = f"mutation {number!r}, {file.relative_to(tried)}: {what}"
    before = _content(tried)
    try:
        found = format.read(tried)
    except Exception as error:
        outcome = "refused"
        _check_error(format, error, file, about)
    else:
        outcome = "harmless" if found == expected else "other"
        if outcome == "other" and not sealed:
            raise Broken(f"{about}: read without a word, as something else")
    if canary.path.exists():
        raise Broken(f"{about}: CODE RAN")
    if _content(tried) != before:
        raise Broken(f"{about}: reading changed the folder")
    return outcome


def damage(
    format: Format, file: Path, files: list[Path], rng: Random, canary: Canary
) -> tuple[bool, str]:
    """Change a file in place; whether its checks were made right again, and what was done."""
    if rng.random() < 0.06:
        return False, _displace(file, files, rng)
    content = file.read_bytes()
    edit = rng.choice(edits_for(content))
    what, changed = edit(content, rng, canary)
    file.write_bytes(changed)
    if edit is edit_member:  # whose checksum is right
        return True, what
    if format.seal is not None and edit is edit_json and rng.random() < 0.7 and is_json(changed):
        file.write_bytes(format.seal(changed))
        return True, f"{what}, sealed"
    return False, what


def _displace(file: Path, files: list[Path], rng: Random) -> str:
    """The file is gone, a folder, a link, or another file."""
    what = rng.choice(("gone", "a folder", "a link to nowhere", "another file"))
    other = rng.choice(files).read_bytes()
    file.unlink()
    if what == "a folder":
        file.mkdir()
    elif what == "a link to nowhere":
        file.symlink_to(file.parent / "nowhere")
    elif what == "another file":
        file.write_bytes(other)
    return what


def _check_error(format: Format, error: Exception, file: Path, about: str) -> None:
    text = str(error)
    if not isinstance(error, format.errors) or any(word in text for word in NO_MEMORY):
        raise Broken(f"{about}: {type(error).__name__}: {text[:500]}") from error
    if file.name not in text and str(file.parent) not in text:
        raise Broken(f"{about}: the error does not name the file: {text[:500]}") from error


def _content(folder: Path) -> dict[str, bytes | None]:
    return {
        str(f.relative_to(folder)): f.read_bytes() if f.is_file() else None
        for f in sorted(folder.rglob("*"))
    }
