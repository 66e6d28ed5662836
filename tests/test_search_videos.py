"""`featx search` with videos as queries: extracted and projected as the file records, or refused; and what it prints."""

from __future__ import annotations

import csv
import inspect
import json
from dataclasses import fields, replace

import numpy as np
import pytest
from conftest import write_noise_video
from feature_files import make_provenance, write_file
from test_cli import run

import featx
from featx.catalog import WEIGHTS_FOLDER
from featx.errors import CheckpointError, ProvenanceError, UsageError
from featx.extractor import Extractor
from featx.neighbours.queries import _options
from featx.provenance import Provenance
from featx.store import write_features


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Three videos and their features made with settings of their own, plain and compact, with moments in float16."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "in").mkdir()
    for i, name in enumerate("abc"):
        write_noise_video(folder / "in" / f"{name}.mp4", 18 + 4 * i, seed=i)
    featx.extract_to(folder / "in", folder / "f.h5", save="both", dtype="float16", **SETTINGS)
    featx.pca(folder / "f.h5", folder / "small.h5", dims=2)
    return folder


SETTINGS = {"length": 4, "stride": 5, "tail": "pad", "fps": 20.0, "batch_size": 2}
WORDS = "res3d-mini pool5, 4 frames a clip, step 2, stride 5, 20 frames/s, short loop, tail pad"


def test_a_video_is_extracted_as_the_file_records(world):
    (answer,) = featx.search(world / "f.h5", world / "in/b.mp4").answers
    by_key = featx.search(world / "f.h5", "b", include_self=True).answers[0]
    assert [hit.key for hit in answer.hits] == [hit.key for hit in by_key.hits] and answer.hits[0].key == "b"
    np.testing.assert_allclose([h.cosine for h in answer.hits], [h.cosine for h in by_key.hits], atol=1e-6)
    assert WORDS in answer.made and "components" not in answer.made and by_key.made == ""


def test_moments_of_a_video_are_projected_as_those_of_the_file(world):
    options = {"clips": True, "per_video": True, "at_seconds": 0.4}
    (answer,) = featx.search(world / "small.h5", world / "in/b.mp4", **options).answers
    by_key = featx.search(world / "small.h5", "b", include_self=True, **options).answers[0]
    assert [(h.key, h.moment, h.query_moment) for h in answer.hits] == [
        (h.key, h.moment, h.query_moment) for h in by_key.hits
    ]
    assert answer.hits[0].moment == answer.hits[0].query_moment and answer.hits[0].cosine > 1 - 1e-5
    assert answer.made.endswith(f"{WORDS}, projected on the 2 components of its basis")


def test_the_command_prints_what_the_api_finds_and_a_query_that_fails_costs_itself_only(world, capsys, tmp_path):
    table, bad = tmp_path / "hits.csv", tmp_path / "bad.mp4"
    bad.write_bytes(b"no video")
    video = world / "in/a.mp4"
    code, out, err = run(
        capsys, "search", world / "f.h5", "--query", bad, "--query", video, "--query", "c", "-k", "2", "--csv", table
    )
    assert code == 1 and f"failed: {bad}: " in err
    assert out.splitlines()[0] == f"{world}/f.h5: 3 videos, res3d-mini pool5; cosine"
    assert f"query {video}\n  extracted as {world}/f.h5 records: {WORDS}\n    1  1.0000  a\n" in out
    hits = featx.search(world / "f.h5", "c", k=2).answers[0].hits
    assert "\nquery c\n" + "".join(f"    {h.rank}  {h.cosine:.4f}  {h.key}\n" for h in hits) in out
    rows = list(csv.DictReader(table.open()))
    assert [row["query"] for row in rows] == [str(video)] * 2 + ["c"] * 2
    for row, hit in zip(rows[2:], hits, strict=True):
        assert row == {"query": "c", "rank": str(hit.rank), "key": hit.key, "cosine": str(hit.cosine)}
        assert float(row["cosine"]) == hit.cosine


def test_the_command_prints_moments_and_duplicates(world, capsys, tmp_path):
    table = tmp_path / "hits.csv"
    moments = featx.search(world / "f.h5", "c", k=2, clips=True).answers[0]
    code, out, _ = run(capsys, "search", world / "f.h5", "--query", "c", "--clips", "-k", "2", "--json", "--csv", table)
    (answer,) = json.loads(out)["answers"]
    assert code == 0 and answer["query"] == "c" and answer["num_clips"] == moments.num_clips
    assert [hit["moment"]["start_seconds"] for hit in answer["hits"]] == [h.moment.start_seconds for h in moments.hits]
    rows = list(csv.DictReader(table.open()))
    assert [float(row["query_end_seconds"]) for row in rows] == [h.query_moment.end_seconds for h in moments.hits]
    code, out, _ = run(capsys, "search", world / "f.h5", "--query", "c", "--clips", "--at", "0.1", "--per-video")
    assert code == 0 and "query c (1 clip)" in out and out.count("(query 0.00-0.35 s)") == 2
    code, out, _ = run(capsys, "search", world / "f.h5", "--duplicates", "--threshold", "0.1", "--csv", table)
    found = featx.find_duplicates(world / "f.h5", 0.1)
    assert (
        code == 0
        and f"{len(found.pairs)} pairs of cosine 0.1 or more: 3 videos in 1 group\n" in out
        and "group 1: a, b, c\n" in out
    )
    assert [float(row["cosine"]) for row in csv.DictReader(table.open())] == [pair.cosine for pair in found.pairs]
    assert json.loads(run(capsys, "search", world / "f.h5", "--duplicates", "--json")[1])["threshold"] == 0.995


