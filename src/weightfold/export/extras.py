"""Packages that come with an extra: whether they are there, and how much they say."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module


def need(extra: str, *modules: str) -> None:
    """Import `modules`, which come with an extra.

    Raises:
        ImportError: One is missing; the message names the extra to install.
    """
    for module in modules:
        try:
            import_module(module)
        except ImportError as error:
            raise ImportError(f"this needs {module}: pip install 'weightfold[{extra}]'") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Drop Python warnings and log messages below ERROR.

    The quantizers warn of every operator that stays in floating point, as it should, and ONNX
    Runtime's logs to the root logger.
    """
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
