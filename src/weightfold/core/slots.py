"""Where tensors sit in a model: canonical names, ties, and slots emptied for a chart to fill."""

import difflib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.parameter import UninitializedTensorMixin  # type: ignore[attr-defined]

from weightfold.core.copying import copied, kept_tensors


@dataclass(frozen=True)
class Slots:
    """The tensors of a model.

    Attributes:
        tensors: Canonical (first) name -> tensor; parameters and buffers.
        canonical: Every name, aliases included -> canonical name.
        places: Canonical name -> one name for each (module, attribute) that holds the tensor;
            more than one where weights are tied.
    """

    tensors: dict[str, Tensor]
    canonical: dict[str, str]
    places: dict[str, tuple[str, ...]]

    @classmethod
    def of(cls, model: nn.Module) -> "Slots":
        """List the parameters and buffers of `model`, ties and doubly registered modules too."""
        tensors: dict[str, Tensor] = {}
        canonical: dict[str, str] = {}
        places: dict[str, list[str]] = {}
        first: dict[int, str] = {}
        seen: set[tuple[int, str]] = set()
        for prefix, module in model.named_modules(remove_duplicate=False):
            for attribute, tensor in (*module._parameters.items(), *module._buffers.items()):
                if tensor is None:
                    continue
                name = f"{prefix}.{attribute}" if prefix else attribute
                canonical[name] = first.setdefault(id(tensor), name)
                tensors.setdefault(canonical[name], tensor)
                if (id(module), attribute) not in seen:
                    seen.add((id(module), attribute))
                    places.setdefault(canonical[name], []).append(name)
        return cls(tensors, canonical, {name: tuple(p) for name, p in places.items()})

    def resolve(self, name: str) -> str:
        """Canonical name of `name`.

        Raises:
            KeyError: No tensor has that name; the message lists the nearest ones.
        """
        if name not in self.canonical:
            near = difflib.get_close_matches(name, self.canonical, n=3, cutoff=0.5)
            if f"{'.'.join(name.split('.')[:-1])}.parametrizations" in " ".join(self.canonical):
                near = ["the parametrized tensor's `.original`"]
            raise KeyError(
                f"the model has no tensor {name!r}; "
                + (f"nearest: {', '.join(near)}" if near else f"it has {list(self.canonical)[:8]}")
            )
        return self.canonical[name]


def split_name(name: str) -> tuple[str, str]:
    """Split 'a.b.weight' into the module path 'a.b' and the attribute 'weight'."""
    path, _, attribute = name.rpartition(".")
    return path, attribute


def tensor_at(root: nn.Module, name: str) -> Tensor:
    """The tensor `name` of `root`, also while functional_call has put a plain tensor there."""
    path, attribute = split_name(name)
    return getattr(root.get_submodule(path), attribute)


def check_chartable(model: nn.Module, name: str, tensor: Tensor) -> None:
    """Refuse tensors that a chart cannot compute without being silently wrong.

    Raises:
        ValueError: The tensor is lazy or belongs to a recurrent layer.
    """
    module = model.get_submodule(split_name(name)[0])
    if isinstance(tensor, UninitializedTensorMixin):
        raise ValueError(
            f"tensor {name!r} of the lazy layer {type(module).__name__} has no shape yet; "
            "run the model once on an example input, then chart it"
        )
    if isinstance(module, nn.RNNBase):
        raise ValueError(
            f"tensor {name!r} belongs to the recurrent layer {type(module).__name__}, which keeps "
            "a second list of its weights; leave it out with `where`"
        )


def runs_as(layer: nn.Module, classes: tuple[type[nn.Module], ...]) -> bool:
    """Whether a layer computes what one of `classes` does: nothing of its own, and no hook."""
    base = next((kind for kind in classes if isinstance(layer, kind)), None)
    return base is not None and not _overrides(layer, base) and not hooks_of(layer)


def _overrides(layer: nn.Module, base: type[nn.Module]) -> bool:
    """Whether its class or itself has something in the place of what `base` computes with."""
    kind = type(layer)
    for below in kind.__mro__[: kind.__mro__.index(base)]:
        if below.__module__.startswith("torch.nn.modules."):
            continue
        for name, value in vars(below).items():
            if name in _HARMLESS or (name.startswith("__") and name not in _CALLING):
                continue
            if isinstance(value, property) or hasattr(base, name) or name in vars(layer):
                return True
    own = vars(layer).items()
    return any(n not in _HARMLESS and callable(v) and hasattr(kind, n) for n, v in own)


