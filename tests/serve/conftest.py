"""An engine whose answers are known, that can be held up and that fails when asked to."""

import io
import threading

import pytest
import torch
from PIL import Image

from weightfold.serve.engine import Preprocessing

COLOR = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.25, 0.3)}


class FakeEngine:
    """Probabilities of an image depend on it and its domain alone, to the last bit."""

    def __init__(self):
        self._known = {
            "birds": (("crow", "kite", "wren"), Preprocessing((3, 16, 16), **COLOR)),
            "cars": (("bus", "van"), Preprocessing((3, 12, 12), **COLOR)),
            "digits": (tuple("0123456789"), Preprocessing((1, 8, 8), (0.1,), (0.3,))),
            "broken": (("a", "b"), Preprocessing((3, 8, 8), **COLOR)),
        }
        generator = torch.Generator().manual_seed(0)
        self._weights = {
            name: torch.randn(len(classes), *prepared.image_shape, generator=generator)
            for name, (classes, prepared) in self._known.items()
        }
        self.domains = list(self._known)
        self.version, self.outdated, self.update_refused = 0, False, None
        self.batches = []
        self.gate = threading.Event()
        self.gate.set()

    def classes(self, domain):
        return self._known[domain][0]

    def preprocessing(self, domain):
        return self._known[domain][1]

    def predict(self, images, domains):
        self.batches.append(list(domains))
        assert self.gate.wait(60)
        if "broken" in domains:
            raise RuntimeError("broken weights")
        pairs = zip(images, domains, strict=True)
        return [self.one(image, domain) for image, domain in pairs]

    def one(self, image, domain):
        return (self._weights[domain] * image).flatten(1).sum(1).div(20).softmax(0)

    def stats(self):
        return {"resident": ["birds", "cars"], "bytes": 1000, "hits": 7, "misses": 2}


@pytest.fixture
def engine():
    return FakeEngine()


@pytest.fixture
def picture():
    """Bytes of a picture of noise, a different one for each seed."""

    def make(seed=0, size=(20, 17), kind="PNG"):
        generator = torch.Generator().manual_seed(seed)
        pixels = torch.randint(256, (size[1], size[0], 3), generator=generator, dtype=torch.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels.numpy()).save(file, kind)
        return file.getvalue()

    return make
