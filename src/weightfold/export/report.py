"""What an export wrote."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ExportReport:
    """A file and how well it computes; `dataclasses.asdict` of it is JSON.

    Attributes:
        path: The file.
        bytes: Its size, with the file of weights beside it, if there is one.
        max_relative_difference: Per batch size, or per domain of a net with several: max |file -
            torch| / max |torch|. Over inputs of standard deviation 1 and 1000, or over batches of
            one domain and of several. 0 means bit for bit.
        opset: Version of the ONNX operator set; None for other files.
        operators: How many nodes of each kind an ONNX file has.
    """

    path: str
    bytes: int
    max_relative_difference: dict[Any, float]
    opset: int | None = None
    operators: dict[str, int] = field(default_factory=dict)
