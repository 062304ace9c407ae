"""Data sets by name: one function a reader, found by its decorator."""

import importlib
import inspect
import os
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from weightfold.data.dataset import Dataset
from weightfold.spec import matching

ROOT_VARIABLE = "WEIGHTFOLD_DATA"


@dataclass(frozen=True)
class Reader:
    """One data set, or one layout of files, that `load` can read.

    Attributes:
        name: What a spec calls it.
        function: Returns the Dataset. Its keyword arguments are the options of the spec, and the
            first line of its docstring is what `available` shows. If its first argument is `root`,
            it is given the data folder.
        source: For one that reads a data folder, what lies in it and where to get that.
    """

    name: str
    function: Callable[..., Dataset]
    source: str

    @property
    def options(self) -> dict[str, Any]:
        """Option -> its type."""
        return {name: p.annotation for name, p in self._parameters.items() if name != "root"}

    @property
    def required(self) -> list[str]:
        """The options without a default."""
        return [name for name in self.options if self._parameters[name].default is inspect._empty]

    def read(self, root: Path | None, options: Mapping[str, Any]) -> Dataset:
        """Read the data set.

        Raises:
            ValueError: An option that must be given is missing, or so is the data folder.
            FileNotFoundError: The data folder does not exist.
        """
        for name in self.required:
            if name not in options:
                raise ValueError(f"{self.name!r} needs {name}; add ',{name}=...' to the spec")
        if "root" not in self._parameters:
            return self.function(**options)
        return self.function(self._data_folder(root, options), **options)

    @property
    def _parameters(self) -> Mapping[str, inspect.Parameter]:
        return inspect.signature(self.function).parameters

    def _data_folder(self, root: Path | None, options: Mapping[str, Any]) -> Path:
        named = f"root={str(root)!r}"
        if root is None:
            if not os.environ.get(ROOT_VARIABLE):
                raise ValueError(
                    f"{self.name!r} is read from a data folder, and none was named; pass root, or "
                    f"set {ROOT_VARIABLE}. In it must be {self.source}"
                )
            root = Path(os.environ[ROOT_VARIABLE])
            named = f"{ROOT_VARIABLE}={str(root)!r}"
        root = root.expanduser()
        if not root.is_dir() and not options.get("download"):
            raise FileNotFoundError(
                f"{named} is no folder; for {self.name!r} there must be, in it, {self.source}"
            )
        return root


_READERS: dict[str, Reader] = {}


def reader(
    name: str, source: str = ""
) -> Callable[[Callable[..., Dataset]], Callable[..., Dataset]]:
    """Decorator that makes a function in `data/readers/` the reader of data set `name`.

    Args:
        name: What a spec calls it.
        source: As in `Reader`.

    Raises:
        ValueError: Another reader has that name.
    """

    def register(function: Callable[..., Dataset]) -> Callable[..., Dataset]:
        if name in _READERS:
            raise ValueError(f"data set {name!r} exists already: {_READERS[name].function}")
        _READERS[name] = Reader(name, function, source)
        return function

    return register


@cache
def readers() -> Mapping[str, Reader]:
    """All readers by name, found by importing every module of `data/readers/`."""
    package = importlib.import_module("weightfold.data.readers")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    return dict(sorted(_READERS.items()))


def available() -> dict[str, str]:
    """Name -> one line, of the data sets that `load` takes by name."""
    return {
        name: (inspect.getdoc(entry.function) or "").partition("\n")[0]
        for name, entry in readers().items()
    }


def list_data(filter: str = "*") -> list[str]:
    """Names of data sets and layouts of files that `load` takes.

    >>> import weightfold as wf
    >>> wf.list_data("cifar*")
    ['cifar10', 'cifar100']

    Args:
        filter: A glob that the names match.
    """
    return matching(readers(), filter)
