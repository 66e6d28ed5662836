"""run.py and parts.py: continuing, refusing, retrying, and the same bits after an interruption."""

from __future__ import annotations

import shutil

import av
import h5py
import numpy as np
import pytest
from conftest import write_noise_video

import featx
from featx import parts, store
from featx.dry_run import dry_run
from featx.errors import FeatureFileError, ProvenanceError, UsageError
from featx.run import extract_to, merge


def same_features(one, two):
    with featx.open(one) as a, featx.open(two) as b:
        assert a.keys == b.keys
        for layer in a.layers:
            assert np.array_equal(a.descriptors(layer), b.descriptors(layer))
        return True


@pytest.fixture(scope="module")
def uninterrupted(clips_folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("run") / "whole.h5"
    summary = extract_to(clips_folder, output)
    assert (summary.num_videos, summary.num_clips, summary.num_frames, summary.exit_code) == (3, 7, 70, 0)
    return output


def test_the_output_is_one_file_that_equals_single_extraction(clips_folder, uninterrupted):
    assert sorted(p.name for p in uninterrupted.parent.iterdir()) == ["whole.h5"]
    store.verify(uninterrupted)
    with featx.open(uninterrupted) as features:
        alone = featx.extract(clips_folder / "dog/000.mp4")
        assert np.array_equal(features["dog/000"].descriptors["pool5"], alone.descriptors["pool5"])
        assert features["dog/000"].size_bytes == (clips_folder / "dog/000.mp4").stat().st_size


def test_a_second_run_does_what_is_missing(clips_folder, uninterrupted, tmp_path):
    folder, output = tmp_path / "clips", tmp_path / "f.h5"
    shutil.copytree(clips_folder / "cat", folder / "cat")
    assert extract_to(folder, output).num_videos == 1
    shutil.copytree(clips_folder / "dog", folder / "dog")
    summary = extract_to(folder, output)
    assert (summary.num_present, summary.num_videos) == (1, 2)
    assert same_features(output, uninterrupted)
    done_at = output.stat().st_mtime_ns
    assert extract_to(folder, output).num_videos == 0
    assert output.stat().st_mtime_ns == done_at


def test_an_interrupted_run_goes_on_with_the_same_bits(clips_folder, uninterrupted, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "PART_SECONDS", 0)  # a part a video
    output = tmp_path / "f.h5"

    def interrupt(result):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract_to(clips_folder, output, on_result=interrupt)
    assert not output.exists()
    with featx.open(output, warn=False) as features:  # the parts alone are a set already
        assert len(features) == 1
    summary = extract_to(clips_folder, output)
    assert (summary.num_present, summary.num_videos) == (1, 2)
    assert same_features(output, uninterrupted)
    assert [p.name for p in tmp_path.iterdir()] == ["f.h5"]


def test_the_recorded_batch_size_is_kept(clips_folder, tmp_path):
    output = tmp_path / "f.h5"
    extract_to(clips_folder / "cat", output, batch_size=3)
    extract_to([clips_folder / "cat", clips_folder / "dog/001.avi"], output)
    with featx.open(output) as features:
        assert (features.provenance.batch_size, len(features)) == (3, 2)
    with pytest.raises(UsageError, match="batch_size is 3 in .*, 2 in this run"):
        extract_to(clips_folder / "dog", output, batch_size=2)


@pytest.mark.parametrize(
    ("options", "field"),
    [({"stride": 4}, "stride is 8"), ({"layers": ["res5b"]}, "layers is"), ({"save": "both"}, "save"), ({"fps": 5}, "fps"),
     ({"tail": "pad"}, "tail"), ({"num_clips": 2}, "num_clips_even")],
)  # fmt: skip
def test_other_settings_are_refused(clips_folder, uninterrupted, options, field):
    before = uninterrupted.read_bytes()
    with pytest.raises(ProvenanceError, match=f"{field}.*--overwrite"):
        extract_to(clips_folder, uninterrupted, **options)
    assert uninterrupted.read_bytes() == before


def test_failures_are_kept_retried_and_forgotten(clips_folder, tmp_path):
    folder, output = tmp_path / "v", tmp_path / "f.h5"
    folder.mkdir()
    shutil.copy(clips_folder / "cat/000.mkv", folder / "good.mkv")
    (folder / "bad.mp4").write_bytes(b"nothing")
    summary = extract_to(folder, output)
    assert summary.exit_code == 1 and [f.key for f in summary.failures] == ["bad"]
    again = extract_to(folder, output)
    assert (again.num_videos, len(again.failed_before), again.exit_code) == (0, 1, 1)
    assert [f.key for f in extract_to(folder, output, retry_failed=True).failures] == ["bad"]
    write_noise_video(folder / "bad.mp4", 20)  # the file changed: no need to say --retry-failed
    repaired = extract_to(folder, output)
    assert (repaired.num_videos, repaired.exit_code) == (1, 0)
    with featx.open(output) as features:
        assert features.keys == ["bad", "good"] and not features.failures


def test_changed_files_are_told_and_redone_on_request(tmp_path):
    folder, output = tmp_path / "v", tmp_path / "f.h5"
    folder.mkdir()
    for name in ("a", "b"):
        write_noise_video(folder / f"{name}.mp4", 20)
    extract_to(folder, output)
    write_noise_video(folder / "a.mp4", 31, seed=5)
    summary = extract_to(folder, output)
    assert (summary.changed, summary.num_present, summary.num_videos) == (["a"], 2, 0)
    summary = extract_to(folder, output, refresh=True)
    assert (summary.changed, summary.num_present, summary.num_videos) == (["a"], 1, 1)
    with featx.open(output) as features:
        assert features["a"].num_frames == 31 and len(features) == 2


def test_a_compact_file_is_neither_continued_nor_mixed(clips_folder, uninterrupted, tmp_path):
    extract_to(clips_folder / "dog", tmp_path / "dog.h5")
    featx.pca(uninterrupted, tmp_path / "one.h5", dims=2)
    featx.pca(tmp_path / "dog.h5", tmp_path / "two.h5", dims=2)
    with pytest.raises(ProvenanceError, match="basis_sha256"):
        extract_to(clips_folder, tmp_path / "one.h5")
    with pytest.raises(ProvenanceError, match="basis_sha256"):
        merge([tmp_path / "one.h5", tmp_path / "two.h5"], tmp_path / "both.h5")
    featx.pca(tmp_path / "dog.h5", tmp_path / "three.h5", basis=tmp_path / "one.h5")
    with featx.open(tmp_path / "one.h5") as one, featx.open(tmp_path / "three.h5") as three:
        assert one.provenance == three.provenance


def test_damage_is_not_merged_into_a_sound_file(clips_folder, uninterrupted, tmp_path):
    damaged = tmp_path / "damaged.h5"
    data = bytearray(uninterrupted.read_bytes())
    with h5py.File(uninterrupted) as file:
        data[file["descriptors/pool5"].id.get_offset() + 5] ^= 1
    damaged.write_bytes(data)
    for use in (lambda: merge([damaged], tmp_path / "out.h5"), lambda: featx.pca(damaged, tmp_path / "out.h5", dims=2),
                lambda: featx.svm_eval(damaged, "folders")):  # fmt: skip
        with pytest.raises(FeatureFileError, match="descriptors/pool5"):
            use()
    assert not (tmp_path / "out.h5").exists()


def test_merge_and_pca_leave_no_old_parts_behind(clips_folder, uninterrupted, tmp_path, monkeypatch):
    output = tmp_path / "f.h5"
    monkeypatch.setattr(parts.Parts, "finish", lambda self: [])  # as if the run had been killed
    extract_to(clips_folder / "cat", output)
    for write in (lambda: merge([uninterrupted], output, overwrite=True),
                  lambda: featx.pca(uninterrupted, output, dims=1, overwrite=True)):  # fmt: skip
        with parts.Parts(output), pytest.raises(UsageError, match="another run is writing"):
            write()
        write()
        with featx.open(output) as features:
            assert "000" not in features and len(features) == 3


def test_an_estimate_decodes_what_has_no_header(tmp_path):
    with av.open(str(tmp_path / "live.mkv"), "w", options={"live": "1"}) as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(23):
            container.mux(stream.encode(av.VideoFrame(64, 48, "yuv420p")))
        container.mux(stream.encode(None))
    result = dry_run(tmp_path)
    assert (result.videos, result.failures) == ([("live", 23, 2)], [])


def test_stopping_at_the_first_failure(clips_folder, tmp_path):
    for i in range(4):
        (tmp_path / f"bad{i}.mp4").write_bytes(b"nothing")
    notes = []
    summary = extract_to(tmp_path, tmp_path / "f.h5", on_error="stop", on_note=notes.append)
    assert len(summary.failures) == 1 and "stopped at 'bad" in notes[0]


def test_overwrite_starts_anew_but_only_once_everything_is_right(clips_folder, tmp_path):
    output = tmp_path / "f.h5"
    extract_to(clips_folder / "cat", output)
    before = output.read_bytes()
    with pytest.raises(UsageError):
        extract_to(clips_folder / "dog", output, overwrite=True, layers=["pool9"])
    assert output.read_bytes() == before
    extract_to(clips_folder / "dog", output, overwrite=True, stride=4)
    with featx.open(output) as features:
        assert features.keys == ["000", "001"] and features.provenance.stride == 4


@pytest.mark.parametrize(("name", "words"), [("a.mp4", "named as a .mp4 file"), ("a", "it is not replaced")])
def test_a_file_of_another_kind_is_never_replaced(clips_folder, tmp_path, name, words):
    video = write_noise_video(tmp_path / "a.mp4", 16).rename(tmp_path / name)
    before = video.read_bytes()
    with pytest.raises(UsageError, match=words):
        extract_to(clips_folder / "dog", video, overwrite=True)
    extract_to(clips_folder / "dog", tmp_path / "f.h5")
    for write in (lambda: merge([tmp_path / "f.h5"], video, overwrite=True),
                  lambda: featx.pca(tmp_path / "f.h5", video, dims=1, overwrite=True)):  # fmt: skip
        with pytest.raises(UsageError, match=words):
            write()
    assert video.read_bytes() == before


def test_two_runs_do_not_write_one_output(clips_folder, tmp_path):
    output = tmp_path / "f.h5"
    with parts.Parts(output), pytest.raises(UsageError, match="another run is writing"):
        extract_to(clips_folder, output)
    assert extract_to(clips_folder / "cat", output).num_videos == 1


def test_many_small_parts_are_merged_on_the_way(clips_folder, uninterrupted, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "PART_SECONDS", 0)
    monkeypatch.setattr(parts, "MERGE_PARTS", 2)
    assert extract_to(clips_folder, tmp_path / "f.h5").num_videos == 3
    assert same_features(tmp_path / "f.h5", uninterrupted)


def test_a_large_output_is_not_rewritten_for_one_more_video(clips_folder, uninterrupted, tmp_path, monkeypatch):
    output = tmp_path / "f.h5"
    extract_to(clips_folder / "dog", output)
    before = output.read_bytes()
    monkeypatch.setattr(parts, "LEAVE_AS_PART_BYTES", 0)
    shutil.copy(clips_folder / "cat/000.mkv", tmp_path / "more.mkv")
    summary = extract_to(tmp_path / "more.mkv", output)
    if summary.parts_left:
        assert output.read_bytes() == before
    with featx.open(output) as features:
        assert features.keys == ["000", "001", "more"]
    merge([output], output)
    assert not store.parts_folder(output).exists()
    with featx.open(output) as features:
        assert len(features.paths) == 1 and len(features) == 3


def test_merge_joins_shards(clips_folder, uninterrupted, tmp_path):
    for name in ("dog", "cat"):
        lists = tmp_path / f"{name}.txt"
        lists.write_text("\n".join(map(str, sorted((clips_folder / name).iterdir()))))
        extract_to([clips_folder / name], tmp_path / f"{name}.h5")
    assert merge([tmp_path / "dog.h5"], tmp_path / "copy.h5") == 2
    with pytest.raises(UsageError, match="'000' stands in"):
        merge([tmp_path / "dog.h5", tmp_path / "cat.h5"], tmp_path / "both.h5")
    with pytest.raises(UsageError, match="exists"):
        merge([tmp_path / "dog.h5"], tmp_path / "copy.h5")


def test_estimate_equals_what_a_run_makes(clips_folder, uninterrupted):
    believed, counted = dry_run(clips_folder), dry_run(clips_folder, count=True)
    assert counted.counted and not believed.counted
    for result in (believed, counted):
        assert (result.num_videos, result.num_frames, result.num_clips) == (3, 70, 7)


def test_an_output_that_cannot_be_written(clips_folder, tmp_path):
    with pytest.raises(UsageError, match="is a folder"):
        extract_to(clips_folder, tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="choose another place"):
        extract_to(clips_folder, tmp_path / "file" / "f.h5")


def test_a_video_under_another_key_is_told(clips_folder, tmp_path):
    """A key is relative to the folder named, so that the same video, named alone, is another one."""
    output, notes = tmp_path / "f.h5", []
    featx.extract_to(clips_folder, output)
    featx.extract_to(clips_folder / "dog/000.mp4", output, on_note=notes.append)
    assert any("under other keys" in note and "as 'dog/000', now '000'" in note for note in notes)


def test_an_output_of_failures_only_binds_no_settings(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video")
    output, notes = tmp_path / "f.h5", []
    assert featx.extract_to(tmp_path / "a.mp4", output).exit_code == 1
    write_noise_video(tmp_path / "b.mp4", 20)
    featx.extract_to(tmp_path / "b.mp4", output, stride=4, on_note=notes.append)
    assert any("begun anew" in note for note in notes)
    with featx.open(output) as features:
        assert features.keys == ["b"] and features.provenance.stride == 4 and not features.failures
    with pytest.raises(ProvenanceError, match="stride is 4"):
        featx.extract_to(tmp_path / "a.mp4", output)
