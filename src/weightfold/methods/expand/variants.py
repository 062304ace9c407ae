"""In expanded coordinates: rate=4, first=rm or m, init=paper, variance or preserve, where=down*."""

from functools import partial
from typing import Any

from torch import Tensor, nn

from weightfold.methods.expand.twin import nonlinear_twin
from weightfold.methods.expand.verb import expand
from weightfold.methods.variants import Variant, layers_named

_KINDS: dict[str, dict[str, Any]] = {
    "cl": {"conv": "cl"},
    "ck": {"conv": "ck"},
    "fc": {"conv": None, "linear": "fc"},
    "cl+fc": {"conv": "cl", "linear": "fc"},
    "ck+fc": {"conv": "ck", "linear": "fc"},
}
_OPTIONS = {
    "rate": float,
    "where": str,
    "first": str,
    "init": str,
    "execution": str,
    "start": str,
    "nonlinear": bool,
}


def expanded(
    net: nn.Module,
    example: Tensor,
    seed: int,
    *,
    kind: str,
    where: str | None = None,
    start: str | None = None,
    nonlinear: bool = False,
    **options: Any,
) -> nn.Module:
    """A network in expanded coordinates.

    Args:
        net: The plain one.
        example: Not needed.
        seed: As for `wf.expand`.
        kind: "cl", "ck", "fc", "cl+fc" or "ck+fc".
        where: Layers, as `layers_named` reads them; None: as `wf.expand`.
        start: "folded": the compact network with the folded weights of the untrained expansion
            (Guo et al. 2020, Table 8).
        nonlinear: Its nonlinear twin.
        **options: rate, first, init and execution of `wf.expand`.

    Raises:
        ValueError: Another start, or as `wf.expand` says.
    """
    if start not in (None, "folded"):
        raise ValueError(f"start={start!r}; the only other start is 'folded'")
    found = expand(net, **_KINDS[kind], where=layers_named(where), **options, seed=seed)
    if nonlinear:
        return nonlinear_twin(found)
    return found.deploy() if start else found


VARIANTS = tuple(
    Variant(kind, partial(expanded, kind=kind), _OPTIONS, shaping=("rate", "first", "where"))
    for kind in _KINDS
)
