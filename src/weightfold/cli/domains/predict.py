"""`weightfold domains predict`."""

from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass(frozen=True)
class Predict:
    """Classify image files with one domain of a bundle.

    Prints the likeliest classes of each file with their probabilities.
    """

    source: tyro.conf.Positional[Path]
    """A bundle, or the folder of 'domains train' or of one of its strategies that holds it."""

    images: tyro.conf.Positional[tuple[Path, ...]]
    """Image files; they are scaled and normalised as the domain's images were."""

    domain: str
    """Its name."""

    top: int = 1
    """How many classes of each file."""

    model: str | None = None
    """Network, for a bundle that does not tell its own, or names code of yours (module:function),
    which no file may run by itself."""

    def run(self) -> None:
        """Classify."""
        from weightfold.cli.domains.inputs import open_bundle
        from weightfold.serve.engine import Engine
        from weightfold.serve.images import UndecodableImage, check_servable, prepare

        if self.top < 1 or not self.images:
            raise ValueError(f"top={self.top} and {len(self.images)} images; give at least 1 each")
        if missing := [str(path) for path in self.images if not path.is_file()]:
            raise FileNotFoundError(f"images: {missing[0]!r} is no file")
        bundle, model, _ = open_bundle(self.source, self.model)
        engine = Engine(bundle, model)
        names, wanted = engine.classes(self.domain), engine.preprocessing(self.domain)
        check_servable(self.domain, wanted.image_shape)
        prepared = []
        for path in self.images:
            try:
                prepared.append(prepare(path, wanted))
            except UndecodableImage as error:
                raise ValueError(f"{path}: {error}") from error
        for path, image in zip(self.images, prepared, strict=True):
            (answer,) = engine.predict([image], [self.domain])
            values, indices = answer.topk(min(self.top, len(names)))
            found = zip(indices.tolist(), values.tolist(), strict=True)
            print(f"{path}: " + ", ".join(f"{names[i]} {value:.2%}" for i, value in found))
