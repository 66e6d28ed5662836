"""uploads.py: what is removed here by others while a run is on, or between two, is never removed from the store."""

from __future__ import annotations

import numpy as np
import pytest
from test_parts import MADE, keys_of, video

from featx import parts, remote, store
from featx.errors import FeatxError
from featx.parts import Parts
from featx.resume import recorded
from featx.uploads import RemoteOutput

fsspec = pytest.importorskip("fsspec", reason="the package fsspec is not installed")
ADDRESS = "memory://uploads/f.h5"


@pytest.fixture
def there(monkeypatch):
    """The file system of the store, which is empty."""
    monkeypatch.setattr(parts, "MERGE_PARTS", 3)
    system = fsspec.filesystem("memory")
    if system.exists("/uploads"):
        system.rm("/uploads", recursive=True)
    return system


def below(system):
    return [name.removeprefix("/uploads/") for name in system.find("/uploads") if not name.endswith("writer")]


def write(place, *keys, losing=False, anew=False):
    with Parts(place.output, place.write) as own:
        if anew:
            own.discard()
        for key in keys:
            own.add(video(key), MADE)
            own.flush(MADE)
        if losing:
            store.parts_of(place.output)[0].unlink()
            own.add(video("c"), MADE)
            own.flush(MADE)


def keys_there(system, folder):
    for name in system.find("/uploads"):
        system.get_file(name, str(folder / name.removeprefix("/uploads/")))
    return keys_of(folder / "f.h5")


def test_what_others_removed_here_during_a_run_stays_in_the_store(there, tmp_path):
    (tmp_path / "got/f.h5.parts").mkdir(parents=True)
    with pytest.raises(FeatxError, match="removed by others"), RemoteOutput(ADDRESS, tmp_path, print) as place:
        write(place, "a", "b", losing=True)
    assert keys_there(there, tmp_path / "got") == ["a", "b"]
    notes = []
    with RemoteOutput(
        ADDRESS, tmp_path, notes.append
    ) as place:  # though there is a newer part here, which was not sent
        assert [note for note in notes if "deleted here in part" in note]
        write(place, "c", "d")
        assert keys_of(place.output) == list("abcd")
        store.parts_of(place.output)[0].unlink()
        with pytest.raises(FeatxError, match=f"removed by others .* {ADDRESS}.parts/part-00000002.h5 stays"):
            place.write()  # after the last part
    assert "f.h5.parts/part-00000002.h5" in below(there)


@pytest.mark.parametrize(("at", "anew"), [(2, False), (5, False), (6, True)])
def test_a_run_that_dies_while_it_joins_goes_on_with_all(there, tmp_path, monkeypatch, at, anew):
    """At any step between writing the joined part here and removing the old ones in both places; also the first of a run that
    began anew.
    """

    class Died(BaseException):
        pass

    steps = []

    def dying(method):
        def step(*args, **options):
            if len(steps) == at:
                raise Died
            steps.append(method.__name__)
            return method(*args, **options)

        return step

    with pytest.raises(Died), RemoteOutput(ADDRESS, tmp_path, print) as place:
        write(place, "a", "b")
        for method in ("_remove", "_keep_state"):
            monkeypatch.setattr(place, method, dying(getattr(place, method)))
        monkeypatch.setattr("featx.uploads.remote.put", dying(remote.put))
        monkeypatch.setattr(parts.Path, "unlink", dying(parts.Path.unlink))
        write(place, "c", anew=anew)
        raise Died  # it has done all
    monkeypatch.undo()
    notes = []
    with RemoteOutput(ADDRESS, tmp_path, notes.append) as place:
        with Parts(place.output, place.write) as own:
            assert keys_of(place.output) == (["c"] if anew else list("abc")) and not notes
            own.finish()
        place.write()
    assert below(there) == ["f.h5"]


def test_a_part_that_is_damaged_there_too_is_set_aside(there, tmp_path):
    with RemoteOutput(ADDRESS, tmp_path, print) as place:
        write(place, "a", "b")
    part = store.parts_of(place.output)[0]
    damaged = part.read_bytes().replace(np.float32(1).tobytes(), np.float32(2).tobytes())
    part.write_bytes(damaged)
    there.pipe_file(f"/uploads/f.h5.parts/{part.name}", damaged)
    notes = []
    with RemoteOutput(ADDRESS, tmp_path, notes.append) as place:
        assert recorded(place.output, True, notes.append, place.write) is not None
        assert below(there) == ["f.h5.parts/part-00000001.h5"]
        write(place, "c")
    assert "is now" in notes[0] and "its videos are extracted again" in notes[0]
    (tmp_path / "got/f.h5.parts").mkdir(parents=True)
    assert keys_there(there, tmp_path / "got") == ["b", "c"]
