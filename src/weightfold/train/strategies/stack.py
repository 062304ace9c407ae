"""Networks of one architecture that take each optimizer step together, as one vmapped batch."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from weightfold.core.charted import Charted
from weightfold.tasks.task import Task
from weightfold.train.objective import Penalty
from weightfold.train.recipe import Recipe
from weightfold.train.steps import make_optimizer, mean_scores

Tensors = dict[str, Tensor]


class Stack:
    """Networks of one architecture; the tensors of several are stacked to (networks, *shape).

    Args:
        nets: At least one; left unchanged. All in one device's memory. A single one runs without
            vmap. A network whose loss is not finite spoils no other.
        task: What they learn: its losses and scores; data may differ.
        recipe: Of all.
        randomness: Of dropout and the like in a stack of several: "different" in each network, or
            "error", which refuses it.

    Raises:
        ValueError: The networks differ in the names or shapes of their tensors, or have nothing to
            train; or there are several and the task cannot be stacked.
    """

    def __init__(
        self,
        nets: Sequence[nn.Module],
        task: Task,
        recipe: Recipe,
        randomness: Literal["error", "different"] = "different",
    ) -> None:
        self.recipe, self.count, self._randomness = recipe, len(nets), randomness
        if self.count > 1 and not task.stackable:
            raise ValueError(
                f"task {task.name!r} cannot be trained on by {self.count} networks as one batch; "
                "train one after another, together=1"
            )
        self.task, self._scores = task, mean_scores(task)
        layout = _layout(nets[0])
        for index, net in enumerate(nets):
            if _layout(net) != layout:
                raise ValueError(
                    f"network {index} differs from the first in the names, shapes or dtypes of its "
                    "tensors; train networks of one architecture together"
                )
        self._objective = deepcopy(_Objective(nets[0], task, recipe))
        if self.count == 1:
            parameters = dict(self._objective.named_parameters())
            buffers = dict(self._objective.named_buffers())
        else:
            parameters, buffers = stack_module_state(
                [_Objective(net, task, recipe) for net in nets]
            )
        self.trained: Tensors = {n: p for n, p in parameters.items() if p.requires_grad}
        if not self.trained:
            raise ValueError("the network has no trainable parameter")
        frozen = {n: p for n, p in parameters.items() if not p.requires_grad}
        self.rest: Tensors = {n: t.detach() for n, t in (frozen | buffers).items()}
        # Constants that all have in common stay where they are: vmap then works on less.
        net = nets[0]
        constants = net.constant_names() if isinstance(net, Charted) else []
        for name in (f"net.{constant}" for constant in constants):
            values = self._stacked(buffers[name])
            if all(torch.equal(values[0], other) for other in values):
                del self.rest[name]
        decay = 0.0 if recipe.penalizes_theta else recipe.weight_decay
        self.optimizer = make_optimizer(self.trained.values(), recipe, decay)

    def step(self, x: Tensor, y: Any, lr: float) -> Tensor:
        """One optimizer step of every network.

        Args:
            x: Inputs, (networks, B, ...).
            y: Targets, (networks, B, ...); of a single network whatever its task takes, in a list.
            lr: Learning rate.

        Returns:
            float64 (networks, 1 + scores) on the CPU: the loss, without decay, and the scores, each
            summed over examples.
        """
        self._objective.train()
        if self.count == 1:
            losses, scores, penalties = self._objective(x[0], y[0])
            losses = losses[None] if losses.dim() else losses.expand(1, len(y[0]))
            scores = {name: score[None] for name, score in scores.items()}
        else:
            losses, scores, penalties, rest = self._call(self.trained, self.rest, x, y)
            self.rest = {name: tensor.detach() for name, tensor in rest.items()}
        self.optimizer.zero_grad()
        (losses.mean(dim=1) + penalties).sum().backward()
        self._clip()
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        summed = [losses.detach().sum(dim=1), *(scores[name].sum(dim=1) for name in self._scores)]
        return torch.stack(summed, dim=1).cpu().double()

    def _call(self, trained: Tensors, rest: Tensors, x: Tensor, y: Any) -> tuple[Any, ...]:
        def one(trained: Tensors, rest: Tensors, x: Tensor, y: Any) -> tuple[Any, ...]:
            scores = functional_call(self._objective, trained | rest, (x, y))
            return *scores, rest

        return vmap(one, randomness=self._randomness)(trained, rest, x, y)

    @property
    def columns(self) -> int:
        """Of what `step` returns."""
        return 1 + len(self._scores)

    def _stacked(self, tensor: Tensor) -> Tensor:
        """View with a first dimension of networks; that of a single one is left out in store."""
        return tensor if self.count > 1 else tensor[None]

    def _clip(self) -> None:
        """Bring each network's gradient down to clip_norm."""
        if self.recipe.clip_norm is None:
            return
        gradients = [self._stacked(t.grad) for t in self.trained.values() if t.grad is not None]
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
        net = self._objective.net.eval()
        if self.count == 1:
            return self.task.read(net(x if shared else x[0]))[None]
        tensors = {_short(n): t for n, t in (self.trained | self.rest).items() if _short(n)}
        call = vmap(
            lambda t, x: self.task.read(functional_call(net, t, (x,))),
            in_dims=(0, None if shared else 0),
        )
        return call(tensors, x)

    def of(self, index: int, *, copy: bool = True) -> Tensors:
        """One network's tensors by name, but for constants that all have in common."""
        tensors = {
            _short(n): self._stacked(t)[index].detach()
            for n, t in (self.trained | self.rest).items()
            if _short(n)
        }
        return {n: t.clone() for n, t in tensors.items()} if copy else tensors

    def fill(self, nets: Sequence[nn.Module]) -> None:
        """Give each network its tensors."""
        for index, net in enumerate(nets):
            tensors = self.of(index, copy=False)
            with torch.no_grad():
                for name, tensor in (*net.named_parameters(), *net.named_buffers()):
                    if name in tensors:
                        tensor.copy_(tensors[name])

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


