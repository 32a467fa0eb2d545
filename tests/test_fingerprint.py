"""Equal values hash equal, different values differ, and what has no canonical form raises."""

import json
import math
import os
import random
import shutil
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from prefsweep.config.field import config_field
from prefsweep.pipeline.files import FileHashes, write_json
from prefsweep.pipeline.fingerprint import LENGTH, canonical, fingerprint


@dataclass
class Inner:
    weight: float = config_field()


@dataclass
class Outer:
    rate: float = config_field()
    values: list[float] = config_field()
    named: dict[str, float] | None = config_field()
    inner: Inner = field(default_factory=Inner)


@dataclass
class Pinned:
    steps: int = config_field()
    nickname: str = config_field(hashed=False)
    id: str | None = config_field(unless="path")
    path: str | None = config_field(is_content=True)
    trick: bool = config_field()


def no_content(path: Path) -> str:
    raise AssertionError(f"nothing here is content, {path} neither")


def named(value: Any) -> str:
    return fingerprint(canonical(value, no_content))


def random_value(dice: random.Random, depth: int = 3) -> Any:
    leaves = [None, True, False, dice.randint(-3, 3), *dice.sample([0.5, -1.25, 1e300, "", "a", "é", "1"], 3)]
    if depth == 0 or dice.random() < 0.3:
        return dice.choice(leaves)
    inner = [random_value(dice, depth - 1) for _ in range(dice.randint(0, 3))]
    return inner if dice.random() < 0.5 else dict(zip(dice.sample("abcd", len(inner)), inner, strict=True))


def shuffled(value: Any, dice: random.Random) -> Any:
    """Equal to `value`, its keys in another order and its lists as tuples."""
    if isinstance(value, dict):
        return {key: shuffled(value[key], dice) for key in dice.sample(sorted(value), len(value))}
    return tuple(shuffled(item, dice) for item in value) if isinstance(value, list) else value


def test_one_and_one_point_zero_are_one_wherever_the_schema_says_float(composed: Callable[..., Any]) -> None:
    def stage(beta: str, weights: str) -> str:
        return named(composed(f"stages.dpo.beta={beta}", f"stages.dpo.loss_weights=[{weights}]").stages.dpo)

    assert stage("1", "2") == stage("1.0", "2.0") != stage("1.0", "2.5")


def test_minus_zero_equals_zero() -> None:
    assert named(Inner(-0.0)) == named(Inner(0.0))
    assert named([-0.0]) == named([0.0])


def test_every_field_counts() -> None:
    start = Outer(1.0, [2.0], {"a": 3.0}, Inner(4.0))
    other = {"rate": 0.0, "values": [0.0], "named": None, "inner": Inner(0.0)}
    assert len({named(start), *(named(replace(start, **{name: value})) for name, value in other.items())}) == 5


def test_key_order_and_tuples_do_not_matter() -> None:
    dice = random.Random(0)
    for _ in range(500):
        value = random_value(dice)
        assert named(shuffled(value, dice)) == named(value)
    assert named(OrderedDict(b=1, a=2)) == named({"a": 2, "b": 1})


def test_different_values_differ() -> None:
    dice = random.Random(1)
    seen: dict[str, str] = {}
    for _ in range(3000):
        value = random_value(dice)
        assert seen.setdefault(named(value), json.dumps(value, sort_keys=True)) == json.dumps(value, sort_keys=True)
    assert len(seen) > 1000


@pytest.mark.parametrize(
    "near",
    [
        [1, True, "1", "true", "True", [1], {"1": 1}],
        [None, "", "None", "null", [], {}, False, 0, [None]],
        [["a", "b"], ["b", "a"], ["ab"], [["a"], "b"], ["a", ["b"]], 'a","b'],
        [{"a": None}, {}, {"a": {}}, {"a": {"b": None}}],
        [0.1, 0.1 + 2**-55, 0.30000000000000004, 0.3],
        ["é", "e\u0301", "\\u00e9"],
    ],
    ids=str,
)
def test_what_only_looks_alike_differs(near: list[Any]) -> None:
    assert len({named(value) for value in near}) == len(near)


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, -math.inf, object(), {1, 2}, {1: "a"}, {None: 1}, {("a",): 1}, Path("a"), b"a", 1j, Inner],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("wrap", [lambda it: it, lambda it: [it], lambda it: {"deep": [{"er": it}]}, Inner])
def test_what_has_no_canonical_form_raises(value: Any, wrap: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="no canonical form"):
        named(wrap(value))


def test_a_nickname_does_not_count() -> None:
    assert named(Pinned(3, "one", "hub", None, False)) == named(Pinned(3, "two", "hub", None, False))


def test_an_id_counts_unless_a_path_is_set() -> None:
    def with_path(id: str, path: str | None) -> str:
        return fingerprint(canonical(Pinned(3, "", id, path, False), lambda path: "sha256:same"))

    assert with_path("a", None) != with_path("b", None)
    assert with_path("a", "here") == with_path("b", "there")


