"""The loss of a task as a function of a network's tensors: what curvature and slices are of."""

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_leaves, tree_map

from weightfold.core.arguments import check_values, unwrapped, whole
from weightfold.core.charted import Charted
from weightfold.core.copying import copied
from weightfold.core.select import Where, select
from weightfold.core.slots import split_name
from weightfold.data.batches import Batches
from weightfold.data.contents import moved
from weightfold.data.pairs import Data
from weightfold.probes.layers.batch_norm import recalibrate, running_statistics
from weightfold.tasks.registry import as_task
from weightfold.tasks.task import Task, Terms

Coordinates = Literal["theta", "psi"]
"""The weights of the deployed network, or what the optimizer moves; of a plain network the same."""

BatchNorm = Literal["keep", "recalibrate", "batch"]
"""By which statistics a batch norm normalises: its running ones as they are; those, estimated anew
on training data; or those of each batch, of which the loss then is a function, as in training."""

EXPLAINED: dict[str, str] = {
    "keep": "batch norm with its running statistics, as constants",
    "recalibrate": "batch norm with running statistics estimated anew on training data",
    "batch": "batch norm with the statistics of each batch, as in training",
}
"""In the words of figures and pages."""

CALIBRATION = 1000
"""Training examples that running statistics are estimated on, at most."""

BATCH = 512
"""Examples in a batch, at most, if nobody says."""


class Batch(NamedTuple):
    """A batch, and its share of all examples."""

    inputs: Tensor
    targets: Any
    share: float


