"""The reader of JSON records: what it refuses, and that it says which file and field."""

import json
from dataclasses import dataclass
from typing import Annotated, Literal, NotRequired, TypedDict

import pytest

from weightfold import records
from weightfold.records import conform, matching, read_record, sealed, within, write_record


@dataclass
class Point:
    x: int
    y: float | None = None


class Drawing(TypedDict):
    name: Annotated[str, matching("[a-z]+", "name of a drawing")]
    points: list[Point]
    size: tuple[int, int]
    color: NotRequired[Literal["red", "blue"]]
    weights: NotRequired[dict[str, float]]
    layers: NotRequired[Annotated[int, within(1, 9)]]


GOOD = {"name": "cat", "points": [{"x": 1, "y": 0.5}, {"x": 2}], "size": [3, 4]}


def test_what_is_written_is_read(tmp_path):
    write_record(tmp_path / "a.json", GOOD)
    found = read_record(tmp_path / "a.json", Drawing)
    assert {**found, records.SEAL: 0} == {**GOOD, records.SEAL: 0}


def test_a_record_of_an_earlier_version_has_no_hash(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(GOOD))
    assert read_record(tmp_path / "a.json", Drawing) == GOOD


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": "Cat"}, "'name'.*name of a drawing"),
        ({"name": None}, "'name'"),
        ({"points": {}}, "'points'"),
        ({"points": [{"x": 1}, {"x": "2"}]}, r"'points\[1\]\.x'"),
        ({"points": [{"x": True}]}, r"'points\[0\]\.x'"),
        ({"points": [{"x": 10**30}]}, r"'points\[0\]\.x'"),
        ({"points": [{"y": 1}]}, r"'points\[0\]' lacks 'x'"),
        ({"points": [{"x": 1, "z": 1}]}, r"'points\[0\]' has a field 'z'"),
        ({"size": [1]}, "'size' has 1 values, not 2"),
        ({"size": [1, "2"]}, r"'size\[1\]'"),
        ({"color": "green"}, "'color'"),
        ({"weights": {"a": "1"}}, r"'weights\.a'"),
        ({"layers": 10}, "'layers' is 10, not from 1 to 9"),
    ],
)
def test_a_wrong_field_is_named(tmp_path, change, field):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(sealed({**GOOD, **change})))
    with pytest.raises(ValueError, match=rf"a\.json is damaged.*{field}"):
        read_record(path, Drawing)


def test_a_missing_field_is_named():
    with pytest.raises(ValueError, match="here: it lacks 'name'"):
        conform({"points": [], "size": [1, 2]}, Drawing, "here")


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(size=[4, 3]),
        lambda d: d.update(name="dog"),
        lambda d: d.update(points=d.pop("points")),  # the order alone
        lambda d: d["points"].reverse(),
        lambda d: d.update(sha256="0" * 64),
    ],
)
def test_a_change_by_accident_is_seen(tmp_path, change):
    path = tmp_path / "a.json"
    write_record(path, GOOD)
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    with pytest.raises(ValueError, match=r"a\.json was changed"):
        read_record(path, Drawing)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[1]",
        b"null",
        b"\xff\xfe",
        b'{"a": 1, "a": 2}',
        b"[" * 10_000 + b"]" * 10_000,
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        b'{"a":' * 100 + b"1" + b"}" * 100,
        b'{"a": 1' + b"0" * 10_000 + b"}",
    ],
    ids=range(10),
)
def test_no_json_of_a_sane_depth(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.json is damaged"):
        read_record(tmp_path / "a.json")


def test_a_large_file_is_not_read(tmp_path):
    with (tmp_path / "a.json").open("wb") as file:
        file.truncate(2**40)  # a hole, which takes no place on the disk
    with pytest.raises(ValueError, match=rf"a\.json .*{records.MAX_BYTES:,} bytes"):
        read_record(tmp_path / "a.json")


def test_what_is_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.json"):
        read_record(tmp_path / "a.json")
    with pytest.raises(ValueError, match="is no file"):
        read_record(tmp_path)
