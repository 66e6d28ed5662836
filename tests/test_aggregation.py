"""What is made of clip features: maxima and bins, against hand-computed values, slow readable forms and numpy.interp."""

from __future__ import annotations

from dataclasses import replace

import h5py
import numpy as np
import pytest
from brightness import NUM_DIMS as DIMS
from brightness import see_brightness
from conftest import write_video
from feature_files import make_provenance, write_file
from test_cli import run as run_cli

import featx
from featx import store
from featx.aggregation import Aggregation
from featx.bins import clip_centres, to_bins
from featx.descriptors import MaxAccumulator, l2_normalise
from featx.dry_run import dry_run
from featx.errors import FeatureFileError, ProvenanceError, UsageError
from featx.evaluation.published import likely_causes
from featx.features import ClipTable
from featx.provenance import ADDED_LATER
from featx.store import sizes
from featx.store.schema import attributes_crc


@pytest.fixture(scope="module")
def everything(clips_folder, tmp_path_factory):
    """Clips, their maximum and their bins, of the same videos: (a file of maxima, a file of bins)."""
    folder = tmp_path_factory.mktemp("aggregated")
    options = {"stride": 3, "save": "both", "engine": "torch"}
    with pytest.MonkeyPatch.context() as patch:
        see_brightness(patch)
        featx.extract_to(clips_folder, folder / "max.h5", aggregate="max", **options)
        featx.extract_to(clips_folder, folder / "bins.h5", aggregate="bins", bins=7, **options)
    return folder / "max.h5", folder / "bins.h5"


def unit(vector):
    return vector / np.sqrt((vector.astype(np.float64) ** 2).sum())


# ---------------------------------------------------------------------------------------------------------------- maximum


def test_the_maximum_by_hand():
    largest = MaxAccumulator(3)
    largest.add(np.array([[1, -5, 0], [2, -7, -1]], np.float32))
    largest.add(np.array([[0, -6, -2]], np.float32))
    assert largest.num_clips == 3 and largest.result().tolist() == [2, -5, 0]
    with pytest.raises(UsageError, match="at least 1"):
        MaxAccumulator(4).result()
    with pytest.raises(UsageError, match=r"\(2, 3\).*\(clips, 4\)"):
        MaxAccumulator(4).add(np.zeros((2, 3), np.float32))


def test_the_descriptor_is_the_largest_of_the_clips_with_unit_length(everything):
    with featx.open(everything[0]) as features:
        assert features.provenance.aggregate == "max"
        for key in features.keys:
            video = features[key]
            np.testing.assert_allclose(video.descriptors["pool5"], unit(video.clips["pool5"].max(0)), rtol=1e-6)


def test_it_is_recorded_shown_kept_and_refused_elsewhere(everything, clips_folder, capsys):
    assert "aggregate          max" in run_cli(capsys, "info", everything[0])[1]
    with pytest.raises(ProvenanceError, match="aggregate is 'max' in .*, 'mean' in this run"):
        featx.extract_to(clips_folder, everything[0], stride=3, save="both", engine="torch")
    with pytest.raises(ProvenanceError, match="aggregate is 'max' in .*'bins' in .*; bins is 0 in .*7"):
        featx.merge(everything, everything[0].with_name("both.h5"))


def test_files_without_the_attributes_read_as_the_defaults(tmp_path):
    old = write_file(tmp_path / "old.h5", {"fc6": {"a": [1, 0]}})
    new = write_file(tmp_path / "new.h5", {"fc6": {"b": [0, 1]}})
    with h5py.File(old, "r+") as h5:
        for name in ADDED_LATER:
            del h5.attrs[name]
        h5["checksums"].attrs["attributes"] = np.uint32(attributes_crc(h5))
    assert store.problems(old) == []
    assert featx.merge([old, new], tmp_path / "both.h5") == 2
    with featx.open(tmp_path / "both.h5") as features:
        assert (features.provenance.aggregate, features.provenance.bins) == ("mean", 0)


def test_a_figure_far_from_the_published_one_may_come_from_them():
    causes = list(likely_causes(make_provenance(aggregate="max", crops=5, flip=1), "ucf101"))
    assert "a descriptor is the maximum of its clips, not their mean (--aggregate)" in causes
    assert "10 views of every clip were averaged (--crops, --flip)" in causes
    assert not any("views" in cause or "maximum" in cause for cause in likely_causes(make_provenance(), "ucf101"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"aggregate": "median"}, "aggregate is 'median', but must be one of mean, max, bins"),
        ({"aggregate": "max", "save": "clips"}, "aggregate is 'max', but save is 'clips'"),
        ({"bins": 5}, "5 bins are asked for, but aggregate is 'mean'"),
        ({"aggregate": "bins", "bins": 0}, "bins is 0, but must be a whole number from 1"),
        ({"aggregate": "bins", "bins": 2.5}, "bins is 2.5"),
    ],
)
def test_wrong_requests(options, message):
    with pytest.raises(UsageError, match=message):
        Aggregation(**options)