class Objective:
    """The mean loss over a part of a task's data, as a function of chosen tensors of a network.

    It is what training makes small (`Task.objective`), without augmentation. The network is copied;
    modules stay in the modes they are in, but for batch norms, which `bn` decides on, and for a
    task whose model computes the loss itself, which is in train mode.

    Args:
        net: A module or a Charted net.
        data: A task; data alone is to be classified.
        coordinates: As `Coordinates`; "theta" deploys a Charted net.
        where: Which trainable tensors; None: all.
        bn: As `BatchNorm`.
        part: "train", "test" or "validation".
        examples: How many, the first of a random order; None: all.
        batch_size: Examples run at once, at most; batches are of equal size, but for one.
        device: Where to compute; None: where the network is.

    Attributes:
        net: The copy.
        task: The task.
        start: The chosen tensors by name.
        form: The network on the meta device, as it was: what checkpoints are held against.
        bn: As given; "none" without batch norms that keep statistics.

    Raises:
        TypeError: `net` is no module.
        ValueError: An argument is out of range, or what is chosen is empty.
    """

    def __init__(
        self,
        net: nn.Module,
        data: Task | Data,
        *,
        coordinates: Coordinates = "theta",
        where: Where = None,
        bn: BatchNorm = "keep",
        part: str = "train",
        examples: int | None = None,
        batch_size: int = BATCH,
        device: torch.device | str | None = None,
    ) -> None:
        net = unwrapped(net)
        check_values(net)
        for name, value, choices in (
            ("coordinates", coordinates, get_args(Coordinates)),
            ("bn", bn, get_args(BatchNorm)),
        ):
            if value not in choices:
                raise ValueError(f"{name}={value!r}; choose one of {', '.join(choices)}")
        self.task = task = as_task(data)
        if part not in task.dataset.parts:
            raise ValueError(f"part={part!r}: the data has {', '.join(task.dataset.parts)}")
        chosen = task.dataset.parts[part]
        if examples is not None and whole(examples, "examples", least=1) < len(chosen):
            order = torch.randperm(len(chosen), generator=torch.Generator().manual_seed(0))
            chosen = chosen.select(order[:examples])
        whole(batch_size, "batch_size", least=1)
        self.examples, self.coordinates, self.part = len(chosen), coordinates, part
        self.net = deployed(net, coordinates)
        if device is not None:
            self.net.to(device)
        self.start = _chosen(self.net, where)
        self.form = copied(self.net).to("meta")
        self.bn = _set_batch_norm(self.net, bn, task)
        if task.model_computes_loss:
            _train_but_batch_norm(self.net)
        for parameter in self.net.parameters():
            parameter.requires_grad_(False)
        like = next(iter(self.start.values()))
        self.device, self.dtype = like.device, like.dtype
        self._chosen = chosen
        self._batches = self._batched(batch_size)

    def _batched(self, size: int) -> Batches:
        """Batches of at most `size`, of equal size but for one."""
        return Batches(
            self._chosen,
            batch_size=-(-self.examples // -(-self.examples // size)),
            mean=self.task.dataset.mean,
            std=self.task.dataset.std,
            augment=None,
            seed=0,
            device=self.device,
            shuffle=False,
        )

    @property
    def size(self) -> int:
        """Number of coordinates."""
        return sum(tensor.numel() for tensor in self.start.values())

    @property
    def statement(self) -> str:
        """What it is the loss of, in a sentence."""
        where = {"theta": "the deployed weights", "psi": "the trained coordinates"}
        norm = "" if self.bn == "none" else f", {EXPLAINED[self.bn]}"
        return (
            f"Mean loss of task {self.task.name!r} over {self.examples:,} {self.part} examples, in "
            f"{self.size:,} of {where[self.coordinates]}{norm}."
        )

    @property
    def count(self) -> int:
        """Number of batches."""
        return len(self._batches)

    def batches(self, first: int = 0) -> Iterator[Batch]:
        """The batches from `first` on, in a fixed order, inputs in the coordinates' dtype."""
        for inputs, targets in self._batches.epoch(0, first):
            share = len(inputs) / self.examples
            yield Batch(inputs.to(self.dtype), moved(targets, self.device), share)

    def terms(self, tensors: Mapping[str, Tensor], inputs: Tensor, targets: Any) -> Terms:
        """What a batch gives with other tensors in place of the chosen ones."""
        return self.task.objective(self.call(tensors), inputs, targets)

    def call(self, tensors: Mapping[str, Tensor]) -> Callable[..., Any]:
        """The network with other tensors in place of the chosen ones."""
        given = dict(tensors)
        return lambda *args: functional_call(self.net, given, args, tie_weights=False)

    def flat(self, tensors: Mapping[str, Tensor] | None = None) -> Tensor:
        """Tensors of the names of `start` (None: these) as one vector, (size,)."""
        tensors = self.start if tensors is None else tensors
        return torch.cat([tensors[name].reshape(-1) for name in self.start])

    def split(self, flat: Tensor) -> dict[str, Tensor]:
        """Inverse of `flat`: name -> view of a part of the vector."""
        sizes = [tensor.numel() for tensor in self.start.values()]
        parts = flat.split(sizes)
        return {n: p.view(t.shape) for (n, t), p in zip(self.start.items(), parts, strict=True)}

    def in_batches_of(self, size: int) -> "Objective":
        """The same loss in batches of at most `size`; as it is where the loss depends on them."""
        if self.bn == "batch" or self.task.model_computes_loss:
            return self
        other = object.__new__(Objective)
        other.__dict__ |= self.__dict__
        other._batches = self._batched(size)
        return other

    def restricted(self, names: list[str]) -> "Objective":
        """The same as a function of some of its tensors alone."""
        other = object.__new__(Objective)
        other.__dict__ |= self.__dict__
        other.start = {name: self.start[name] for name in names}
        return other

    @torch.no_grad()
    def loss(self, tensors: Mapping[str, Tensor] | None = None) -> float:
        """The mean loss at some tensors; None: where the network is."""
        tensors = self.start if tensors is None else tensors
        total = torch.zeros((), dtype=torch.float64)
        for batch in self.batches():
            losses = self.terms(tensors, batch.inputs, batch.targets).losses
            total += batch.share * losses.mean().double().cpu()
        return total.item()

    def gradient(self, tensors: Mapping[str, Tensor] | None = None) -> tuple[float, Tensor]:
        """The mean loss and its gradient, (size,); at some tensors, None: where the network is."""
        start = self.start if tensors is None else tensors
        leaves = {n: t.detach().clone().requires_grad_() for n, t in start.items()}
        value, gradient = 0.0, torch.zeros(self.size, dtype=self.dtype, device=self.device)
        for batch in self.batches():
            loss = self.terms(leaves, batch.inputs, batch.targets).losses.mean() * batch.share
            value += loss.item()
            gradient += grads(loss, list(leaves.values()))
        return value, gradient

    @torch.no_grad()
    def check_deterministic(self) -> None:
        """Refuse a loss that differs from one evaluation to the next.

        Raises:
            ValueError: It does; the message names the modules that draw random numbers.
        """
        batch = next(self.batches())
        devices = [self.device] if self.device.type == "cuda" else []
        found = []
        for seed in (1, 2):
            with torch.random.fork_rng(devices):
                torch.manual_seed(seed)
                found.append(self.terms(self.start, batch.inputs, batch.targets).losses)
        if not torch.equal(found[0].nan_to_num(), found[1].nan_to_num()):
            on = [
                f"{name} ({type(module).__name__})"
                for name, module in self.net.named_modules()
                if isinstance(module, nn.modules.dropout._DropoutNd) and module.training
            ]
            raise ValueError(
                f"net={type(self.net).__name__}: its loss is random"
                + (f", {', '.join(on[:4])} is on" if on else "")
                + "; call net.eval(), or take out of it what draws random numbers"
            )


def check_fits(net: nn.Module, task: Task) -> None:
    """Refuse a network whose outputs, in eval mode and its own dtype, do not fit the task.

    Raises:
        ValueError: They do not.
    """
    dtype = next((p.dtype for p in net.parameters()), torch.float32)
    task.check(net, lambda inputs: net(inputs.to(dtype)))


def grads(of: Tensor, leaves: list[Tensor], by: Tensor | None = None, **options: bool) -> Tensor:
    """The gradient of `of` (weighted by `by`) by the leaves, as one vector; 0 where it has none."""
    if not of.requires_grad:
        return torch.cat([torch.zeros_like(leaf).reshape(-1) for leaf in leaves])
    found = torch.autograd.grad(of, leaves, by, materialize_grads=True, **options)
    return torch.cat([one.reshape(-1) for one in found])


def floats(outputs: Any) -> list[Tensor]:
    """The floating point tensors of what a network returned."""
    found = tree_leaves(outputs)
    return [t for t in found if isinstance(t, Tensor) and t.is_floating_point()]


def with_leaves(outputs: Any) -> Any:
    """What a network returned, its floating point tensors as leaves that want a gradient."""

    def leaf(value: Any) -> Any:
        floating = isinstance(value, Tensor) and value.is_floating_point()
        return value.detach().requires_grad_() if floating else value

    return tree_map(leaf, outputs)


def free_bytes(device: torch.device) -> int:
    """Memory that nothing uses, as far as the system tells."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 2**32


def deployed(net: nn.Module, coordinates: Coordinates) -> nn.Module:
    """A copy of a network whose parameters are the coordinates.

    Raises:
        ValueError: It has different weights in each call.
    """
    if not isinstance(net, Charted):
        return copied(net)
    if context := net.default_context():
        raise ValueError(
            f"net computes other weights for each {', '.join(context)}; give net.deploy(at={{...}})"
        )
    return net.deploy() if coordinates == "theta" else copied(net)


def _chosen(net: nn.Module, where: Where) -> dict[str, Tensor]:
    trainable = {n: p for n, p in net.named_parameters() if p.requires_grad}
    owners = {n: net.get_submodule(split_name(n)[0]) for n in trainable}
    names = select(trainable, where, what="trainable tensor", net=net, types=owners)
    if not names:
        raise ValueError(f"net={type(net).__name__} has no trainable parameter")
    chosen = {name: trainable[name].detach() for name in names}
    kinds = {(t.dtype, t.device) for t in chosen.values()}
    if len(kinds) > 1 or not next(iter(kinds))[0].is_floating_point:
        raise ValueError(f"net={type(net).__name__}: its tensors are of {kinds}; give one of one")
    return chosen


def _set_batch_norm(net: nn.Module, bn: BatchNorm, task: Task) -> str:
    norms = [m for m in net.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not norms:
        return "none"
    for norm in norms:
        norm.eval()
    if bn != "keep" and any(norm.running_mean is None for norm in norms):
        raise ValueError(
            f"bn={bn!r}: a chart computes the running statistics of this net; give net.deploy()"
        )
    if bn == "recalibrate" and running_statistics(net):
        device = next(t.device for t in net.parameters())
        recalibrate(net, task.dataset.limited(train=CALIBRATION).to(device))
    if bn == "batch":
        # Without running statistics nothing is changed in place, and the statistics are functions.
        for norm in norms:
            norm.running_mean = norm.running_var = norm.num_batches_tracked = None
    return bn


def _train_but_batch_norm(net: nn.Module) -> None:
    modes = {m: m.training for m in net.modules() if isinstance(m, _BatchNorm)}
    net.train()
    for norm, training in modes.items():
        norm.training = training
