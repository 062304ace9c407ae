"""A bundle without a server: image files classified, and kernels chosen before serving."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from weightfold.data.decode import UndecodableImage
from weightfold.serve.engine import Engine
from weightfold.serve.images import check_servable, prepare
from weightfold.train.domains.bundles import open_bundle

TUNED_DOMAINS = 4


def predict_files(
    source: Path | str,
    images: Sequence[Path | str],
    domain: str,
    *,
    top: int = 1,
    model: str | None = None,
) -> dict[Path, list[tuple[str, float]]]:
    """The likeliest classes of image files, by one domain of a bundle.

    Args:
        source: A bundle, or the folder of a study or of one of its strategies that holds it.
        images: Image files; they are scaled and normalised as the domain's images were.
        domain: Its name.
        top: How many classes of each file.
        model: Network spec, for a bundle that does not tell its own.

    Returns:
        File -> class names with their probabilities, the likeliest first.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: `top` is below 1, there is no image, or one cannot be decoded.
    """
    if top < 1 or not images:
        raise ValueError(f"top={top} and {len(images)} images; give at least 1 each")
    paths = [Path(path) for path in images]
    if missing := [str(path) for path in paths if not path.is_file()]:
        raise FileNotFoundError(f"images: {missing[0]!r} is no file")
    bundle, net, _ = open_bundle(source, model)
    engine = Engine(bundle, net)
    names, wanted = engine.classes(domain), engine.preprocessing(domain)
    check_servable(domain, wanted.image_shape)
    prepared = []
    for path in paths:
        try:
            prepared.append(prepare(path, wanted))
        except UndecodableImage as error:
            raise ValueError(f"{path}: {error}") from error
    found = {}
    for path, image in zip(paths, prepared, strict=True):
        (answer,) = engine.predict([image], [domain])
        values, indices = answer.topk(min(top, len(names)))
        pairs = zip(indices.tolist(), values.tolist(), strict=True)
        found[path] = [(names[i], value) for i, value in pairs]
    return found


def tune_kernels(engine: Engine, images: int) -> Mapping[str, Any]:
    """Choose kernels on noise of the size that most domains take, if several take one.

    Args:
        engine: Which then runs several domains at once by them.
        images: At once.

    Returns:
        Layer -> its choice; empty if no size is that of several domains.
    """
    sizes: dict[tuple[int, int, int], list[str]] = {}
    for name in engine.domains:
        sizes.setdefault(engine.preprocessing(name).image_shape, []).append(name)
    shape, names = max(sizes.items(), key=lambda item: len(item[1]))
    names = names[:TUNED_DOMAINS]
    if len(names) < 2 or images < len(names):
        return {}
    noise = torch.randn(images, *shape, generator=torch.Generator().manual_seed(0))
    return engine.tune(noise, [names[i % len(names)] for i in range(images)])
