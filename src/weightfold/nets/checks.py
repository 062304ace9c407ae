"""What networks check of their options and images."""

from torch import Tensor


def at_least(least: int, **options: int) -> None:
    """Refuse options below `least`.

    Raises:
        ValueError: One of them is.
    """
    for name, value in options.items():
        if value < least:
            raise ValueError(f"{name}={value} must be at least {least}")


def image_size(x: Tensor, size: int) -> None:
    """Refuse images (B, C, H, W) that are not `size` x `size`.

    A module whose networks torch.fx shall trace wraps it (`fx.wrap`): it branches on the shape.

    Raises:
        ValueError: They have another size.
    """
    if x.shape[-2:] != (size, size):
        raise ValueError(
            f"images of {tuple(x.shape[-2:])} pixels given; this network takes {size} x {size}"
        )
