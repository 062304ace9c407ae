"""The handwritten digits that come inside scikit-learn."""

import numpy as np
import torch

from weightfold.data.dataset import Dataset, Examples, mean_and_std
from weightfold.data.registry import reader
from weightfold.data.splitting import split

_TEST = 600


@reader("digits")
def digits() -> Dataset:
    """Handwritten digits inside scikit-learn: 1,197 to train, 600 to test, 8 x 8 gray.

    The 1,797 images come without a split; 600 test images are taken by `split(.., 600, seed=0)`,
    every digit in proportion. The values, 0 to 16, are scaled to 0 to 255. The same writers occur
    in both parts, so accuracies are higher than on unknown writers.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            "the digits come with scikit-learn: pip install 'weightfold[train]'"
        ) from error
    values, labels = (np.asarray(array) for array in load_digits(return_X_y=True))
    images = np.rint(values * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    everything = Examples(torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64)))
    train, test = split(everything, _TEST, seed=0)
    mean, std = mean_and_std(train)
    names = tuple("0123456789")
    record = {"source": "sklearn.datasets.load_digits"}
    return Dataset("digits", train, test, 10, mean, std, names, record)
