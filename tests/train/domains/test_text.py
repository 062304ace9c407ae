import numpy as np
import pytest

from weightfold.train.domains import parse_domains


@pytest.fixture
def file(tmp_path):
    random = np.random.default_rng(0)
    x, y = random.integers(0, 255, (20, 6, 6), dtype=np.uint8), np.arange(20) % 3
    path = tmp_path / "some.npz"
    np.savez(path, x_train=x, y_train=y, x_test=x, y_test=y)
    return path


def test_every_domain_has_its_options(file):
    found = parse_domains([f"small={file}", f" big-2 = {file},size=8,rgb=true"])
    assert list(found) == ["small", "big-2"]
    assert found["small"].train.shape == (1, 6, 6)
    assert found["big-2"].train.shape == (3, 8, 8)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "no domain is given"),
        (["mnist"], "domain 'mnist' has no name"),
        (["mnist,size=32"], "domain 'mnist,size=32' has no name"),
        (["digits="], "domain 'digits=' has no name"),
        (["a b=mnist"], "'a b' is no name of a domain"),
        (["a=mnist", "a=usps"], "'a' is named twice"),
        (["a=nothing_like_it"], "'nothing_like_it' is neither"),
    ],
)
def test_what_is_no_domain_is_refused(texts, message):
    with pytest.raises(ValueError, match=message):
        parse_domains(texts)
