"""Packages that come with an extra."""

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
