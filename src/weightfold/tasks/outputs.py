"""Reading what a model returns: a tensor, or one among several."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

MAIN = ("out", "logits")
"""Names of the main output in torchvision's and Hugging Face's outputs."""


def tensor_of(outputs: Any, output: str | int | None = None) -> Tensor:
    """The one tensor that is judged.

    Args:
        outputs: A tensor; or a mapping, a named tuple or a sequence of several.
        output: Which of several, by name or place; None: that called "out" or "logits".

    Raises:
        TypeError: There is no such tensor; the message lists what there is.
    """
    if isinstance(outputs, Tensor) and output is None:
        return outputs
    several = named(outputs)
    if output is None:
        found = next((several[name] for name in MAIN if name in several), None)
    else:
        found = several.get(str(output))
    if isinstance(found, Tensor):
        return found
    listed = ", ".join(several) or type(outputs).__name__
    raise TypeError(
        f"output={output!r} is no tensor among the model's outputs ({listed}); give the name or "
        "the place of the one that is meant"
    )


def auxiliary(outputs: Any) -> list[Tensor]:
    """Outputs of auxiliary classifiers, named "aux...": GoogLeNet, Inception v3, segmentation."""
    return [
        tensor
        for name, tensor in named(outputs).items()
        if name.startswith("aux") and isinstance(tensor, Tensor)
    ]


def named(outputs: Any) -> dict[str, Any]:
    """Outputs by name, or by place where they have none; empty for a tensor."""
    if isinstance(outputs, Tensor):
        return {}
    if isinstance(outputs, Mapping):
        return dict(outputs)
    if hasattr(outputs, "_asdict"):
        return outputs._asdict()
    if isinstance(outputs, list | tuple):
        return {str(place): value for place, value in enumerate(outputs)}
    return {}
