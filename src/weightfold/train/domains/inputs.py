"""What training on domains begins with: their data, networks, start weights."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from weightfold.core.checkpoint_file import named_as, read_checkpoint
from weightfold.data import Dataset
from weightfold.methods.share.names import check_names
from weightfold.methods.share.plan import Plan
from weightfold.nets import build
from weightfold.records import read_record
from weightfold.train.domains.text import parse_domains


def read_domains(texts: Iterable[str], root: Path | None) -> dict[str, Dataset]:
    """The data of domains given as NAME=DATASET, all with equally many channels.

    Raises:
        ValueError: A text, a name or a data set is wrong, which the message names; no domain; or
            images of different channels.
        FileNotFoundError: As `weightfold.data.load`.
    """
    texts = list(texts)
    check_names([text.partition("=")[0].strip() for text in texts if "=" in text])
    found: dict[str, Dataset] = {}
    for text in texts:
        try:
            found |= parse_domains([text], root)
        except ValueError as error:
            raise ValueError(f"domain {text!r}: {error}" if "=" in text else error) from error
    if not found:
        raise ValueError("no domain is given; write 'name=dataset', such as 'digits=mnist'")
    channels = {name: dataset.image_shape[0] for name, dataset in found.items()}
    if len(set(channels.values())) > 1:
        shown = ", ".join(f"{name}: {count}" for name, count in channels.items())
        raise ValueError(
            f"domains have images of different channels ({shown}); add ',rgb=true' to the gray ones"
        )
    return found


def heads_of(texts: Iterable[str]) -> dict[str, int]:
    """Domains given as NAME=CLASSES.

    Raises:
        ValueError: A text is not of that form, or a name is given twice.
    """
    found: dict[str, int] = {}
    for text in texts:
        name, _, count = text.partition("=")
        if not (count.isascii() and count.isdigit() and int(count) > 0):
            raise ValueError(
                f"heads: {text!r} is not NAME=CLASSES, of 1 class or more; write 'birds=200'"
            )
        check_names([*found, name])
        found[name] = int(count)
    return found


def seeded_model(spec: str, *, classes: int, channels: int, seed: int = 0) -> nn.Module:
    """A network with initial weights of a seed; torch's global state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(spec, num_classes=classes, in_channels=channels)


def check_sizes(model: nn.Module, datasets: Mapping[str, Dataset], spec: str) -> None:
    """Refuse images that the network does not take.

    Raises:
        ValueError: As said; the message names the domain.
    """
    for name, dataset in datasets.items():
        shape = dataset.image_shape
        if (error := _refusal(model, shape)) is not None:
            raise ValueError(
                f"domain {name!r}: {spec!r} does not take its images of {shape}: {error}; "
                "add ',size=PIXELS' or ',rgb=true' to its data set"
            ) from error


def check_shape(model: nn.Module, shape: tuple[int, int, int], spec: str) -> None:
    """Refuse a shape of images (C, H, W) that the network does not take.

    Raises:
        ValueError: As said.
    """
    if (error := _refusal(model, shape)) is not None:
        raise ValueError(
            f"image_shape={shape}: {spec!r} does not take such images: {error}; "
            "give image_shape as (channels, height, width)"
        ) from error


def read_plan(path: Path) -> Plan:
    """A plan that `weightfold domains plan --out` wrote.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no plan.
    """
    try:
        return Plan.from_json(read_record(path))
    except ValueError as error:
        raise ValueError(f"plan={str(path)!r}: {error}; give what 'plan --out' wrote") from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """A plain network's state_dict from a safetensors file, or one of torch.save.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds no state_dict.
    """
    if not path.is_file():
        raise FileNotFoundError(f"weights={str(path)!r} is no file; give one of a state_dict")
    try:
        return read_checkpoint(path)
    except ValueError as error:
        raise ValueError(f"weights={str(path)!r} holds no state_dict: {error}") from error


def take_weights(model: nn.Module, weights: Mapping[str, Tensor], head: str) -> list[str]:
    """Fill `model` with trained weights, all but a classifier of other classes.

    Args:
        model: Changed in place.
        weights: A plain state_dict.
        head: Path of the classifier.

    Returns:
        Names of the classifier's tensors that were left as they are.

    Raises:
        ValueError: The weights are another network's; the message names what differs.
    """
    own = model.state_dict()
    weights = named_as(weights, own)
    differ = [n for n in own.keys() & weights.keys() if own[n].shape != weights[n].shape]
    left = [name for name in differ if name.rpartition(".")[0] == head]
    missing = [n for n in own.keys() - weights.keys() if not n.endswith("num_batches_tracked")]
    wrong = [f"{n!r} is {tuple(weights[n].shape)} there, {tuple(own[n].shape)} here"
             for n in set(differ) - set(left)]  # fmt: skip
    wrong += [f"it lacks {name!r}" for name in missing if name.rpartition(".")[0] != head]
    wrong += [f"it has {name!r} besides" for name in weights.keys() - own.keys()]
    if wrong:
        more = f" and {len(wrong) - 3} more differences" if len(wrong) > 3 else ""
        raise ValueError(
            f"weights are of another network than this {type(model).__name__}: "
            f"{'; '.join(sorted(wrong)[:3])}{more}"
        )
    model.load_state_dict({n: t for n, t in weights.items() if n not in left}, strict=False)
    return sorted(left)


def _refusal(model: nn.Module, shape: tuple[int, ...]) -> Exception | None:
    """Why the network takes no image of a shape; None if it does. Its mode is left as found."""
    training = model.training
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, *shape))
    except (RuntimeError, ValueError, TypeError) as error:
        return error
    finally:
        model.train(training)
    return None
