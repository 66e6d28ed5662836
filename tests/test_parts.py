"""parts.py: which files of an output a run owns; what others removed is noticed, and what is not featx's is left alone."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
from feature_files import make_provenance

import featx
from featx import integrity, parts, store
from featx.errors import FeatureFileError, FeatxError, UsageError
from featx.features import Features
from featx.parts import Parts
from featx.provenance import BEGUN, ENDED
from featx.run import merge
from featx.store import reader

MADE = make_provenance()


def video(key: str, value: float = 1.0) -> Features:
    row = np.array([value, 0], np.float32)
    return Features(key, f"/videos/{key}.avi", 16, 1, 25.0, 0.64, descriptors={"fc6": row})


def keys_of(output):
    with store.open_features(output, warn=False) as features:
        return list(features.keys)


def write(output, *keys, finish=True):
    with Parts(output) as own:
        for key in keys:
            own.add(video(key), MADE)
            own.flush(MADE)
        if finish:
            own.finish()


def ways_to_lose(output):
    """What others may remove while a run is on that found a, and wrote b and c."""
    folder = store.parts_folder(output)
    return {
        "the output": lambda: output.unlink(),
        "the newest part": lambda: (folder / "part-00000001.h5").unlink(),
        "all": lambda: shutil.rmtree(output.parent),
    }


@pytest.mark.parametrize(
    ("what", "more"),
    [("the output", False), ("the newest part", True), ("all", False)],
)
def test_what_others_removed_during_a_run_is_noticed(tmp_path, what, more):
    output = tmp_path / "out/f.h5"
    write(output, "a")
    with Parts(output) as own:
        for key in "bc":
            own.add(video(key), MADE)
            own.flush(MADE)
        ways_to_lose(output)[what]()
        if more:
            own.add(video("d"), MADE)
        with pytest.raises(FeatxError, match="removed .*the same command goes on"):
            own.flush(MADE)
        for again in (lambda: own.flush_all(MADE), own.finish, own.compact):
            with pytest.raises(FeatxError, match="removed"):
                again()
    if what == "all":
        assert not output.parent.exists()
        return
    assert keys_of(output) == list({"the output": "bc", "the newest part": "abd"}[what])
    write(output, "e")
    assert [path.name for path in output.parent.iterdir()] == ["f.h5"]


def test_the_file_of_an_output_is_not_made_anew_beside_another_run(tmp_path):
    """Its lock lies in a folder that is gone: a second run is let in, and the first one must not write into its parts."""
    output = tmp_path / "f.h5"
    with Parts(output) as first:
        shutil.rmtree(store.parts_folder(output))
        with Parts(output) as second:
            second.add(video("a"), MADE)
            second.flush(MADE)
            first.add(video("b"), MADE)
            with pytest.raises(FeatxError, match=r"f.h5.parts was removed or replaced while this run wrote there"):
                first.flush(MADE)
            with pytest.raises(FeatxError, match="removed or replaced"):
                first.write_empty(MADE)
            first.close()
            first.close = lambda: None
            with pytest.raises(UsageError, match="another run is writing"):  # the second one's lock stays
                Parts(output)
            second.finish()
    assert keys_of(output) == ["a"]


def test_who_sends_parts_on_is_told_before_they_go(tmp_path, monkeypatch):
    """Each time the named files are still there, and all videos stand in the others, too."""
    monkeypatch.setattr(parts, "MERGE_PARTS", 3)
    output, told = tmp_path / "f.h5", []

    def on_written(leaving):
        rest = [path for path in own._files() if path.name not in leaving]
        held = {key for path in rest for key in keys_of(path)}
        told.append((sorted(leaving), sorted(held)))

    with Parts(output, on_written) as own:
        for key in "abc":
            own.add(video(key), MADE)
            own.flush(MADE)
        own.finish()
    numbered = [f"part-{i:08d}.h5" for i in range(3)]
    assert told == [([], ["a"]), ([], ["a", "b"]), (numbered[:2], ["a", "b", "c"]), (numbered[2:], ["a", "b", "c"])]
    told.clear()
    with Parts(output, on_written) as own:
        own.discard()
        own.add(video("x"), MADE)
        own.flush(MADE)
        own.finish()
    assert told == [(["f.h5"], ["x"]), (["part-00000000.h5"], ["x"])]


@pytest.mark.parametrize("refused", [False, True])
def test_files_of_others_beside_the_parts_stay(tmp_path, refused):
    output = tmp_path / "f.h5"
    folder = store.parts_folder(output)
    write(output, "a", finish=False)
    names = ["notes.txt", "part-00000001 (conflicted copy).h5", ".part-00000000.h5.tmp", ".mine.tmp"]
    for name in names:
        (folder / name).write_text("mine")
    own_leftovers = [folder / ".part-00000007.h5.123.tmp", tmp_path / ".f.h5.123.tmp"]
    for path in own_leftovers:
        path.write_text("half")
    if refused:
        shutil.move(folder / "part-00000000.h5", output)
        with Parts(output):  # and nothing is written
            pass
    else:
        write(output, "b")
    assert keys_of(output) == ["a"] + ["b"] * (not refused) == keys_of(tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == sorted(names) and not any(
        p.exists() for p in own_leftovers
    )


class Died(BaseException):
    """A process ends here, as if by kill -9."""


@pytest.mark.parametrize("how", ["merge", "import"])
def test_what_replaces_an_output_is_never_mixed_with_its_old_parts(tmp_path, monkeypatch, how):
    """A part has the last word; after a kill between the new file's name and the parts' end it would have it still."""
    output, new = tmp_path / "f.h5", tmp_path / "new.h5"
    write(output, "a")
    write(output, "b", finish=False)  # an interrupted run
    store.write_features(new, MADE, [video("b", 0.5), video("c", 0.25), video("d", 2.0)])
    matrix = _matrix(tmp_path)
    replaced = {
        "merge": lambda: merge([new], output, overwrite=True),
        "import": lambda: featx.import_matrix(
            matrix, output, "npy", keys=tmp_path / "rows.txt", name="mine", overwrite=True
        ),
    }[how]

    def die(self):
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr(Parts, "drop_parts", die)
        with pytest.raises(Died):
            replaced()
    with store.open_features(output) as features:
        assert list(features.keys) == ["b", "c", "d"] and len(features.paths) == 1
        if how == "merge":
            assert features.descriptors("fc6")[0, 0] == 0.5


def test_an_output_that_is_a_link_stays_one_and_its_file_is_written(tmp_path):
    """By either name it is the same output: one lock, the same parts."""
    real, link = tmp_path / "disk/real.h5", tmp_path / "links/f.h5"
    link.parent.mkdir()
    link.symlink_to("../disk/real.h5")  # of a file that is yet to be
    write(link, "a")
    write(link, "b", finish=False)
    with Parts(link), pytest.raises(UsageError, match="another run is writing"):
        Parts(real)
    for name in (link, real, link.parent, real.parent):
        assert keys_of(name) == ["a", "b"], name
    write(real, "c")
    merge([link], link)
    assert link.is_symlink() and keys_of(link) == ["a", "b", "c"]
    assert [path.name for folder in (link.parent, real.parent) for path in folder.iterdir()] == ["f.h5", "real.h5"]
    merge([real], link, overwrite=True)
    featx.import_matrix(_matrix(tmp_path), link, "npy", keys=tmp_path / "rows.txt", overwrite=True)
    assert link.is_symlink() and keys_of(real) == ["b", "c", "d"]


def _matrix(folder):
    np.save(folder / "rows.npy", np.eye(3, dtype=np.float32))
    (folder / "rows.txt").write_text("b\nc\nd\n")
    return folder / "rows.npy"


@pytest.mark.filterwarnings("ignore::featx.errors.LacksWarning")
@pytest.mark.parametrize(("how", "as_folder"), [("open", True), ("check", False)])
def test_a_run_that_joins_its_parts_meanwhile_is_no_error(tmp_path, monkeypatch, how, as_folder):
    """Between the look at what there is and the opening of it."""
    output = tmp_path / "f.h5"
    write(output, "a", "b", finish=False)
    write(tmp_path / "g.h5", "c")
    list_parts, listed = reader.parts_of, []

    def and_then_joined(path):
        found = list_parts(path)
        if not listed:
            listed.append(found)
            write(output)
        return found

    monkeypatch.setattr(reader, "parts_of", and_then_joined)
    monkeypatch.setattr(integrity, "_problems_of", store.problems)  # in this process, which is faster
    path = tmp_path if as_folder else output
    if how == "open":
        assert keys_of(path) == ["a", "b"] + ["c"] * as_folder
    else:
        report = integrity.check(path)
        assert report.is_good and report.num_videos == 2 + as_folder
    assert len(listed[0]) == 2 and not listed[0][0].exists()
    monkeypatch.setattr(reader, "find_files", lambda path: [[tmp_path / "absent.h5"]])
    with pytest.raises(FeatureFileError, match="absent.h5: no such file"):
        store.open_features(tmp_path / "absent.h5")


def test_a_kill_leaves_an_output_that_is_an_input_readable(tmp_path, monkeypatch):
    """Its old parts, of one shard, do not belong to what both shards are joined to."""

    def die(self):
        raise Died

    output, other = tmp_path / "a.h5", tmp_path / "b.h5"
    for path, keys, shard in ((output, "ab", "1/2"), (other, "c", "2/2")):
        with Parts(path) as own:
            for key in keys:
                own.add(video(key), replace(MADE, shard=shard))
                own.flush(replace(MADE, shard=shard))
            own.write_empty(replace(MADE, shard=shard, run=ENDED))
    monkeypatch.setattr(Parts, "drop_parts", die)
    with pytest.raises(Died):
        merge([output, other], output)
    assert keys_of(output) == ["a", "b", "c"]


def test_what_is_replaced_needs_no_room_for_its_parts(tmp_path, monkeypatch):
    output, new = tmp_path / "f.h5", tmp_path / "new.h5"
    write(output, "a")
    write(output, "b", finish=False)
    write(new, "c")
    monkeypatch.setattr(store, "free_bytes", lambda folder: 0)
    monkeypatch.setattr(Parts, "compact", lambda self: pytest.fail("there is no room for it"))
    assert merge([new], output, overwrite=True, partial=True) == 1
    assert keys_of(output) == ["c"] and not store.parts_of(output)


def test_a_folder_of_files_may_be_called_as_those_of_parts(tmp_path):
    folder = tmp_path / "data.parts"
    folder.mkdir()
    store.write_features(folder / "1.h5", replace(MADE, run=BEGUN), [video("a")])
    store.write_features(folder / "2.h5", replace(MADE, run=ENDED), [video("b")])
    assert keys_of(folder) == ["a", "b"]
    with pytest.raises(UsageError, match="1.h5 is not finished"):
        merge([folder / "1.h5", folder / "2.h5"], tmp_path / "f.h5")


def test_the_next_part_has_the_largest_number(tmp_path):
    """Also beside parts that somebody named with fewer digits."""
    output = tmp_path / "f.h5"
    store.parts_folder(output).mkdir()
    for name, key in (("part-9.h5", "a"), ("part-00000010.h5", "b")):
        store.write_features(store.parts_folder(output) / name, MADE, [video(key)])
    write(output, "c", finish=False)
    assert keys_of(output) == ["a", "b", "c"]


def test_files_that_a_run_joins_meanwhile_are_merged(tmp_path, monkeypatch):
    output = tmp_path / "f.h5"
    write(output, "a", "b", finish=False)
    list_parts, listed = reader.parts_of, []

    def and_then_joined(path):
        found = list_parts(path)
        if path == output and not listed:
            listed.append(found)
            write(output)
        return found

    monkeypatch.setattr(reader, "parts_of", and_then_joined)
    assert merge([output], tmp_path / "joint.h5", partial=True) == 2
    assert len(listed[0]) == 2 and not listed[0][0].exists()
