"""Street View House Numbers (Netzer et al. 2011)."""

from importlib.util import find_spec
from pathlib import Path

import torch
from torchvision import datasets
from torchvision.datasets.utils import check_integrity

from weightfold.data.dataset import Dataset, ImageSet, mean_and_std
from weightfold.data.registry import reader
from weightfold.data.torchvision_files import fetch

_FILES = ("train_32x32.mat", "test_32x32.mat")
_SOURCE = "train_32x32.mat and test_32x32.mat (http://ufldl.stanford.edu/housenumbers)"


@reader("svhn", f"{_SOURCE}, or add download=true")
def svhn(root: Path, *, download: bool = False) -> Dataset:
    """SVHN: 73,257 and 26,032 house-number digits, 32 x 32, color; extra 'svhn'.

    torchvision opens the files after it has found their official checksums; digit 0 is class 0.

    Raises:
        ImportError: scipy is not installed.
    """
    if find_spec("scipy") is None:
        raise ImportError("SVHN's files are read by scipy: pip install 'weightfold[svhn]'")
    for file in _FILES:
        if not download and not (root / file).exists():
            raise FileNotFoundError(
                f"{root / file} is missing; 'svhn' needs {_SOURCE}, or add download=true"
            )
    try:
        train, test = (
            _image_set(fetch("svhn", datasets.SVHN, root, split=part, download=download))
            for part in ("train", "test")
        )
    except OSError:
        for _, file, md5 in datasets.SVHN.split_list.values():
            path = root / file
            if file in _FILES and path.exists() and not check_integrity(path, md5):
                raise ValueError(
                    f"{path} is not the official file, so it is not opened; get {_SOURCE}"
                ) from None
        raise
    mean, std = mean_and_std(train)
    record = {"source": "train_32x32.mat, test_32x32.mat"}
    return Dataset("svhn", train, test, 10, mean, std, tuple("0123456789"), record)


def _image_set(part: datasets.SVHN) -> ImageSet:
    return ImageSet(
        torch.from_numpy(part.data).contiguous(), torch.from_numpy(part.labels.astype("int64"))
    )
