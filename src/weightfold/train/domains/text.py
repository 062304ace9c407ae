"""Domains as text, "name=dataset"."""

from collections.abc import Iterable
from pathlib import Path

from weightfold.data import Dataset, load
from weightfold.methods.share.names import check_names


def parse_domains(texts: Iterable[str], root: Path | str | None = None) -> dict[str, Dataset]:
    """Load the data of domains given as text.

    Args:
        texts: Each "name=spec", the name of a domain and what `weightfold.data.load` takes:
            "digits=mnist,size=32,rgb=true" or "signs=/path/of/a/folder".
        root: The data folder, as for `load`.

    Returns:
        Domain -> data, in the given order.

    Raises:
        ValueError: No domain; a text without "=", a name that is not of letters, digits, "-" and
            "_", or given twice; or as `load`.
        FileNotFoundError: As `load`.
    """
    specs: list[tuple[str, str]] = []
    for text in texts:
        name, equals, spec = (part.strip() for part in text.partition("="))
        if not equals or not spec or "," in name:
            raise ValueError(f"domain {text!r} has no name; write 'name=dataset', 'digits=mnist'")
        specs.append((name, spec))
        check_names([name for name, _ in specs])
    if not specs:
        raise ValueError("no domain is given; write 'name=dataset', such as 'digits=mnist'")
    return {name: load(spec, root) for name, spec in specs}
