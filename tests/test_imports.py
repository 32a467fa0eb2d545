"""Objects named by a dotted path."""

import sys
from collections import OrderedDict
from pathlib import Path

import pytest

from prefsweep.errors import UserError
from prefsweep.pipeline.imports import import_object


def test_a_dotted_path_gives_the_object() -> None:
    assert import_object("collections.OrderedDict") is OrderedDict


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("OrderedDict", "_target_=OrderedDict: not a dotted path; set package.module.name"),
        ("..x", "_target_=..x: not a dotted path; set package.module.name"),
        ("no_such.module.run", "_target_=no_such.module.run: no module no_such; set package.module.name"),
        ("collections.no.run", "_target_=collections.no.run: no module collections.no; set package.module.name"),
        (
            "collections.OrderedDic",
            "_target_=collections.OrderedDic: module collections has no OrderedDic (nearest: OrderedDict)",
        ),
    ],
)
def test_what_is_missing_is_one_line(path: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        import_object(path)
    assert str(error.value) == message


def test_a_module_with_a_broken_import_keeps_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "needs_more.py").write_text("import no_such_dependency\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        import_object("needs_more.run")
    sys.modules.pop("needs_more", None)
