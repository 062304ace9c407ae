"""The teacher of knowledge distillation."""

import copy
from pathlib import Path

from torch import nn

from weightfold.core.charted import check_state
from weightfold.train import checkpoint


def load_teacher(architecture: nn.Module, path: Path | str) -> nn.Module:
    """A teacher from a checkpoint.

    Args:
        architecture: A module of the teacher's architecture; left unchanged.
        path: Its state_dict as safetensors, such as `best.safetensors` of a training run.

    Returns:
        A copy with those weights, in eval mode and without gradients.

    Raises:
        FileNotFoundError: No such file.
        KeyError: The weights are of another architecture; the message says which keys differ.
        ValueError: The file is damaged or was changed.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"teacher weights {path}: no such file; give a .safetensors file")
    state = checkpoint.read_weights(path)
    teacher = copy.deepcopy(architecture)
    try:
        check_state(teacher.state_dict(), state)
    except KeyError as error:
        raise KeyError(f"{path}: {error.args[0]}") from error
    teacher.load_state_dict(state)
    return teacher.eval().requires_grad_(False)