_HARMLESS = ("extra_repr", "reset_parameters", "train", "eval")
_CALLING = ("__call__", "__getattr__", "__getattribute__")


def hooks_of(layer: nn.Module) -> list[Callable]:
    """Forward and backward hooks, but for guards of ours."""
    return [
        hook
        for found in (
            layer._forward_pre_hooks,
            layer._forward_hooks,
            layer._backward_pre_hooks,
            layer._backward_hooks,
        )
        for hook in found.values()
        if not isinstance(hook, PlaceholderGuard)
    ]


_EMPTY = object()


class PlaceholderGuard:
    """Forward pre-hook of a module in which a chart computes tensors: refuses other calls.

    Attributes:
        name: Name, within the module, of a tensor that is absent outside `Charted.forward`.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def applies(self, module: nn.Module) -> bool:
        """Whether the tensor is absent now; one whose layer an executor replaced never is."""
        path, attribute = split_name(self.name)
        layer = module.get_submodule(path)
        known = layer._parameters if attribute in layer._parameters else layer._buffers
        return known.get(attribute, module) is None

    def __call__(self, module: nn.Module, args: tuple) -> None:
        """Raise if a computed tensor is absent, which only a call from elsewhere can meet.

        Raises:
            RuntimeError: The module ran outside `Charted.forward`.
        """
        if self.applies(module):
            raise RuntimeError(
                f"{type(module).__name__}.{self.name} is computed by a chart and exists only "
                "inside Charted.forward, but the module was called outside it. Activation "
                "checkpointing inside the model does that in backward: checkpoint the charted net "
                "as a whole instead, torch.utils.checkpoint.checkpoint(net, x)"
            )


def naming_computed(net: nn.Module, fn: Callable[[nn.Module], None]) -> Callable[[nn.Module], None]:
    """`fn` for `Module.apply`, whose failure on modules with absent tensors is explained."""
    paths = {module: path for path, module in net.named_modules()}

    def named(module: nn.Module) -> None:
        try:
            fn(module)
        except (AttributeError, TypeError) as error:
            hooks = module._forward_pre_hooks.values()
            if not any(isinstance(hook, PlaceholderGuard) for hook in hooks):
                raise
            raise RuntimeError(
                f"apply: tensors of {paths.get(module)!r} ({type(module).__name__}) are computed "
                "by a chart, None outside forward; initialise the model before it is charted, "
                f"or apply to net.charts ({error})"
            ) from error

    return named


def with_placeholders(model: nn.Module, places: Iterable[str]) -> nn.Module:
    """Deep copy of `model` in which the tensors at `places` are absent (None), never copied.

    Args:
        model: Left unchanged.
        places: One name for each (module, attribute) to empty.

    Raises:
        ValueError: A module keeps one of the tensors elsewhere too, or see `copied`.
    """
    places = tuple(places)
    originals = [model.get_submodule(split_name(p)[0]) for p in places]
    tensors = [getattr(m, split_name(p)[1]) for m, p in zip(originals, places, strict=True)]
    _check_not_kept(model, dict(zip(map(id, tensors), places, strict=True)))
    skeleton = copied(model, {id(t): _EMPTY for t in tensors})
    guarded: dict[str, str] = {}
    for place in places:
        path, attribute = split_name(place)
        module = skeleton.get_submodule(path)
        known = module._parameters if attribute in module._parameters else module._buffers
        known[attribute] = None
        for prefix in _prefixes(path):
            guarded.setdefault(prefix, place[len(prefix) + 1 :] if prefix else place)
    for prefix, name in guarded.items():
        skeleton.get_submodule(prefix).register_forward_pre_hook(PlaceholderGuard(name))
    return skeleton


def _check_not_kept(model: nn.Module, names: Mapping[int, str]) -> None:
    """Refuse tensors (id -> name) that a module keeps elsewhere too, in a list for example."""
    for path, module, attribute, tensor in kept_tensors(model):
        if id(tensor) in names:
            raise ValueError(
                f"module {path!r} ({type(module).__name__}) also keeps {names[id(tensor)]!r} in "
                f"{attribute!r}, where no chart can put what it computes; read the tensor from its "
                "layer in forward, or leave it out with `where`"
            )


def check_state(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    """Compare keys and shapes of two state_dicts.

    Raises:
        KeyError: They differ; the message lists up to five keys of each sort.
        TypeError: `given` is no mapping, or what should be a tensor is none.
    """
    if not isinstance(given, Mapping):
        raise TypeError(f"state is a {type(given).__name__}; give a state_dict")
    for key, tensor in wanted.items():
        if isinstance(tensor, Tensor) and not isinstance(given.get(key, tensor), Tensor):
            raise TypeError(f"state[{key!r}] is a {type(given[key]).__name__}; give a tensor")
        if isinstance(found := given.get(key), Tensor) and found.is_meta and not tensor.is_meta:
            raise TypeError(f"state[{key!r}] is on the meta device and has no values")
    missing = [k for k in wanted if k not in given]
    unexpected = [k for k in given if k not in wanted]
    shapes = [
        f"{k} {tuple(given[k].shape)} instead of {tuple(wanted[k].shape)}"
        for k in wanted
        if k in given and isinstance(wanted[k], Tensor) and given[k].shape != wanted[k].shape
    ]
    if missing or unexpected or shapes:
        found = {"missing": missing, "unexpected": unexpected, "other shape": shapes}
        ends = [
            k.removesuffix(missing[0]) for k in unexpected if missing and k.endswith(missing[0])
        ]
        wrapped = [end for end in ends if all(end + key in given for key in missing)]
        raise KeyError(
            "the weights are of another architecture; "
            + "; ".join(
                f"{len(keys)} {what}: {', '.join(keys[:5])}" for what, keys in found.items() if keys
            )
            + (f"; strip {wrapped[0]!r} from the keys" if wrapped else "")
        )


def load_state(model: nn.Module, state: Mapping[str, Tensor], *, strict: bool = True) -> None:
    """Load tensors by name, those of a file too: of the versions that the model's classes have.

    A module may read its version where torch keeps it beside the tensors (MNASNet does).
    """
    given = OrderedDict(state)
    versions = getattr(state, "_metadata", None) or model.state_dict()._metadata  # type: ignore
    given._metadata = versions  # type: ignore[attr-defined]
    model.load_state_dict(given, strict=strict)


def _prefixes(path: str) -> list[str]:
    """'a.b' -> ['a', 'a.b'], the modules that hold it below the root; a root's own: ['']."""
    parts = path.split(".")
    return [".".join(parts[: i + 1]) for i in range(len(parts))]


