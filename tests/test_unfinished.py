"""Files whose run has not come to its end: told by every reader, refused by merge, and by whatever is made of them."""

import json
import os

import h5py
import pytest
from conftest import write_noise_video
from feature_files import write_file

import featx
from featx import store
from featx.cli import main
from featx.errors import LacksWarning, UsageError
from featx.features import Failure
from featx.parts import Parts
from featx.provenance import BEGUN, ENDED
from featx.run import extract_to, merge
from featx.store.schema import attributes_crc


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for i in range(3):
        write_noise_video(folder / f"v{i}.avi", 16, seed=i)
    (folder / "v1.avi").write_bytes(b"no video")
    return folder


def state(path):
    with featx.open(path, warn=False) as features:
        return features.provenance.run, len(features)


def finished(path, *keys, **made):
    path.parent.mkdir(exist_ok=True)  # of parts: whoever writes there holds it
    return write_file(path, {"fc6": {key: [1, 0] for key in keys}}, **made)


class Killed(BaseException):
    """As of a run that is killed: no more is written."""


def test_a_run_that_did_not_end_is_told_until_it_does(videos, tmp_path):
    path = tmp_path / "f.h5"

    def kill(result):
        raise Killed

    with pytest.raises(Killed):
        extract_to(videos, path, on_result=kill)
    assert state(path)[0] == BEGUN and not path.exists()
    assert extract_to(videos, path, on_error="stop", retry_failed=True).exit_code == 1
    assert path.exists() and state(path)[0] == BEGUN
    with pytest.raises(UsageError, match="f.h5 is not finished.*--partial"):
        merge([path], tmp_path / "g.h5")
    extract_to(videos, path)
    assert state(path) == (ENDED, 2)
    before = path.stat()
    assert extract_to(videos, path).num_present == 2  # with nothing to do it is left as it is
    assert os.path.samestat(before, path.stat()) and not store.parts_folder(path).exists()

    states = []
    with pytest.raises(Killed):  # before the first result of a run that goes on
        extract_to(videos, path, retry_failed=True, on_result=lambda result: (states.append(state(path)), kill(result)))
    assert states == [(BEGUN, 2)] and state(path) == (BEGUN, 2)
    extract_to(videos, path)
    assert state(path) == (ENDED, 2)


def test_merge_takes_no_file_that_is_not_finished(tmp_path):
    one, two, joint = tmp_path / "one.h5", tmp_path / "two.h5", tmp_path / "all.h5"
    finished(one, "a", run=ENDED)
    finished(store.parts_folder(two) / "part-00000000.h5", "b", run=BEGUN)
    with pytest.raises(UsageError, match=r"two.h5 is not finished: its run has not come to its end; .*'featx extract'"):
        merge([one, two], joint)
    assert not joint.exists()
    assert merge([one, two], joint, partial=True) == 2
    assert state(joint) == (BEGUN, 2)  # and so it stays, whatever is made of it
    with pytest.raises(UsageError, match="all.h5 is not finished"):
        merge([joint], tmp_path / "again.h5")
    with pytest.warns(LacksWarning, match="two.h5 is not all there"):
        merge([two], two)
    assert state(two) == (BEGUN, 1)
    finished(store.parts_folder(two) / "part-00000000.h5", run=ENDED)
    assert merge([one, two], joint, overwrite=True) == 2
    assert state(joint) == (ENDED, 2)


def test_whole_files_of_earlier_versions_count_as_finished(tmp_path):
    """They tell nothing; parts alone are what a killed run left."""
    path = finished(tmp_path / "f.h5", "a")
    parts = finished(store.parts_folder(tmp_path / "g.h5") / "part-00000000.h5", "b")
    for file in (path, parts):
        with h5py.File(file, "r+") as h5:
            del h5.attrs["run"]
            h5["checksums"].attrs["attributes"] = attributes_crc(h5)
    assert merge([path], tmp_path / "whole.h5") == 1
    assert state(tmp_path / "whole.h5") == ("", 1)
    with pytest.raises(UsageError, match="g.h5 is not finished"):
        merge([path, tmp_path / "g.h5"], tmp_path / "joint.h5")
    with pytest.warns(LacksWarning, match="g.h5 is not all there"):
        merge([tmp_path / "g.h5"], tmp_path / "g.h5")
    assert state(tmp_path / "g.h5") == (BEGUN, 1)


def test_a_file_that_a_run_is_writing_is_not_merged(tmp_path):
    path = finished(tmp_path / "f.h5", "a", run=ENDED)
    with Parts(path), pytest.raises(UsageError, match="a run is writing .*f.h5; wait for it"):
        merge([path], tmp_path / "g.h5")
    assert merge([path], tmp_path / "g.h5") == 1


def test_readers_say_what_is_missing(tmp_path, capsys):
    folder = tmp_path / "shards"
    finished(folder / "1.h5", "a", run=ENDED, shard="1/3")
    finished(folder / "2.h5", "b", run=BEGUN, shard="2/3")
    lacks = f"{folder}/2.h5: the run has not come to its end; shard 3/3 is missing"
    with pytest.warns(LacksWarning) as told:
        featx.open(folder).close()
    assert [str(warning.message) for warning in told] == [f"{folder} is not all there: {lacks}"]
    assert told[0].filename == __file__
    for command in (
        ["pca", folder, "-o", tmp_path / "p.h5", "--dims", "1"],
        ["info", folder],
        ["info", "--json", folder],
    ):
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in command])
        assert not ended.value.code
        out, err = capsys.readouterr()
        if command[0] == "pca":
            assert err == f"note: {folder} is not all there: {lacks}\n"
        else:
            assert err == "" and (json.loads(out)["holds"]["lacks"] if "--json" in command else out).count(lacks) == 1
    assert state(tmp_path / "p.h5") == (BEGUN, 2)


def test_one_file_is_named_once(tmp_path):
    path = finished(tmp_path / "f.h5", "a", run=BEGUN)
    with pytest.warns(LacksWarning, match=f"^{path} is not all there: the run has not come to its end$"):
        featx.open(path).close()


def test_what_is_whole_is_opened_in_silence(tmp_path, recwarn):
    with featx.open(finished(tmp_path / "f.h5", "a", failures=[("b", "damaged")])) as features:
        assert not features.lacks and features.failures == [Failure("b", "/videos/b.avi", "damaged")]
    assert not recwarn.list
