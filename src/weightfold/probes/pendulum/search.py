"""Training a policy for the cart-pole by the cross-entropy method, in its weights or a subspace."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from weightfold.methods.subspace.verb import subspace
from weightfold.train.seeding import mixed_seed

TASK = "CartPole-v1"
LONGEST = 500
"""Steps of an episode that ends with the pole upright."""
PARAMETERS = 562
"""Of the policy."""

_ELITE = 8
"""One of so many policies of a generation is kept."""
_NOISE = 0.1
"""Added to the spread at first, as a share of the first spread; none from half the generations."""

Weights = dict[str, Tensor]
"""Name -> the tensors of several policies, (policies, *shape)."""


def policy(seed: int) -> nn.Sequential:
    """The untrained policy: observations float32 (B, 4) to a value of each action, (B, 2).

    Li et al. print its 562 parameters alone. Two hidden layers of 20 units make so many, and are
    what the authors' published script for the cart-pole asks for; ReLU and He's normal weights are
    their code's.

    Args:
        seed: Of the weights.
    """
    # On "meta" the layers draw no weights of their own, which would come from the global generator.
    with torch.device("meta"):
        layers = [nn.Linear(4, 20), nn.ReLU(), nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 2)]
    net = nn.Sequential(*layers).to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    for layer in net:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            nn.init.zeros_(layer.bias)
    return net


def gymnasium() -> Any:
    """The library of tasks.

    Raises:
        ImportError: It is not installed.
    """
    try:
        import gymnasium as library
    except ImportError as error:
        raise ImportError("the pendulum needs gymnasium: pip install 'weightfold[rl]'") from error
    return library


@torch.no_grad()
def returns(net: nn.Module, weights: Weights, episodes: int, seed: int) -> Tensor:
    """Let policies play, all episodes side by side, each taking the action of larger value.

    Args:
        net: Of the policies; its own weights are not used.
        weights: Of the policies.
        episodes: Of each policy.
        seed: Of where they start.

    Returns:
        float64 (policies, episodes): steps until the pole fell or the cart left, at most 500.

    Raises:
        ImportError: gymnasium is not installed.
    """
    count = len(next(iter(weights.values())))
    envs = gymnasium().make_vec(
        TASK, num_envs=count * episodes, vectorization_mode="vector_entry_point"
    )
    observed, _ = envs.reset(seed=seed)
    total = torch.zeros(count * episodes, dtype=torch.float64)
    playing = torch.ones(count * episodes, dtype=torch.bool)
    values = vmap(lambda given, x: functional_call(net, given, (x,)))
    while playing.any():
        x = torch.from_numpy(observed).view(count, episodes, -1)
        actions = values(weights, x).argmax(dim=-1).flatten()
        observed, rewards, fallen, over, _ = envs.step(actions.numpy())
        total += torch.from_numpy(rewards) * playing
        # The tasks start anew by themselves; what follows is no longer of this episode.
        playing &= ~torch.from_numpy(fallen | over)
    envs.close()
    return total.view(count, episodes)


def coordinates(
    net: nn.Module, dim: int | None, seed: int
) -> tuple[int, Callable[[Tensor], Weights]]:
    """The coordinates that are searched, 0 at the weights of `net`.

    Args:
        net: The policy.
        dim: Of a random subspace; None for all parameters.
        seed: Of the subspace.

    Returns:
        Their number d, and a function from float32 (policies, d) to the weights.
    """
    if dim is not None:
        chart = subspace(net, dim, kind="srht", seed=seed).charts[0]
        return dim, vmap(lambda psi: functional_call(chart, {"psi": psi}, ()))
    start = dict(net.named_parameters())
    sizes = [p.numel() for p in start.values()]

    def moved(psi: Tensor) -> Weights:
        parts = zip(start.items(), psi.split(sizes, dim=1), strict=True)
        return {name: p + part.view(-1, *p.shape) for (name, p), part in parts}

    return sum(sizes), moved


@torch.no_grad()
def train(
    dim: int | None,
    seed: int,
    *,
    population: int,
    generations: int,
    episodes: int,
    test_episodes: int,
    show: Callable[[float], None] = lambda share: None,
) -> tuple[float, int]:
    """Train a policy and test it; see `pendulum_dimension` for the method and arguments.

    Args:
        dim: Coordinates, or None for all parameters.
        seed: Of all that is random.
        population: Policies of a generation.
        generations: At most.
        episodes: Of a policy of a generation.
        test_episodes: Of the policy at the end.
        show: Called with the share of the generations that is done.

    Returns:
        Mean return of the test episodes, and how many generations there were.
    """
    net = policy(mixed_seed("policy", seed))
    count, weights = coordinates(net, dim, mixed_seed("subspace", seed, count_name(dim)))
    generator = torch.Generator().manual_seed(mixed_seed("search", seed, count_name(dim)))
    first = nn.utils.parameters_to_vector(net.parameters()).norm() / count**0.5
    mean, spread = torch.zeros(count), first.expand(count)
    generation = 0
    for generation in range(1, generations + 1):
        psi = mean + spread * torch.randn(population, count, generator=generator)
        start = mixed_seed("episodes", seed, count_name(dim), generation)
        scores = returns(net, weights(psi), episodes, start)
        best = psi[scores.mean(dim=1).topk(population // _ELITE).indices]
        noise = _NOISE * first * max(0.0, 1 - 2 * generation / generations)
        mean, spread = best.mean(dim=0), best.std(dim=0, correction=0) + noise
        show(generation / generations)
        if scores.min() == LONGEST:
            break
    tested = returns(net, weights(mean[None]), test_episodes, mixed_seed("test", seed))
    return tested.mean().item(), generation


def count_name(dim: int | None) -> str:
    """A dimension in names of files and seeds."""
    return "all" if dim is None else str(dim)
