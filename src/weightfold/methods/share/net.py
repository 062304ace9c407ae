"""SharedNet: one backbone, many domains."""

from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

from weightfold.core.arguments import checked_seed
from weightfold.core.chart import Chart
from weightfold.core.charted import Charted
from weightfold.core.mixins import NO_CONTEXT
from weightfold.core.preprocessing import Preprocessing
from weightfold.core.slots import check_state
from weightfold.folding import fold_batch_norm
from weightfold.methods.share.chart import Sharing
from weightfold.methods.share.heads import reset_head
from weightfold.methods.share.mixture import Mixture
from weightfold.methods.share.names import check_classes, check_names
from weightfold.methods.share.outputs import joined, tensors_of, with_tensors
from weightfold.methods.share.plan import Plan
from weightfold.methods.share.separation import APART, Separation, separation

Batch = Tensor | Mapping[str, Tensor]
_IDS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


class SharedNet(Charted, holds="sharing"):
    """A network whose domains own some filters, their batch norm and their classifier.

    `parameters()` are (C - E) + K (E + B + H) numbers: shared filters once, and for each of the K
    domains its own filters, batch norm and classifier. No replaced filter is computed or kept.

    In eval mode batch norm uses each domain's running statistics; in train mode each domain's
    images are normalised among themselves and update that domain's statistics alone. Domains that
    are not in a call get no gradient (`grad` stays None) and no change of any buffer. Each process
    of several normalises its own images: an own SyncBatchNorm does not wait for the others.

    Not for several threads at once; `weightfold.serve` is.
    """

    def __init__(self, model: nn.Module, charts: Iterable[Chart]) -> None:
        super().__init__(model, charts)
        self._separations: dict[tuple[bool, frozenset[int]], Separation] = {}

    @property
    def sharing(self) -> Sharing:
        """The chart."""
        return self.charts[0]  # type: ignore[return-value]

    @property
    def domains(self) -> list[str]:
        """Names, in the order of ids."""
        return list(self.sharing.classes)

    @property
    def classes(self) -> dict[str, int]:
        """Number of classes of every domain."""
        return dict(self.sharing.classes)

    @property
    def about(self) -> dict[str, Any]:
        """What goes with each domain, as JSON values; saved with the net."""
        return self.sharing.about

    @property
    def plan(self) -> Plan | None:
        """From `wf.plan_sharing`; None if the chart was made without one."""
        return None if self.sharing.plan is None else Plan.from_json(self.sharing.plan)

    def forward(
        self,
        x: Batch,
        *,
        domain: str | Tensor | Sequence[str] | None = None,
        at: Mapping[str, Any] = NO_CONTEXT,
    ) -> Any:
        """Logits of a batch of one domain, of a mixture, or of one batch per domain.

        Args:
            x: float (B, C, H, W); or domain -> such a batch, of any sizes, in one forward.
            domain: The domain of all images; or of each: int64 (B,), positions in `domains` (a
                list of them, too), or B names. None if `x` is a mapping, or `at` holds the domain.
            at: Per-call coordinates of the charts above this net.

        Returns:
            (B, classes); of a mixture (B, most classes of its domains), -inf where an image's
            domain has no such class; of a mapping, domain -> (B, classes). If the network returns
            several tensors (a tuple, a mapping, a dataclass), the same structure of them.

        A mixture runs in one forward if the network keeps images and classes apart, as a few images
        of noise show at the first mixture of each mode (train, eval); else domain by domain.

        Raises:
            KeyError: No such domain; the message lists them.
            TypeError: `domain`, or what the network returns for a mixture, is of another kind.
            ValueError: Ids out of range or not one an image, an empty batch, a domain beside a
                mapping, or outputs of several domains that cannot be joined by image.
        """
        if isinstance(x, Mapping):
            if domain is not None:
                raise ValueError(f"domain={domain!r}, but x is by domain already; leave it out")
            return self._together(x, at)
        if domain is None or isinstance(domain, str):
            known = at if domain is None else {**at, "domain": domain}
            return super().forward(x, at=known)
        names = self._names(domain, len(x))
        if len(set(names)) == 1:
            return super().forward(x, at={**at, "domain": names[0]})
        found = self.separation(x)
        if not found.together:
            return self._apart(x, names, at)
        level = not self.training and self.sharing.layout.images_apart
        mixture, order = Mixture.arrange(names, level=level)
        outputs = super().forward(x[order.to(x.device)], at={**at, "domain": mixture})
        back = torch.empty(len(x), dtype=torch.int64, device="cpu")
        back[order] = torch.arange(len(order), device="cpu")
        tensors = [tensor[back.to(x.device)] for tensor in tensors_of(outputs)]
        for place, axis in enumerate(found.class_axes):
            if axis is not None:
                tensors[place] = self._without_absent(tensors[place], names, axis)
        return with_tensors(outputs, iter(tensors))

    def _apart(self, x: Tensor, names: Sequence[str], at: Mapping[str, Any]) -> Any:
        """A mixture, domain by domain."""
        places = {
            name: torch.tensor([i for i, n in enumerate(names) if n == name], device="cpu")
            for name in dict.fromkeys(names)
        }
        parts = [
            super(SharedNet, self).forward(x[place.to(x.device)], at={**at, "domain": name})
            for name, place in places.items()
        ]
        return joined(parts, list(places.values()))

    def separation(self, x: Tensor) -> Separation:
        """Whether domains may run together; seen at the first mixture of a mode, and kept."""
        return self._see_constant() if torch.compiler.is_compiling() else self._see(x)

    @torch._dynamo.assume_constant_result
    def _see_constant(self) -> Separation:
        """The same while torch.compile traces, on an image of the size that the plan has."""
        if self.plan is None:
            return APART
        like = next(iter(self.parameters()))
        return self._see(torch.empty(self.plan.choice["input_size"]).to(like))

    def _see(self, x: Tensor) -> Separation:
        key = self.training, frozenset(self.classes.values())
        if key in self._separations:
            return self._separations[key]
        try:
            found = separation(self, self.sharing, x)
        except TypeError:  # outputs of a kind that cannot be taken apart
            found = APART
        except Exception:  # noise does not run; whether this batch does will be seen
            return APART
        return self._separations.setdefault(key, found)

    def _without_absent(self, tensor: Tensor, names: Sequence[str], axis: int) -> Tensor:
        counts = torch.tensor([self.classes[name] for name in names], device=tensor.device)
        absent = torch.arange(tensor.shape[axis], device=tensor.device) >= counts[:, None]
        shape = [1] * tensor.dim()
        shape[0], shape[axis] = absent.shape
        return tensor.masked_fill(absent.view(shape), -torch.inf)

    def _names(self, domain: Tensor | Sequence[str], images: int) -> list[str]:
        """The domain of each image."""
        whole = isinstance(domain, Tensor) and domain.dtype in _IDS
        if isinstance(domain, Tensor) and (domain.dim() != 1 or not whole):
            shape = f"{domain.dtype} {tuple(domain.shape)}"
            raise ValueError(f"domain is {shape}; give int64 ({images},), an id per image")
        if not hasattr(domain, "__len__") or isinstance(domain, Mapping):
            raise TypeError(f"domain={domain!r}; give a name, or a name or an id per image")
        given = domain.tolist() if isinstance(domain, Tensor) else list(domain)
        if len(given) != images or images == 0:
            raise ValueError(f"domain names {len(given)} images, x holds {images}; give one each")
        if not all(isinstance(d, Integral) and not isinstance(d, bool) for d in given):
            return [self._known(name) for name in given]
        known, ids = self.domains, [int(d) for d in given]
        if min(ids) < 0 or max(ids) >= len(known):
            raise ValueError(
                f"domain has ids from {min(ids)} to {max(ids)}; the {len(known)} domains are "
                + ", ".join(f"{i}: {name}" for i, name in enumerate(known))
            )
        return [known[i] for i in ids]

    def _known(self, name: Any) -> str:
        if not isinstance(name, str) or name not in self.sharing.classes:
            raise KeyError(f"domain={name!r}; the domains are {', '.join(self.domains)}")
        return name

    def _together(self, batches: Mapping[str, Tensor], at: Mapping[str, Any]) -> dict[str, Tensor]:
        """Logits of a batch per domain; images of one size run as one mixture."""
        sizes: dict[torch.Size, list[str]] = {}
        for name, x in batches.items():
            if len(x) == 0:
                raise ValueError(f"x[{name!r}] is empty; leave the domain out, or give images")
            sizes.setdefault(x.shape[1:], []).append(self._known(name))
        if not sizes:
            raise ValueError("x is empty; give a batch for at least one domain")
        found: dict[str, Any] = {}
        for names in sizes.values():
            separated = len(names) > 1 and self.separation(batches[names[0]])
            if not separated or not separated.together:
                for name in names:
                    found[name] = super().forward(batches[name], at={**at, "domain": name})
                continue
            mixture = Mixture(tuple(names), tuple(len(batches[name]) for name in names))
            x = mixture.join([batches[name] for name in names])
            outputs = super().forward(x, at={**at, "domain": mixture})
            parts = [mixture.part(tensor) for tensor in tensors_of(outputs)]
            axes = separated.class_axes or (None,) * len(parts)
            for place, name in enumerate(names):
                own = (
                    part[place] if axis is None else part[place].narrow(axis, 0, self.classes[name])
                    for part, axis in zip(parts, axes, strict=True)
                )
                found[name] = with_tensors(outputs, own)
        return {name: found[name] for name in batches}

    def _set_context(self, at: Mapping[str, Any]) -> None:
        if at:
            self.sharing.check(at["domain"])
            at = {**at, "norms": self.sharing.states(at["domain"])}
        super()._set_context(at)

    def deploy(
        self,
        at: Mapping[str, Any] = NO_CONTEXT,
        *,
        domain: str | None = None,
        fold_bn: bool = False,
    ) -> nn.Module:
        """The plain network of one domain: original class and keys, the domain's classifier.

        It is fed as `about` says of the domain (`weightfold.Preprocessing`); its batch norms have
        the mode, momentum and eps of the domain's own.

        Args:
            at: Per-call coordinates; `domain` is the same as `at={"domain": domain}`.
            domain: Whose.
            fold_bn: Fold each batch norm into the convolution before it (eval mode).

        Raises:
            KeyError: No such domain; the message lists them.
        """
        at = at if domain is None else {**at, "domain": domain}
        plain = super().deploy(at)
        name = at.get("domain")
        for path, (state,) in self.sharing.states(name).items() if isinstance(name, str) else ():
            norm: Any = plain.get_submodule(path)
            norm.training, norm.momentum, norm.eps = state[:3]
        told = Preprocessing.of_record(self.about.get(str(at.get("domain")), {}))
        Preprocessing.detach(plain) if told is None else told.attach(plain)
        return fold_batch_norm(plain) if fold_bn else plain

    def add_domain(
        self,
        name: str,
        classes: int,
        *,
        from_domain: str | None = None,
        weights: Mapping[str, Tensor] | None = None,
        seed: int = 0,
    ) -> None:
        """Add a domain; shared filters and the other domains stay bit for bit.

        Args:
            name: Letters, digits, "-" and "_".
            classes: Of its classifier, which starts anew from `seed`.
            from_domain: Start from this domain's own filters and batch norm.
            weights: Start from the plain network's state_dict instead (ImageNet's); of shared
                filters nothing is taken.
            seed: Of the classifier's initial weights.

        Raises:
            ValueError: The name is taken or no name, `classes` below 1 or more than a shared head
                has, neither or both starts are given.
            KeyError: No such `from_domain`, or `weights` of another architecture.
        """
        if name in self.domains:
            raise ValueError(f"domain {name!r} is there already, beside {', '.join(self.domains)}")
        check_names([name])
        classes, seed = check_classes({name: classes})[name], checked_seed(seed)
        if 0 < (rows := self.sharing.layout.shared_head) < classes:
            raise ValueError(f"classes={classes}, but the head that all domains share has {rows}")
        if (from_domain is None) == (weights is None):
            raise ValueError(
                f"{name!r} needs one start: from_domain, one of {', '.join(self.domains)}, or "
                "weights, a plain state_dict"
            )
        source = self.lower({"domain": self._known(from_domain or self.domains[0])})
        start = source.state_dict(keep_vars=True)
        if weights is not None:
            head = self.sharing.layout.head + "."
            check_state(
                {n: t for n, t in start.items() if not n.startswith(head)},
                {n: t for n, t in weights.items() if not n.startswith(head)},
            )
            with torch.no_grad():
                for key in start.keys() & weights.keys():
                    if start[key].shape == weights[key].shape:
                        start[key].copy_(weights[key])
        self.sharing.add(name, classes, start, like=from_domain)
        reset_head(self.sharing, name, seed)

    def remove_domain(self, name: str) -> None:
        """Remove a domain; ids of later ones move down by one.

        Raises:
            KeyError: No such domain.
            ValueError: It is the only one.
        """
        if self.domains == [self._known(name)]:
            raise ValueError(f"domain={name!r} is the only one; a net needs one")
        self.sharing.remove(name)
