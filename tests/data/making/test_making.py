"""The frame of all makers: parallel, resumable, the same files whatever the order."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from immersivedepth.checks import ConfigError
from immersivedepth.data import making
from immersivedepth.files import write_text


@dataclass
class Squares:
    """A maker of text files, as plain as can be."""

    settings: making.MakeData
    made: list[int] = field(default_factory=list)

    def path(self, task):
        return self.settings.root / f"{task}.txt"

    def tasks(self):
        return range(self.settings.count)

    def done(self, task):
        return self.path(task).is_file()

    def make(self, task):
        write_text(self.path(task), str(task**2))

    def finish(self):
        return [write_text(self.settings.root / "list.txt", " ".join(str(t) for t in self.tasks()))]


@pytest.fixture
def squares(monkeypatch):
    monkeypatch.setattr(making.MakeData, "maker", lambda settings: Squares(settings))


def test_what_is_missing_is_made(tmp_path, squares):
    write_text(tmp_path / "2.txt", "kept")
    (found,) = making.MakeData("3d60", str(tmp_path), count=4, workers=1)()
    assert found.read_text() == "0 1 2 3"
    assert [(tmp_path / f"{i}.txt").read_text() for i in range(4)] == ["0", "1", "kept", "9"]


def test_a_kind_and_a_folder_are_needed(tmp_path):
    with pytest.raises(ConfigError, match="data.kind has no value: set it to one of 3d60"):
        making.MakeData(folder=str(tmp_path))()
    with pytest.raises(ConfigError, match=r"data.folder has no value"):
        _ = making.MakeData("3d60").root


@pytest.mark.parametrize("kind", making.KINDS)
def test_every_kind_has_its_maker(tmp_path, kind):
    module = Path(making.__file__).parent / f"{making.KINDS[kind][0]}.py"
    if not module.is_file():
        pytest.fail(f"{module.name} is missing")
    maker = making.MakeData(kind, str(tmp_path), count=1).maker()
    assert len(maker.tasks()) >= 1
    assert not any(maker.done(task) for task in maker.tasks())