def test_the_canonical_form_is_what_it_was() -> None:
    """When this fails, every artifact that anybody has is computed again. Was that wanted?"""
    value = {
        "config": Pinned(3, "x", "hub/id", None, True),
        "typed": Inner(1.0),
        "list": [1, 2.5, None, True, "é", -0.0],
    }
    assert named(value) == "c14eccb26a691c37"
    assert len(named(value)) == LENGTH


# --------------------------------------------------------------------------------------------------- files by content


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "inner").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "inner" / "weights.bin").write_bytes(bytes(range(256)))
    return folder


def content(path: Path) -> str:
    """By fresh eyes."""
    with TemporaryDirectory() as memory:
        return FileHashes(Path(memory) / "hashes.json").of_content(path)


def test_a_moved_folder_keeps_its_name(model: Path, tmp_path: Path) -> None:
    before = fingerprint(canonical(Pinned(3, "", None, str(model), False), content))
    moved = shutil.copytree(model, tmp_path / "deep" / "elsewhere")
    shutil.rmtree(model)
    assert fingerprint(canonical(Pinned(3, "", None, str(moved), False), content)) == before


def test_one_changed_byte_changes_the_name(model: Path) -> None:
    before, weights = content(model), model / "inner" / "weights.bin"
    weights.write_bytes(b"\x01" + weights.read_bytes()[1:])
    assert content(model).startswith("sha256:") and content(model) != before


@pytest.mark.parametrize("to", ["inner/weights.pt", "weights.bin", "inner/deeper/weights.bin"])
def test_a_renamed_file_changes_the_name(model: Path, to: str) -> None:
    before = content(model)
    (model / to).parent.mkdir(exist_ok=True)
    (model / "inner" / "weights.bin").rename(model / to)
    assert content(model) != before


def test_a_file_more_or_less_changes_the_name(model: Path) -> None:
    before = content(model)
    (model / "more").touch()
    more = content(model)
    (model / "more").unlink()
    (model / "config.json").unlink()
    assert len({before, more, content(model)}) == 3


def test_hidden_files_and_folders_do_not_count(model: Path) -> None:
    before = content(model)
    (model / ".cache").mkdir()
    (model / ".cache" / "lock").touch()
    (model / "inner" / ".DS_Store").touch()
    assert content(model) == before


def test_a_single_file_is_named_by_its_bytes_alone(model: Path, tmp_path: Path) -> None:
    other = Path(shutil.copy(model / "config.json", tmp_path / "other.json"))
    assert content(other) == content(model / "config.json") != content(model / "inner" / "weights.bin")


def test_a_path_where_nothing_is_raises(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        content(tmp_path / "missing")


def replace_keeping_size_and_mtime(path: Path) -> None:
    stat = path.stat()
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_a_file_is_read_once_and_remembered_by_the_next_process(model: Path, tmp_path: Path) -> None:
    memory = tmp_path / "memory" / "hashes.json"
    first = FileHashes(memory).of_content(model)
    replace_keeping_size_and_mtime(model / "inner" / "weights.bin")
    assert FileHashes(memory).of_content(model) == first, "was read again"
    assert content(model) != first, "the test tests nothing"


@pytest.mark.parametrize("change", ["size", "mtime"])
def test_a_file_of_another_size_or_mtime_is_read_again(model: Path, tmp_path: Path, change: str) -> None:
    hashes, weights = FileHashes(tmp_path / "hashes.json"), model / "inner" / "weights.bin"
    first, stat = hashes.of_file(weights), weights.stat()
    weights.write_bytes(weights.read_bytes()[::-1] + (b"!" if change == "size" else b""))
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns + (1 if change == "mtime" else 0)))
    assert hashes.of_file(weights) != first


@pytest.mark.parametrize("ruin", [b"", b'{"/a": [1', b"\xff\x00", b"[]", b"null", b'{"FILE": 7}', b'{"FILE": [2]}'])
def test_a_ruined_memory_is_only_forgotten(model: Path, tmp_path: Path, ruin: bytes) -> None:
    memory = tmp_path / "hashes.json"
    before = FileHashes(memory).of_content(model)
    memory.write_bytes(ruin.replace(b"FILE", str((model / "config.json").resolve()).encode()))
    assert FileHashes(memory).of_content(model) == before
    assert len(json.loads(memory.read_text())) == 2


def test_a_file_is_the_old_one_until_the_new_one_is_wholly_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disk_full(descriptor: int) -> None:
        raise OSError("no space left")

    path = tmp_path / "made" / "value.json"
    write_json(path, {"a": 1})
    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space left"):
        patch.setattr(os, "fsync", disk_full)
        write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1}
    write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 2}
    assert [file.name for file in path.parent.iterdir()] == ["value.json"]