def test_what_nobody_can_extract_again_is_refused(world, tmp_path):
    video = world / "in/a.mp4"
    rows = {"pool5": {"a": np.ones(120), "b": np.arange(120)}}
    mini = dict(backbone="res3d", checkpoint="res3d-mini", length=8, frame_step=2)
    for changes, error, words in (
        ({"checkpoint_sha256": ""}, UsageError, "was imported"),
        (mini, ProvenanceError, "checkpoint_sha256 is .* in .* for the query.*search by a key"),
        ({**mini, "variant": "port"}, UsageError, "has no variants"),
        ({"checkpoint": "mine"}, UsageError, "unknown backbone 'mine'"),
        ({"checkpoint": "c3d-sports1m"}, CheckpointError, "needs weights"),
    ):
        path = write_file(tmp_path / "f.h5", rows, **changes)
        with pytest.raises(error, match=words):
            featx.search(path, video)
        assert featx.search(path, "a").answers[0].hits[0].key == "b"


def test_each_recorded_setting_that_differs_is_told_or_met(world, tmp_path):
    """Whatever field of the provenance is changed: the query follows it, or is refused. Nothing is passed over."""
    met = {"length", "stride", "frame_step", "num_clips_even", "fps", "short", "tail", "layers", "save", "dtype"}
    free = {"run", "engine", "batch_size", "featx_version", "basis_sha256", "format", "format_version"}
    recorded = featx.Index(world / "f.h5").provenance
    told = Extractor(batch_size=2, **_options(recorded, "pool5", "clips")).provenance
    for field in fields(Provenance):
        if field.name not in free | met | {"save"}:
            assert getattr(told, field.name) == getattr(recorded, field.name), field.name
    for name in sorted(met - {"layers", "save"}):
        assert getattr(told, name) == getattr(recorded, name), name


@pytest.mark.parametrize(
    "options", [{"aggregate": "max"}, {"flip": True, "crops": 3}, {"aggregate": "bins", "bins": 4}], ids=str
)
def test_a_query_is_made_as_the_file_was(world, tmp_path, options):
    video = world / "in/a.mp4"
    featx.extract_to([video, world / "in/b.mp4"], tmp_path / "f.h5", **options)
    hits = featx.search(tmp_path / "f.h5", video, 2).answers[0].hits
    assert hits[0].key == "a" and hits[0].cosine == pytest.approx(1, abs=1e-6) and hits[1].cosine < 1


def test_every_choice_an_extractor_offers_is_thought_of():
    """A new option of Extractor changes what features are: a query must be given it, or it must be known to change nothing."""
    given = set(_options(make_provenance(num_clips_even=3), "fc6", "clips")) | set(
        _options(make_provenance(), "fc6", "clips")
    )
    elsewhere = {"weights", "mean", "device", "batch_size", "engine", "backbone", "self"}
    no_matter = {"on_corrupt", "timeout_seconds", "num_clips_random", "clips_seed", "listed_clips", "num_decoders"}
    no_matter |= {"decode", "pixels", "bins", "clip_times"}  # the same frames and pixels; what lies beside the features
    assert set(inspect.signature(Extractor.__init__).parameters) == given | elsewhere | no_matter


def test_a_card_of_ones_own_and_weights_are_taken(world, capsys, tmp_path):
    mini = json.loads((WEIGHTS_FOLDER / "res3d-mini.json").read_text())
    card, made, video = tmp_path / "mine.json", tmp_path / "f.h5", world / "in/a.mp4"
    card.write_text(json.dumps(mini | {"name": "res3d-mine", "embedded": False, "file": None}))
    with featx.open(world / "f.h5") as features:
        videos = [features[key] for key in features.keys]
        write_features(made, replace(features.provenance, checkpoint="res3d-mine"), videos)
    code, _, err = run(capsys, "search", made, "--query", video)
    assert code == 2 and "unknown backbone 'res3d-mine'" in err
    weights = WEIGHTS_FOLDER / mini["file"]
    code, out, _ = run(capsys, "search", made, "--query", video, "--card", card, "--weights", weights)
    assert code == 0 and "1  1.0000  a\n" in out


def test_listed_clips_are_known_by_their_key_only(world, tmp_path):
    with featx.open(world / "f.h5") as features:
        videos = [features[key] for key in features.keys]
        write_features(tmp_path / "f.h5", replace(features.provenance, stride=0), videos)
    with pytest.raises(UsageError, match="were listed one by one.*search by a key"):
        featx.search(tmp_path / "f.h5", world / "in/a.mp4")
    assert len(featx.search(tmp_path / "f.h5", "a").answers[0].hits) == 2