def fill(skeleton: nn.Module, places: Mapping[str, tuple[str, ...]], tensors: Mapping) -> None:
    """Put tensors into the emptied slots of `skeleton`, in place, one object for all tied places.

    Args:
        skeleton: What `with_placeholders` returned.
        places: Name -> places, as in `Slots`.
        tensors: Name -> Parameter or buffer.
    """
    filled = [(place, tensor) for name, tensor in tensors.items() for place in places[name]]
    for place, tensor in filled:
        path, attribute = split_name(place)
        module = skeleton.get_submodule(path)
        known = module._parameters if attribute in module._parameters else module._buffers
        known[attribute] = tensor
    for prefix in {p for place, _ in filled for p in _prefixes(split_name(place)[0])}:
        module = skeleton.get_submodule(prefix)
        for key, hook in list(module._forward_pre_hooks.items()):
            if isinstance(hook, PlaceholderGuard) and not hook.applies(module):
                del module._forward_pre_hooks[key]


def replace_module(model: nn.Module, path: str, new: nn.Module) -> nn.Module:
    """Put `new` at `path` and at every other path of the same module, in place; return the old."""
    old = model.get_submodule(path)
    aliases = [p for p, m in model.named_modules(remove_duplicate=False) if m is old]
    for alias in aliases:
        model.set_submodule(alias, new)
    return old


def register_at(root: nn.Module, name: str, value: nn.Module | Tensor) -> None:
    """Register a module, Parameter or buffer in `root` under a dotted name, with containers.

    Raises:
        KeyError: `root` has another attribute of the name of a part.
    """
    path, attribute = split_name(name)
    try:
        for part in filter(None, path.split(".")):
            if part not in root._modules:
                root.add_module(part, nn.Module())
            root = root._modules[part]  # type: ignore[assignment]
        if isinstance(value, nn.Module):
            root.add_module(attribute, value)
        elif isinstance(value, nn.Parameter):
            root.register_parameter(attribute, value)
        else:
            root.register_buffer(attribute, value)
    except KeyError as error:
        raise KeyError(
            f"{name!r} cannot be a name in {type(root).__name__}: {error.args[0]}; "
            "rename that part of the model"
        ) from None