# ------------------------------------------------------------------------------------------------------------------- bins


def slowly(rows, centres, start, end, num_bins):
    """Bin by bin, dimension by dimension, in Python's own floats."""
    out = []
    for t in range(num_bins):
        at = start + (t + 0.5) * (end - start) / num_bins
        if at <= centres[0]:
            out.append([float(v) for v in rows[0]])
        elif at >= centres[-1]:
            out.append([float(v) for v in rows[-1]])
        else:
            i = max(i for i, centre in enumerate(centres) if centre <= at)
            share = (at - centres[i]) / (centres[i + 1] - centres[i])
            pairs = zip(rows[i], rows[i + 1], strict=True)
            out.append([float(a) + share * (float(b) - float(a)) for a, b in pairs])
    return np.array(out)


def test_bins_by_hand():
    rows = np.array([[0, 8], [4, 0]], np.float32)
    # bins of 0.5 s around 0.25, 0.75, 1.25, 1.75; clips around 0.5 and 1.5
    found = to_bins(rows, np.array([0.5, 1.5]), 0.0, 2.0, 4)
    assert found.dtype == np.float32 and found.tolist() == [[0, 8], [1, 6], [3, 2], [4, 0]]
    assert to_bins(rows[:1], np.array([0.5]), 0.0, 2.0, 3).tolist() == [[0, 8]] * 3
    assert to_bins(rows, np.array([10.5, 11.5]), 10.0, 12.0, 4).tolist() == found.tolist()


@pytest.mark.parametrize("num_clips", [1, 2, 3, 10, 250])
@pytest.mark.parametrize("num_bins", [1, 2, 7, 100])
def test_bins_equal_the_slow_form_and_numpy(num_clips, num_bins):
    rng = np.random.default_rng(num_clips * num_bins)
    rows = rng.standard_normal((num_clips, 3)).astype(np.float32)
    centres = np.cumsum(rng.uniform(0.1, 0.5, num_clips))
    start, end = centres[0] - rng.uniform(0, 0.3), centres[-1] + rng.uniform(0, 0.3)
    found = to_bins(rows, centres, start, end, num_bins)
    moments = start + (np.arange(num_bins) + 0.5) * (end - start) / num_bins
    by_numpy = np.stack([np.interp(moments, centres, column) for column in rows.T], axis=1)
    np.testing.assert_allclose(found, slowly(rows, centres, start, end, num_bins), atol=1e-6)
    np.testing.assert_allclose(found, by_numpy, atol=1e-6)


def test_videos_without_a_clock_are_binned_by_frames():
    starts, unknown = np.array([0, 8]), np.full(2, np.nan)
    table = ClipTable(starts, starts + 16, unknown, unknown)
    centres, start, end = clip_centres(table, np.nan, np.nan, 24)
    assert (centres.tolist(), start, end) == ([8, 16], 0, 24)
    centres, start, end = clip_centres(ClipTable(starts, starts + 16, starts / 4, starts / 4 + 4), 0.5, 6.0, 24)
    assert (centres.tolist(), start, end) == ([2, 4], 0.5, 6)


def test_the_file_holds_a_table_a_layer(everything):
    with featx.open(everything[1]) as features, h5py.File(everything[1]) as h5:
        assert h5["bins/pool5"].shape == (3, 7, DIMS) and h5["bins/pool5"].chunks is None
        assert np.array_equal(features.bins("pool5"), h5["bins/pool5"][:])
        assert features.provenance.bins == 7
        for i, key in enumerate(features.keys):
            video, table = features[key], features.clip_table(key)
            assert np.array_equal(video.bins["pool5"], h5["bins/pool5"][i])
            centres = (table.start_seconds + table.end_seconds) / 2
            expected = slowly(video.clips["pool5"], centres, 0.0, video.duration_seconds, 7)
            np.testing.assert_allclose(video.bins["pool5"], expected, atol=1e-5)
            np.testing.assert_allclose(video.descriptors["pool5"], unit(video.clips["pool5"].mean(0)), atol=1e-6)
    assert store.problems(everything[1]) == []


