"""neighbours: exact nearest neighbours by cosine, against slow sums and scikit-learn."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from feature_files import make_provenance, write_file
from sklearn.neighbors import NearestNeighbors

import featx
from featx import store
from featx.errors import FeatureFileError, UnknownNameError, UsageError
from featx.features import Failure
from featx.neighbours import duplicates, nearest
from featx.neighbours.queries import _words
from featx.store import parts_folder, write_features


def random_rows(num_rows: int, num_dims: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Rows of many lengths that share a direction, as behind a ReLU and after PCA."""
    rng = np.random.default_rng(seed)
    rows = (1 + rng.normal(size=(num_rows, num_dims))) * rng.uniform(0.1, 9, (num_rows, 1))
    return {f"c{i % 7}/v{i:04d}": row.astype(np.float32) for i, row in enumerate(rows)}


def slow_cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Of two vectors, every sum rounded once."""
    a, b = a.astype(float).tolist(), b.astype(float).tolist()
    dot, aa, bb = (math.fsum(x * y for x, y in zip(u, v, strict=True)) for u, v in ((a, b), (a, a), (b, b)))
    return dot / math.sqrt(aa * bb)


def in_parts(folder, rows):
    """A file and two parts beside it, the second of which takes the place of rows of the file."""
    keys = sorted(rows)
    path = folder / "parts.h5"
    stale = {key: np.ones_like(rows[key]) for key in keys[:40]}
    write_file(path, {"fc6": {key: rows[key] for key in keys[40:90]} | stale})
    parts_folder(path).mkdir()
    write_file(parts_folder(path) / "part-000001.h5", {"fc6": {key: rows[key] for key in keys[90:]}})
    write_file(parts_folder(path) / "part-000002.h5", {"fc6": {key: rows[key] for key in keys[:40]}})
    return path


@pytest.mark.parametrize(
    ("num_dims", "kind"), [(1, "file"), (20, "file"), (20, "parts"), (20, "folder"), (2100, "file")]
)
def test_the_nearest_are_those_of_slow_sums_and_of_scikit_learn(tmp_path, num_dims, kind):
    rows = random_rows(100, num_dims)
    keys = sorted(rows)
    if kind == "parts":
        path = in_parts(tmp_path, rows)
    else:
        path = write_file(tmp_path / "f.h5", {"fc6": {key: rows[key] for key in keys[: 100 if kind == "file" else 70]}})
        if kind == "folder":
            write_file(tmp_path / "g.h5", {"fc6": {key: rows[key] for key in keys[70:]}})
            path = tmp_path
    queries = [keys[3], keys[99]]
    result = featx.search(path, queries, k=12)
    assert result.num_rows == 100 and [answer.query for answer in result.answers] == queries
    for answer in result.answers:
        cosine = {key: slow_cosine(rows[answer.query], rows[key]) for key in keys if key != answer.query}
        expected = sorted(cosine, key=lambda key: (-round(cosine[key], 12), key))[:12]
        assert [hit.key for hit in answer.hits] == expected and [hit.rank for hit in answer.hits] == list(range(1, 13))
        np.testing.assert_allclose([hit.cosine for hit in answer.hits], [cosine[key] for key in expected], atol=1e-14)
        if num_dims > 1:  # whose order of equal ones is its own
            theirs = NearestNeighbors(n_neighbors=13, metric="cosine", algorithm="brute")
            theirs.fit(np.stack([rows[key] for key in keys]).astype(float))
            found = theirs.kneighbors(rows[answer.query][None].astype(float), return_distance=False)[0]
            assert [keys[i] for i in found if keys[i] != answer.query] == expected


def test_what_float32_cannot_tell_apart_is_told_apart_in_float64(tmp_path):
    """Rows that differ from the query in one number's last bits; their order is that of exact arithmetic."""
    rng = np.random.default_rng(0)
    query = rng.normal(size=100).astype(np.float32)
    rows = {"q": query}
    for i in range(150):
        row = query.copy()
        row[i % 100] = np.nextafter(row[i % 100], np.float32(9), dtype=np.float32) if i < 50 else row[i % 100]
        row[(i * 7) % 100] *= np.float32(1 + 1e-6 * (i // 50))
        rows[f"v{i:03d}"] = row
    hits = featx.search(write_file(tmp_path / "f.h5", {"fc6": rows}), "q", k=150).answers[0].hits

    def squared(row):  # exact, and with the order of the cosine
        a, b = [Fraction(float(x)) for x in query], [Fraction(float(x)) for x in row]
        dot, bb = sum(x * y for x, y in zip(a, b, strict=True)), sum(y * y for y in b)
        return dot * dot / bb

    values = [squared(rows[hit.key]) for hit in hits]
    norm = sum(Fraction(float(x)) ** 2 for x in query)
    assert len({float(v) for v in values}) > 2
    for earlier, later in itertools.pairwise(values):  # but for what float64 cannot tell apart
        assert earlier >= later or (later - earlier) / norm < 1e-15


def test_equal_rows_stand_in_the_order_of_their_keys_however_blocks_fall(tmp_path, monkeypatch):
    rows = random_rows(90, 33)
    for i, key in enumerate(sorted(rows)):
        if i % 3 == 0:
            rows[key] = np.float32(2) ** (i % 5) * rows[sorted(rows)[1]]
    path = write_file(tmp_path / "f.h5", {"fc6": rows})
    query = sorted(rows)[1]
    hits = featx.search(path, query, k=100).answers[0].hits
    assert [hit.key for hit in hits[:30]] == sorted(rows)[::3] and {hit.cosine for hit in hits[:30]} == {1.0}
    for step_bytes, exact_values, columns in ((1, 1, 1), (999, 77, 10), (2**30, 2**30, 2**30)):
        monkeypatch.setattr(nearest, "STEP_BYTES", step_bytes)
        monkeypatch.setattr(nearest, "EXACT_VALUES", exact_values)
        monkeypatch.setattr(nearest, "COLUMNS", columns)
        monkeypatch.setattr(store.schema, "BLOCK_BYTES", 10 * step_bytes)  # of the checksums
        again = write_file(tmp_path / f"{step_bytes}.h5", {"fc6": rows})
        assert featx.search(again, query, k=100).answers[0].hits == hits


@pytest.mark.parametrize("num_dims", [3, 400, 3000])
def test_float32_scores_keep_within_their_bound(tmp_path, num_dims):
    rng = np.random.default_rng(1)
    rows = {f"{i:03d}": rng.exponential(size=num_dims).astype(np.float32) ** 4 for i in range(64)}
    with store.open_features(write_file(tmp_path / "f.h5", {"fc6": rows})) as features:
        query = rows["005"][None]
        scores = nearest.scan(store.pieces(features, "fc6"), [query, -query], 64)
    true = [slow_cosine(row, query[0]) for row in rows.values()]
    for ours, sign in zip(scores, (1, -1), strict=True):
        assert np.abs(ours - sign * np.array(true)).max() < nearest.bound(num_dims) / 4


def test_lengths_do_not_count_however_small_or_large(tmp_path):
    rows = random_rows(60, 16)
    scaled = {key: row * np.float32(10.0 ** (i % 61 - 30)) for i, (key, row) in enumerate(rows.items())}
    ours, theirs = (
        featx.search(write_file(tmp_path / f"{name}.h5", {"fc6": f}), "c0/v0000", k=59).answers[0].hits
        for name, f in (("a", rows), ("b", scaled))
    )
    assert [hit.key for hit in ours] == [hit.key for hit in theirs]
    np.testing.assert_allclose([hit.cosine for hit in ours], [hit.cosine for hit in theirs], atol=1e-6)


def test_rows_of_zeros_are_near_to_nothing(tmp_path):
    rows = random_rows(20, 8) | {"zero": np.zeros(8), "nil": np.zeros(8)}
    path = write_file(tmp_path / "f.h5", {"fc6": rows})
    result = featx.search(path, "c0/v0000", k=100)
    assert len(result.answers[0].hits) == 19
    assert result.notes == ("2 of 22 videos have a fc6 feature of zeros, near to nothing; left out",)
    with pytest.raises(UsageError, match="feature of 'zero' is zero"):
        featx.search(path, "zero")
    found = featx.find_duplicates(path, 0.9999)
    assert found.pairs == () and found.groups == () and found.notes == result.notes
    empty = write_features(tmp_path / "none.h5", make_provenance(), [])
    assert empty is None and featx.find_duplicates(tmp_path / "none.h5").pairs == ()


def test_rows_that_are_not_finite_or_damaged_give_no_answer(tmp_path):
    rows = random_rows(30, 8)
    for value in (np.nan, np.inf, -np.inf):
        bad = rows | {"bad": np.array([1, value] + 6 * [0])}
        path = write_file(tmp_path / "f.h5", {"fc6": bad})
        for ask in (
            lambda path=path: featx.search(path, "c0/v0000", k=1),
            lambda path=path: featx.find_duplicates(path),
        ):
            with pytest.raises(FeatureFileError, match="feature of 'bad' is not finite"):
                ask()
    path = write_file(tmp_path / "f.h5", {"fc6": rows})
    content = bytearray(path.read_bytes())
    content[content.find(rows["c3/v0003"].tobytes())] ^= 1
    path.write_bytes(content)
    for ask in (lambda: featx.search(path, "c0/v0000"), lambda: featx.find_duplicates(path)):
        with pytest.raises(FeatureFileError, match=r"damaged: rows 0 to 30 of descriptors/fc6"):
            ask()


def test_a_query_is_left_out_of_its_own_answer_unless_it_is_wanted(tmp_path):
    path = write_file(tmp_path / "f.h5", {"fc6": random_rows(9, 8)})
    assert len(featx.search(path, "c0/v0000", k=99).answers[0].hits) == 8
    hit = featx.search(path, "c0/v0000", include_self=True).answers[0].hits[0]
    assert (hit.key, hit.cosine) == ("c0/v0000", 1.0)
    assert featx.search(path, "v0003").answers[0].query == "c3/v0003"  # the base name is unique


def test_keys_that_are_not_there_are_guessed(tmp_path):
    path = write_file(tmp_path / "f.h5", {"fc6": {f"Archery/v_{i:04d}": np.ones(2) for i in range(1100)}})
    with pytest.raises(UnknownNameError, match="did you mean 'Archery/v_07..'"):
        featx.search(path, "v_07x1")
    with pytest.raises(UsageError, match="no query is named"):
        featx.search(path, [])


# ------------------------------------------------------------------------------------------------------------- moments


@pytest.fixture(scope="module", params=[np.float32, np.float16])
def moments(request, tmp_path_factory):
    """(file, key -> clip features): videos of 0 to 4 clips, one of them with a zero clip."""
    rng = np.random.default_rng(2)
    clips = {f"a/{i:02d}": (1 + rng.normal(size=(i % 5, 12))).astype(request.param) for i in range(40)}
    clips["a/04"][1] = 0
    path = tmp_path_factory.mktemp("moments") / "f.h5"
    write_file(
        path, {"fc6": {key: np.ones(12) for key in clips}}, clips={"fc6": clips}, dtype=np.dtype(request.param).name
    )
    return path, clips


def brute_moments(clips, query_vectors, left_out):
    """(cosine, key, clip, query clip), best first, by slow sums."""
    found = []
    for key, rows in clips.items():
        for i, row in enumerate(rows):
            if key != left_out and row.any():
                best = [(slow_cosine(row, vector), -j) for j, vector in query_vectors if vector.any()]
                cosine, j = max(best)
                found.append((cosine, key, i, -j))
    return sorted(found, key=lambda hit: (-round(hit[0], 12), hit[1], hit[2]))


@pytest.mark.parametrize("per_video", [False, True])
@pytest.mark.parametrize("at", [None, 0.7])
def test_moments_are_those_of_slow_sums(moments, at, per_video):
    path, clips = moments
    # clips begin every 8 frames of 25 a second and last 16: the middles are 0.32, 0.64, 0.96, ...
    vectors = list(enumerate(clips["a/04"])) if at is None else [(1, clips["a/03"][1])]
    key = "a/04" if at is None else "a/03"
    expected = brute_moments(clips, vectors, key)
    if per_video:
        expected = [hit for i, hit in enumerate(expected) if hit[1] not in {other[1] for other in expected[:i]}]
    result = featx.search(path, key, k=15, clips=True, at_seconds=at, per_video=per_video)
    (answer,) = result.answers
    assert result.num_rows == 80 and result.unit == "clip" and answer.num_clips == (3 if at is None else 1)
    assert "1 of 80 clips have a fc6 feature of zeros" in result.notes[0]
    for hit, (cosine, other, i, j) in zip(answer.hits, expected[:15], strict=True):
        assert hit.key == other and hit.moment.start_frame == 8 * i and hit.query_moment.start_frame == 8 * j
        assert hit.cosine == pytest.approx(cosine, abs=1e-14)
        assert hit.moment.end_frame == 8 * i + 16 and hit.moment.start_seconds == 8 * i / 25
        assert hit.query_moment.end_seconds == (8 * j + 16) / 25


def test_many_query_clips_take_a_closer_look_at_the_near_ones_only(moments, monkeypatch):
    path, _ = moments
    hits = featx.search(path, "a/39", k=30, clips=True).answers
    monkeypatch.setattr(nearest, "EXACT_VALUES", 1)
    monkeypatch.setattr(nearest, "STEP_VALUES", 1)
    assert featx.search(path, "a/39", k=30, clips=True).answers == hits


def test_moments_that_cannot_be_asked_for(moments, tmp_path):
    path, _ = moments
    for options, words in (
        ({"at_seconds": 0.5}, "search moments with --clips"),
        ({"per_video": True}, "search moments with --clips"),
        ({"clips": True, "at_seconds": -1}, "lie between 0.00 and 1.28 s"),
        ({"clips": True, "at_seconds": math.nan}, "lie between 0.00 and 1.28 s"),
    ):
        with pytest.raises(UsageError, match=words):
            featx.search(path, "a/03", **options)
    with pytest.raises(UsageError, match="is zero, and zero is near to nothing|no clips"):
        featx.search(path, "a/05", clips=True)  # a video without clips
    with featx.Index(path, clips=True) as index, pytest.raises(UsageError, match="among videos, not moments"):
        index.find_duplicates()
    with pytest.raises(UsageError, match="holds descriptors only"):
        featx.search(write_file(tmp_path / "d.h5", {"fc6": {"a": np.ones(3)}}), "a", clips=True)


# ---------------------------------------------------------------------------------------------------------- duplicates


@pytest.mark.parametrize("threshold", [0.7, 0.999999, 1.0])
def test_duplicates_are_all_pairs_of_slow_sums(tmp_path, monkeypatch, threshold):
    rows = random_rows(40, 24)
    keys = sorted(rows)
    for i in (10, 30, 31, 39):
        rows[keys[i]] = rows[keys[2]] * np.float32(2)
    rows[keys[20]] = rows[keys[21]] * np.float32(4 if threshold == 1 else 1 + 2e-7)
    monkeypatch.setattr(duplicates, "BLOCK_ROWS", 7)
    monkeypatch.setattr(duplicates, "EXACT_VALUES", 100)
    found = featx.find_duplicates(write_file(tmp_path / "f.h5", {"fc6": rows}), threshold)
    expected = {}
    for i, first in enumerate(keys):
        for second in keys[i + 1 :]:
            cosine = slow_cosine(rows[first], rows[second])
            if round(cosine, 14) >= threshold:
                expected[first, second] = cosine
    assert {(p.first, p.second) for p in found.pairs} == expected.keys()
    assert [(-p.cosine, p.first, p.second) for p in found.pairs] == sorted(
        (-p.cosine, p.first, p.second) for p in found.pairs
    )
    for pair in found.pairs:
        assert pair.cosine == pytest.approx(expected[pair.first, pair.second], abs=1e-14)
    together = {key: {key} for key in keys}
    for first, second in expected:
        joined = together[first] | together[second]
        for key in joined:
            together[key] = joined
    groups = {tuple(sorted(group)) for group in together.values() if len(group) > 1}
    assert found.groups == tuple(sorted(groups))
    assert tuple(sorted(keys[i] for i in (2, 10, 30, 31, 39))) in groups or threshold < 0.9


def test_too_many_pairs_and_thresholds_that_mean_nothing(tmp_path, monkeypatch):
    path = write_file(tmp_path / "f.h5", {"fc6": random_rows(30, 8)})
    for threshold in (0, -1, 1.01, math.nan):
        with pytest.raises(UsageError, match="must be above 0 and at most 1"):
            featx.find_duplicates(path, threshold)
    monkeypatch.setattr(duplicates, "MAX_PAIRS", 5)
    with pytest.raises(UsageError, match="more than 5 pairs have a cosine of 0.01 or more; raise the --threshold"):
        featx.find_duplicates(path, 0.01)
    same = write_file(tmp_path / "same.h5", {"fc6": dict.fromkeys("abcd", np.ones(8))})
    with pytest.raises(UsageError, match="more than 5 pairs are of equal features, which no --threshold tells apart"):
        featx.find_duplicates(same, 1)


def test_a_file_without_videos_is_said_to_hold_none(tmp_path):
    path = tmp_path / "f.h5"
    write_features(path, make_provenance(layers=("fc6",)), [], [Failure("a", "a.avi", "no frames")])
    with pytest.raises(UsageError, match="the query 'a' finds nothing, since the file holds no videos"):
        featx.search(path, ["a"])
    for how in ({"dims": 1}, {"basis": path}):
        with pytest.raises(UsageError, match="f.h5 holds no videos to project"):
            featx.pca(path, tmp_path / "c.h5", **how)


def test_the_words_on_how_a_query_is_made_tell_its_views():
    words = [_words(make_provenance(**views), "fc6", Path("f.h5"), None) for views in ({}, {"crops": 3, "flip": 1})]
    assert words[1] == words[0] + ", 3 crops, mirror images too"
