"""The tensors of several networks of one architecture, and a step of all of them by vmap."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from weightfold.core.charted import Charted
from weightfold.core.copying import copied
from weightfold.core.gradients import coordinates, warn_unreached
from weightfold.core.slots import split_name
from weightfold.tasks.task import Task, naming_dtype
from weightfold.train.optimizer import make_optimizer
from weightfold.train.penalty import Penalty
from weightfold.train.recipe import Recipe
from weightfold.train.strategies.attributes import Attributes
from weightfold.train.strategies.base import mean_scores

Tensors = dict[str, Tensor]


class Stack:
    """The tensors of several networks of one architecture, stacked to (networks, *shape).

    Args:
        nets: At least two; left unchanged. All in one device's memory. A network whose loss is not
            finite spoils no other.
        task: What they learn: its losses and scores; data may differ.
        recipe: Of all.
        randomness: Of dropout and the like: "different" in each network, or "error", which refuses
            it.

    Raises:
        ValueError: The networks differ in the names or shapes of their tensors, or have nothing to
            train; or the task cannot be stacked. `step` and `outputs` raise it of a network whose
            forward changes what is no buffer, and RuntimeError of one that vmap cannot run.
    """

    def __init__(
        self,
        nets: Sequence[nn.Module],
        task: Task,
        recipe: Recipe,
        randomness: Literal["error", "different"] = "different",
    ) -> None:
        self.recipe, self.count, self._randomness = recipe, len(nets), randomness
        if not task.stackable:
            raise ValueError(
                f"task {task.name!r} cannot be trained on by {self.count} networks as one batch; "
                "train one after another, together=1"
            )
        self.task, self.scores = task, mean_scores(task)
        layout = _layout(nets[0])
        for index, net in enumerate(nets):
            if _layout(net) != layout:
                raise ValueError(
                    f"network {index} differs from the first in the names, shapes or dtypes of its "
                    "tensors; train networks of one architecture together"
                )
        self._objective = copied(_Objective(nets[0], task, recipe))
        self._attributes, self._ran = Attributes(self._objective), False
        objectives = [_Objective(net, task, recipe) for net in nets]
        parameters, buffers = stack_module_state(objectives)
        self.trained: Tensors = {n: p for n, p in parameters.items() if p.requires_grad}
        if not self.trained:
            raise ValueError("the network has no trainable parameter")
        frozen = {n: p for n, p in parameters.items() if not p.requires_grad}
        self.rest: Tensors = {n: t.detach() for n, t in (frozen | buffers).items()}
        # Constants that all have in common stay where they are: vmap then works on less.
        net = nets[0]
        constants = net.constant_names() if isinstance(net, Charted) else []
        for name in (f"net.{constant}" for constant in constants):
            values = buffers[name]
            if all(torch.equal(values[0], other) for other in values):
                del self.rest[name]
        decay = 0.0 if recipe.penalizes_theta else recipe.weight_decay
        self.optimizer = make_optimizer(self.trained.values(), recipe, decay)

    def step(self, x: Tensor, y: Tensor, lr: float) -> Tensor:
        """One optimizer step of every network.

        Args:
            x: Inputs, (networks, B, ...).
            y: Targets, (networks, B, ...).
            lr: Learning rate.

        Returns:
            (networks, 2 + scores): examples, and their losses without decay and scores summed.
        """
        self._objective.train()
        losses, scores, penalties, rest = self._call(self.trained, self.rest, x, y)
        first, self._ran = not self._ran, True
        if first:
            self._attributes.check()
        self.rest = {name: tensor.detach().contiguous() for name, tensor in rest.items()}
        self.optimizer.zero_grad()
        (losses.mean(dim=1) + penalties).sum().backward()
        if first:
            warn_unreached(coordinates(self._objective), self.trained)
        self._clip()
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        summed = losses.detach().sum(dim=1)
        seen = torch.full_like(summed, x.shape[1])
        return torch.stack(
            [seen, summed, *(scores[name].sum(dim=1) for name in self.scores)], dim=1
        )

    def _call(self, trained: Tensors, rest: Tensors, x: Tensor, y: Tensor) -> tuple[Any, ...]:
        def one(trained: Tensors, rest: Tensors, x: Tensor, y: Tensor) -> tuple[Any, ...]:
            losses, scores, penalty, buffers = functional_call(
                self._objective, trained | rest, (x, y)
            )
            # A forward may replace a buffer as well as change it.
            return losses, scores, penalty, {n: buffers.get(n, rest[n]) for n in rest}

        with self._naming():
            return vmap(one, randomness=self._randomness)(trained, rest, x, y)

    @contextmanager
    def _naming(self) -> Iterator[None]:
        """Say of an error of vmap what it means."""
        try:
            with naming_dtype(self._objective.net):
                yield
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            raise RuntimeError(
                f"several of a {type(self._objective.net).__name__} do not run as one batch: "
                f"{error}; train one after another, together=1"
            ) from error

    def _clip(self) -> None:
        """Bring each network's gradient down to clip_norm."""
        if self.recipe.clip_norm is None:
            return
        gradients = [t.grad for t in self.trained.values() if t.grad is not None]
        norms = torch.stack([g.flatten(1).norm(dim=1) for g in gradients])
        scale = (self.recipe.clip_norm / (norms.norm(dim=0) + 1e-6)).clamp(max=1)
        for gradient in gradients:
            gradient.mul_(scale.view(-1, *[1] * (gradient.dim() - 1)))

    @torch.no_grad()
    def outputs(self, x: Tensor, *, shared: bool) -> Tensor:
        """What the task reads of each network's outputs, (networks, B, ...), in eval mode.

        Args:
            x: Inputs, (B, ...) if they are the same for all networks, else (networks, B, ...).
            shared: Whether they are.
        """
        net = _WithBuffers(self._objective.net).eval()
        rest = {n: t for n, t in self.rest.items() if short(n)}

        def one(trained: Tensors, rest: Tensors, x: Tensor) -> tuple[Any, Tensors]:
            outputs, buffers = functional_call(net, trained | rest, (x,))
            return self.task.read(outputs), {n: buffers.get(n, rest[n]) for n in rest}

        with self._naming():
            call = vmap(one, in_dims=(0, 0, None if shared else 0))
            outputs, rest = call(self.trained, rest, x)
        self._attributes.check()
        self.rest |= {name: tensor.contiguous() for name, tensor in rest.items()}
        return outputs

    def of(self, index: int) -> Tensors:
        """One network's tensors by name, but for constants that all have in common."""
        return {
            short(n): t[index].detach() for n, t in (self.trained | self.rest).items() if short(n)
        }

    def fill(self, nets: Sequence[nn.Module]) -> None:
        """Give each network its tensors."""
        for index, net in enumerate(nets):
            fill(net, self.of(index))

    def state_dict(self) -> dict[str, Any]:
        """Tensors of all networks and of the optimizer."""
        return {
            "trained": {n: t.detach() for n, t in self.trained.items()},
            "rest": self.rest,
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned; without the optimizer's state if that is None."""
        with torch.no_grad():
            for part, tensors in (("trained", self.trained), ("rest", self.rest)):
                for name, tensor in tensors.items():
                    tensor.copy_(state[part][name])
        if state["optimizer"] is not None:
            self.optimizer.load_state_dict(state["optimizer"])


@torch.no_grad()
def fill(net: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy tensors, by name, into a network's parameters and buffers."""
    for name, tensor in (*net.named_parameters(), *net.named_buffers()):
        if name not in tensors:
            continue
        given = tensors[name]
        if given.shape == tensor.shape and given.dtype == tensor.dtype:
            tensor.copy_(given)
        else:  # a buffer that a forward made anew, of another kind
            path, attribute = split_name(name)
            net.get_submodule(path)._buffers[attribute] = given.clone()


def stackable(net: nn.Module, task: Task, device: torch.device | str = "cpu") -> bool:
    """Whether copies of a network can be run as one batch and learn what they would alone.

    vmap knows no recurrent layers, no batch norm with momentum=None and no branching on values.

    Args:
        net: On the device; left unchanged.
        task: What it learns.
        device: Where it is.
    """
    if not task.stackable:
        return False
    few = task.dataset.train.select(torch.arange(min(8, len(task.dataset.train)))).to(device)
    x, y = task.dataset.normalize(few.inputs), few.targets
    several = Stack([net, net], task, Recipe())
    try:
        with torch.random.fork_rng([x.device] if x.device.type == "cuda" else []):
            several.outputs(x, shared=True)
            several.step(x.expand(2, *x.shape), torch.stack([y, y]), 0.0)
    except (RuntimeError, ValueError):
        return False
    return True


class _Objective(nn.Module):
    """The loss of each example, its scores, the decay that is part of the loss, and the buffers."""

    def __init__(self, net: nn.Module, task: Task, recipe: Recipe) -> None:
        super().__init__()
        self.net, self._task = net, task
        self.penalty = Penalty(net, recipe) if recipe.penalizes_theta else None
        self._places = [
            (f"{path}.{name}", module, name)
            for path, module in self.named_modules()
            for name in module._buffers
        ]

    def forward(self, x: Tensor, y: Any) -> tuple[Tensor, dict[str, Tensor], Tensor, Tensors]:
        losses, scores = self._task.objective(self.net, x, y)
        penalty = losses.new_zeros(()) if self.penalty is None else self.penalty()
        buffers = {place: module._buffers.get(name) for place, module, name in self._places}
        return losses, scores, penalty, {n: t for n, t in buffers.items() if t is not None}


class _WithBuffers(nn.Module):
    """A network that gives its buffers too, of which a forward may replace some."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> tuple[Any, Tensors]:
        outputs = self.net(x)
        return outputs, dict(self.named_buffers())


def short(name: str) -> str:
    """Name within the network; "" for the penalty's own."""
    return name.removeprefix("net.") if name.startswith("net.") else ""


def _layout(net: nn.Module) -> list[Any]:
    tensors = (*net.named_parameters(), *net.named_buffers())
    return [(name, tuple(t.shape), t.dtype, t.requires_grad) for name, t in tensors]