def test_bins_without_clips_in_float16_and_their_bits_after_an_interruption(
    clips_folder, everything, tmp_path, monkeypatch
):
    see_brightness(monkeypatch)
    options = {"stride": 3, "aggregate": "bins", "bins": 7, "dtype": "float16", "engine": "torch"}
    output = tmp_path / "f.h5"
    featx.extract_to(clips_folder / "cat", output, **options, keys_from="path")

    def stop(result):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        featx.extract_to(clips_folder, output, **options, keys_from="path", on_result=stop)
    featx.extract_to(clips_folder, output, **options, keys_from="path")
    with featx.open(output) as half, featx.open(everything[1]) as full:
        assert half.bins("pool5").dtype == np.float16 and not half.has_clips
        assert np.array_equal(half.bins("pool5"), full.bins("pool5").astype(np.float16))
    assert store.problems(output) == []


def test_bins_are_merged_and_projected_with_the_rest(everything, clips_folder, tmp_path, capsys, monkeypatch):
    see_brightness(monkeypatch)
    options = {"stride": 3, "save": "both", "aggregate": "bins", "bins": 7, "engine": "torch"}
    featx.extract_to([clips_folder / "dog/000.mp4"], tmp_path / "one.h5", **options)
    write_video(tmp_path / "other.mp4", 30)
    featx.extract_to([tmp_path / "other.mp4"], tmp_path / "two.h5", **options)
    assert featx.merge([tmp_path / "one.h5", tmp_path / "two.h5"], tmp_path / "all.h5") == 2
    with featx.open(tmp_path / "all.h5") as both, featx.open(everything[1]) as whole:
        assert both.bins("pool5").shape == (2, 7, DIMS)
        assert np.array_equal(both["000"].bins["pool5"], whole["dog/000"].bins["pool5"])
    featx.pca(everything[1], tmp_path / "compact.h5", dims=2)
    assert store.problems(tmp_path / "compact.h5") == []
    with featx.open(tmp_path / "compact.h5") as compact, featx.open(everything[1]) as whole:
        basis = compact.bases["pool5"]
        rows = l2_normalise(whole.bins("pool5")) if basis["unit_rows"] else whole.bins("pool5")  # as clip features are
        expected = (rows - basis["mean"]) @ basis["components"].T
        np.testing.assert_allclose(compact.bins("pool5"), expected, atol=1e-4)
    out = run_cli(capsys, "info", everything[1])[1]
    assert f"descriptors and clip features and 7 bins of time: pool5 {DIMS}" in out
    with featx.open(everything[0]) as features, pytest.raises(UsageError, match="no bins; extract with '--aggregate"):
        features.bins("pool5")


def test_damaged_bins_are_found(everything, tmp_path):
    data = bytearray(everything[1].read_bytes())
    with h5py.File(everything[1]) as h5:
        data[h5["bins/pool5"].id.get_offset() + 100] ^= 1
    (tmp_path / "damaged.h5").write_bytes(data)
    assert store.problems(tmp_path / "damaged.h5") == ["rows 0 to 3 of bins/pool5"]
    (tmp_path / "other.h5").write_bytes(everything[1].read_bytes())
    with h5py.File(tmp_path / "other.h5", "r+") as h5:
        h5.attrs["bins"] = 8
    with pytest.raises(FeatureFileError, match="has 7 bins a video, not 8"):
        featx.open(tmp_path / "other.h5")
    with h5py.File(tmp_path / "other.h5", "r+") as h5:
        del h5["bins"]
    with pytest.raises(FeatureFileError, match="its table bins/pool5 is missing"):
        featx.open(tmp_path / "other.h5")


def test_tables_of_a_layer_that_differ_in_width_are_refused(everything, tmp_path):
    with featx.open(everything[1]) as features:
        made, videos = features.provenance, [features[key] for key in features.keys]
    layer = made.layers[0]
    narrow = [replace(video, bins={**video.bins, layer: video.bins[layer][:, :7].copy()}) for video in videos]
    store.write_features(tmp_path / "f.h5", made, narrow)
    with pytest.raises(FeatureFileError, match=f"its table bins/{layer} has 7 dimensions, but descriptors/{layer}"):
        featx.open(tmp_path / "f.h5")


def test_the_bytes_of_bins_are_estimated(clips_folder):
    plain = dry_run(clips_folder)
    binned = dry_run(clips_folder, aggregate="bins", bins=10, dtype="float16")
    tables = sizes.GROUP_BYTES + sizes.TABLE_BYTES
    assert binned.num_bytes - plain.num_bytes == 3 * 10 * DIMS * 2 + tables