def stackable(net: nn.Module, task: Task, device: torch.device | str = "cpu") -> bool:
    """Whether copies of a network can be run as one batch and learn what they would alone.

    vmap knows no recurrent layers, no batch norm with momentum=None and no branching on values; and
    a buffer that a forward replaces, in place of changing it, would stay as it is.

    Args:
        net: On the device; left unchanged.
        task: What it learns.
        device: Where it is.
    """
    if not task.stackable:
        return False
    few = task.dataset.train.select(torch.arange(min(8, len(task.dataset.train)))).to(device)
    x, y = task.dataset.normalize(few.inputs), few.targets
    several, alone = Stack([net, net], task, Recipe()), deepcopy(net).train()
    devices = [x.device] if x.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices):
            several.outputs(x, shared=True)
            several.step(x.expand(2, *x.shape), torch.stack([y, y]), 0.0)
            alone(x)
    except RuntimeError:
        return False
    start, after = dict(net.named_buffers()), several.of(0)
    changed = {n: not torch.equal(b, start[n]) for n, b in alone.named_buffers()}
    return not any(changed[n] and torch.equal(after[n], start[n]) for n in changed if n in after)


class _Objective(nn.Module):
    """The loss of each example, its scores, and the decay that is part of the loss."""

    def __init__(self, net: nn.Module, task: Task, recipe: Recipe) -> None:
        super().__init__()
        self.net, self._task = net, task.with_smoothing(recipe.label_smoothing)
        self.penalty = Penalty(net, recipe) if recipe.penalizes_theta else None

    def forward(self, x: Tensor, y: Any) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        losses, scores = self._task.objective(self.net, x, y)
        penalty = losses.new_zeros(()) if self.penalty is None else self.penalty()
        return losses, scores, penalty


def _short(name: str) -> str:
    """Name within the network; "" for the penalty's own."""
    return name.removeprefix("net.") if name.startswith("net.") else ""


def _layout(net: nn.Module) -> list[Any]:
    tensors = (*net.named_parameters(), *net.named_buffers())
    return [(name, tuple(t.shape), t.dtype, t.requires_grad) for name, t in tensors]
