"""What modules keep outside their tensors, which vmap cannot keep for each network."""

from typing import Any

from torch import Tensor, nn


class Attributes:
    """The attributes of all modules of a network as they are now.

    Args:
        net: Whose attributes are held against these later.
    """

    def __init__(self, net: nn.Module) -> None:
        self._net, self._marks = net, _marks(net)

    def check(self) -> None:
        """Refuse a network whose forward changed one.

        Raises:
            ValueError: It did; the message names module and attribute.
        """
        now = _marks(self._net)
        for key in dict.fromkeys((*self._marks, *now)):
            if not _same(self._marks.get(key), now.get(key)):
                path, name = key
                kind = type(self._net.get_submodule(path)).__name__ if key in now else "module"
                raise ValueError(
                    f"forward changes {name!r} of {path!r} ({kind}), which networks trained as one "
                    "batch cannot each have; make it a buffer (register_buffer, of a tensor), or "
                    "train one after another, together=1"
                )


def _marks(net: nn.Module) -> dict[tuple[str, str], Any]:
    """Module path and attribute -> what tells whether it is still the same."""
    found: dict[tuple[str, str], Any] = {}
    for path, module in net.named_modules():
        for name, value in vars(module).items():
            if name == "training":
                continue
            if name in ("_parameters", "_buffers", "_modules"):
                found |= {(path, key): _mark(entry) for key, entry in value.items()}
            else:
                found[path, name] = _mark(value)
    return found


def _mark(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value, value._version
    if isinstance(value, list | tuple | set | frozenset):
        return [_mark(entry) for entry in value]
    if isinstance(value, dict):
        return [(key, _mark(entry)) for key, entry in value.items()]
    return value


def _same(before: Any, now: Any) -> bool:
    if isinstance(before, list | tuple) and isinstance(now, list | tuple):
        return len(before) == len(now) and all(map(_same, before, now))
    plain = isinstance(before, int | float | str) and type(before) is type(now)
    return before is now or (plain and before == now)
