"""`featx report`: what the page holds is what the feature file holds, and nothing in it can become markup."""

from __future__ import annotations

import base64
import html.parser
import json
import os
import re
import shutil
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from feature_files import write_file

import featx
from featx import images
from featx.cli import main
from featx.descriptors import l2_normalise
from featx.errors import FeatureFileError, FeatxError, UnknownNameError, UsageError
from featx.report import layers, neighbours, page, report, thumbnails
from featx.report.gather import class_names
from featx.report.thumbnails import Thumbnails, find_video

HOSTILE = "</script><img src=x onerror=alert(1)>\"'&<!--\u202e%%program%%"


class Parsed(html.parser.HTMLParser):
    """The elements of a page, and the text of its script blocks by id."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.meta: dict[str, str] = {}
        self.scripts: dict[str, str] = {}
        self._script: str | None = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        if tag == "meta":
            self.meta[attrs.get("http-equiv", attrs.get("name", ""))] = attrs.get("content", "")
        self._script = attrs.get("id", "program") if tag == "script" else None
        if self._script:
            self.scripts[self._script] = ""

    def handle_endtag(self, tag):
        self._script = None

    def handle_data(self, text):
        if self._script:
            self.scripts[self._script] += text

    @property
    def data(self) -> dict:
        return json.loads(self.scripts["data"])


def parse(path: Path) -> Parsed:
    return Parsed(path.read_text())


def array(text: str, dtype: str, *shape: int) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype).reshape(shape)


def make_rows(num_rows, dims=12, seed=0, classes=("fall", "run", "walk")):
    rng = np.random.default_rng(seed)
    centres = 2 * rng.normal(size=(len(classes), dims))
    keys = [f"{classes[i % len(classes)]}/v_{i:04d}" for i in range(num_rows)]
    return {key: centres[i % len(classes)] + rng.normal(size=dims) for i, key in enumerate(keys)}


def cosines_of(rows) -> np.ndarray:
    unit = l2_normalise(np.stack([rows[key] for key in sorted(rows)])).astype(np.float64)
    return unit @ unit.T


@pytest.fixture(scope="module")
def made(tmp_path_factory, clips_folder):
    """A feature file of two layers with real videos of three classes, a failure and a damaged one, and its page."""
    folder = tmp_path_factory.mktemp("report")
    shutil.copytree(clips_folder, folder / "videos")
    shutil.copy(folder / "videos/dog/000.mp4", folder / "videos/cat/001.mp4")
    (folder / "videos/cat/broken.mp4").write_text("nothing of a video")
    featx.extract_to(folder / "videos", folder / "f.h5", layers=["pool5", "prob"], save="both")
    summary = featx.write_report(folder / "f.h5", folder / "r.html", title="My videos")
    return folder, summary


# ------------------------------------------------------------------------------------------------------------- contents


def test_the_page_tells_what_the_file_holds(made):
    folder, summary = made
    data = parse(folder / "r.html").data
    with featx.open(folder / "f.h5") as features:
        videos = data["videos"]
        assert videos["key"] == features.keys and data["title"] == "My videos"
        for name in ("path", "num_clips", "num_frames", "fps", "duration_seconds"):
            assert videos[name] == features.column(name).tolist(), name
        assert data["failures"] == [{"key": f.key, "path": f.path, "reason": f.reason} for f in features.failures]
        assert len(data["failures"]) == summary.num_failures == 1
        made_with = {name: list(v) if isinstance(v, tuple) else v for name, v in vars(features.provenance).items()}
        assert data["made"] == made_with
        assert data["holds"]["dims"] == {layer: features.num_dims(layer) for layer in features.layers}
        for layer in features.layers:
            held, num_videos = data["layers"][layer], len(features)
            rows = features.descriptors(layer).astype(np.float64)
            cosines = rows @ rows.T
            vectors = array(held["vectors"], "<f4", num_videos, held["vector_dims"])
            offsets = array(held["offsets"], "<f4", num_videos)
            np.testing.assert_allclose(vectors @ vectors.T + offsets[:, None] + offsets, cosines, atol=3e-6)
            indices = array(held["neighbours"], "<u4", num_videos, held["num_neighbours"])
            told = array(held["cosines"], "<f4", num_videos, held["num_neighbours"])
            np.testing.assert_allclose(told, np.take_along_axis(cosines, indices.astype(int), 1), atol=1e-6)
            assert array(held["points"], "<f4", num_videos, 2).any()
    assert (
        data["classes"] == ["cat", "dog"]
        and [data["classes"][i] for i in data["class_of"]] == ["cat"] * 2 + ["dog"] * 2
    )
    assert summary.num_classes == 2 and summary.layers == ("pool5", "prob")
    assert summary.num_bytes == (folder / "r.html").stat().st_size


def test_the_thumbnails_are_pictures_of_the_videos(made, tmp_path):
    folder, summary = made
    parsed = parse(folder / "r.html")
    sizes = parsed.data["pictures"]
    assert summary.num_thumbnails == len(sizes) == 4 and not parsed.data["picture_reasons"]
    block, pictures, place = base64.b64decode(parsed.scripts["pictures-0"]), {}, 0
    for video, size in sizes:
        pictures[video] = block[place : place + size]
        place += size
    assert place == len(block)
    assert all(data[:4] == b"RIFF" or data[:2] == b"\xff\xd8" for data in pictures.values())
    assert pictures[1] == pictures[2] and pictures[0] != pictures[1]  # cat/001 is a copy of dog/000


def test_neighbours_are_those_of_all_cosines_in_float64():
    rows = l2_normalise(np.random.default_rng(3).normal(size=(150, 40)))
    rows[7] = rows[90] = rows[91]  # equals come in the order of rows
    rows[11] = 0
    indices, cosines = neighbours.nearest(rows, 8)
    exact = rows.astype(np.float64) @ rows.astype(np.float64).T
    np.fill_diagonal(exact, -np.inf)
    expected = np.argsort(-exact, axis=1, kind="stable")[:, :8]
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_allclose(cosines, np.take_along_axis(exact, expected, 1), atol=1e-12)
    assert list(indices[7][:2]) == [90, 91] and list(indices[91][:2]) == [7, 90]


def test_blocks_change_no_neighbour(monkeypatch):
    rows = l2_normalise(np.random.default_rng(3).normal(size=(60, 9)))
    whole = neighbours.nearest(rows, 5)
    monkeypatch.setattr(neighbours, "BLOCK_VALUES", 60 * 7)
    for one, other in zip(whole, neighbours.nearest(rows, 5), strict=True):
        np.testing.assert_array_equal(one, other)


def test_reduced_vectors_tell_their_error():
    rows = l2_normalise(np.stack(list(make_rows(300, dims=64).values())))
    held = layers.layer_data(rows, "pca", budget_bytes=300 * 2 * 20)
    assert not held["exact"] and (held["vector_dims"], held["dtype"]) == (20, "float16")
    vectors, offsets = array(held["vectors"], "<f2", 300, 20).astype(float), array(held["offsets"], "<f4", 300)
    errors = np.abs(vectors @ vectors.T + offsets[:, None] + offsets - rows @ rows.T)
    np.fill_diagonal(errors, 0)
    assert 0.5 * errors.max() < held["pair_error"] <= errors.max() + 1e-6 and held["pair_error"] > 0


def test_the_fast_components_are_the_exact_ones(monkeypatch):
    rows = l2_normalise(np.stack(list(make_rows(90, dims=50).values())))
    exact = layers.layer_data(rows, "pca", 10**6)
    monkeypatch.setattr(layers, "EXACT_SIDE", 10)
    fast = layers.layer_data(rows, "pca", 10**6)
    np.testing.assert_allclose(fast["explained"], exact["explained"], rtol=1e-4)
    points = [array(held["points"], "<f4", 90, 2) for held in (exact, fast)]
    np.testing.assert_allclose(np.abs(points[0]), np.abs(points[1]), atol=1e-4)


def test_clip_features_alone_give_their_mean(tmp_path):
    rng, rows = np.random.default_rng(0), make_rows(9)
    clips = {"fc6": {key: rng.normal(size=(1 + i % 4, 12)).astype(np.float32) for i, key in enumerate(rows)}}
    path = write_file(tmp_path / "f.h5", {"fc6": rows}, clips=clips, save="clips")
    summary = featx.write_report(path, tmp_path / "r.html", thumbnails=False)
    data = parse(tmp_path / "r.html").data
    held = data["layers"]["fc6"]
    told = array(held["cosines"], "<f4", 9, 8)
    expected = cosines_of({key: own.mean(axis=0) for key, own in clips["fc6"].items()})
    np.testing.assert_allclose(told[:, 0], [np.delete(row, i).max() for i, row in enumerate(expected)], atol=1e-6)
    assert any("mean of a video's clips" in note for note in summary.notes) and not data["with_pictures"]


@pytest.mark.parametrize(
    ("keys", "labels", "classes", "class_of", "by"),
    [
        (["a/x", "b/y", "a/z"], ["", "", ""], ["a", "b"], [0, 1, 0], "folder"),
        (["t/a/x", "t/b/y", "z"], ["", "run", ""], ["", "a", "b"], [1, 2, 0], "folder"),
        (["a/x", "b/y", "a/z"], ["3", "1", "3"], ["a", "b"], [0, 1, 0], "folder"),  # of a C3D list
        (["a/x", "b/y", "a/z"], ["run", "run", "walk"], ["run", "walk"], [0, 0, 1], "label"),
        (["t/a/x/000000.000-000001.500", "b/y"], ["", ""], ["a", "b"], [0, 1], "folder"),
        (["x", "y", "z"], ["3", "", "3"], ["", "3"], [1, 0, 1], "label"),
        ([], [], [], [], "folder"),
    ],
)
def test_classes_are_folders_or_labels(keys, labels, classes, class_of, by):
    assert class_names(keys, labels) == (classes, class_of, by)


@pytest.mark.parametrize("method", ["pca", "tsne"])
@pytest.mark.parametrize("num_videos", [0, 1, 2, 3])
def test_a_few_videos_make_a_page_too(tmp_path, num_videos, method):
    rows = make_rows(num_videos) or {"a": np.ones(3)}
    path = write_file(tmp_path / "f.h5", {"fc6": rows}, failures=[("x", "damaged")])
    if not num_videos:
        from feature_files import make_provenance

        from featx.features import Failure
        from featx.store import write_features

        path.unlink()
        write_features(path, make_provenance(), [], [Failure("x", "x.avi", "damaged")])
    summary = featx.write_report(path, tmp_path / "r.html", method=method)
    held = parse(tmp_path / "r.html").data["layers"]["fc6"]
    assert summary.num_videos == num_videos and held["num_neighbours"] == max(0, num_videos - 1) and held["exact"]
    assert held["method"] == "pca" and np.isfinite(array(held["points"], "<f4", num_videos, 2)).all()
    assert any("too few for t-SNE" in note for note in summary.notes) == (method == "tsne")


def test_tsne_on_request(tmp_path):
    path = write_file(tmp_path / "f.h5", {"fc6": make_rows(12), "fc7": make_rows(12, seed=1)})
    featx.write_report(f"{path}:fc7", tmp_path / "r.html", method="tsne", thumbnails=False)
    data = parse(tmp_path / "r.html").data
    assert list(data["layers"]) == ["fc7"] and data["layers"]["fc7"]["method"] == "tsne"
    embedding = featx.embed(f"{path}:fc7", method="tsne")
    found = array(data["layers"]["fc7"]["points"], "<f4", 12, 2)
    np.testing.assert_allclose(np.abs(found), np.abs(embedding.points), rtol=1e-3, atol=1e-3)


# ------------------------------------------------------------------------------------------------------ hostile and large


def test_nothing_in_a_feature_file_becomes_markup(tmp_path):
    rows = {f"{HOSTILE}/{i}{HOSTILE}": np.arange(3) + i for i in range(4)}
    path = write_file(tmp_path / "f.h5", {"fc6": rows}, failures=[(HOSTILE, HOSTILE)], checkpoint=HOSTILE)
    featx.write_report(path, tmp_path / "r.html", title=HOSTILE)
    harmless = write_file(tmp_path / "g.h5", {"fc6": make_rows(4)}, failures=[("a", "b")])
    featx.write_report(harmless, tmp_path / "s.html")
    parsed, plain = parse(tmp_path / "r.html"), parse(tmp_path / "s.html")
    assert parsed.tags == plain.tags and "img" not in parsed.tags
    assert parsed.scripts["program"] == plain.scripts["program"]
    data = parsed.data
    assert data["videos"]["key"] == sorted(rows) and data["title"] == data["made"]["checkpoint"] == HOSTILE
    assert data["failures"][0]["reason"] == HOSTILE
    assert not re.search("[<>&]", parsed.scripts["data"]) and parsed.scripts["data"].isascii()


def test_the_page_allows_its_own_program_alone_and_no_network(made):
    parsed = parse(made[0] / "r.html")
    policy = dict(part.strip().split(" ", 1) for part in parsed.meta["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'" and policy["img-src"] == "blob:"
    assert policy["script-src"] == f"'{page._hash(parsed.scripts['program'])}'"
    assert "unsafe" not in parsed.meta["Content-Security-Policy"]
    text = (made[0] / "r.html").read_text()
    assert not re.search(
        r"https?:|src=|href=\"(?!#)|@import|url\(", re.sub(r"<script type=[^>]*>[^<]*</script>", "", text)
    )


def test_programs_write_texts_and_no_markup():
    for name in page.SCRIPTS:
        text = resources.files("featx.report").joinpath("page", name).read_text()
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|Function\(|fetch\(|\.src = [^p]", text
        )
    listed = {path.name for path in resources.files("featx.report").joinpath("page").iterdir()}
    assert listed == {*page.SCRIPTS, "page.html", "page.css"}


def test_ten_thousand_videos_stay_below_forty_megabytes(tmp_path, monkeypatch):
    """Every part grows with the number of videos up to its budget: here a quarter of the videos, with a quarter of those.

    Pictures are as large as any may be, and so are the vectors of two layers; names are long.
    """
    num_videos, most = 2_500, thumbnails.THUMBNAIL_BYTES // 10_000
    assert thumbnails.LEAST_BYTES <= most <= thumbnails.MOST_BYTES
    monkeypatch.setattr(report, "VECTOR_BYTES", layers.VECTOR_BYTES // 4)
    picture = np.random.default_rng(0).bytes(most)
    stub = Thumbnails(dict.fromkeys(range(num_videos), picture))
    monkeypatch.setattr(report, "make_thumbnails", lambda *args, **kwargs: stub)
    names = [f"JumpingJackInTheSun/v_JumpingJackInTheSun_g{i:05d}_c01" for i in range(num_videos)]
    rows = dict(zip(names, np.random.default_rng(1).normal(size=(num_videos, 130)), strict=True))
    path = write_file(tmp_path / "f.h5", {"fc6": rows, "fc7": rows})
    summary = featx.write_report(path, tmp_path / "r.html")
    assert summary.num_thumbnails == num_videos and 7.5e6 < summary.num_bytes < 10e6
    held = parse(tmp_path / "r.html").data["layers"]["fc6"]
    assert (held["dtype"], held["vector_dims"]) == ("float16", layers.VECTOR_BYTES // 2 // 2 // 10_000)


def test_names_that_are_not_utf_8(tmp_path):
    path = write_file(tmp_path / "bad\udcff.h5", {"fc6": {"a": np.ones(3)}})
    featx.write_report(path, tmp_path / "r.html", thumbnails=False)
    assert "<title>bad\\xff.h5</title>" in (tmp_path / "r.html").read_text(encoding="utf-8")


# -------------------------------------------------------------------------------------------------------- where videos lie


def test_videos_that_are_gone_cost_their_thumbnails_only(made, tmp_path):
    folder, _ = made
    shutil.copy(folder / "f.h5", tmp_path / "f.h5")
    moved = tmp_path / "elsewhere"
    shutil.copytree(folder / "videos", moved)
    (moved / "cat/000.mkv").unlink()
    (moved / "cat/001.mp4").write_bytes((moved / "dog/000.mp4").read_bytes()[:-9])
    hidden = folder / "videos.away"
    (folder / "videos").rename(hidden)
    try:
        summary = featx.write_report(tmp_path / "f.h5", tmp_path / "none.html")
        data = parse(tmp_path / "none.html").data
        assert (
            not data["pictures"] and [reason for _, reason in data["picture_reasons"]] == ["the video is not there"] * 4
        )
        assert any("--videos FOLDER" in note for note in summary.notes) and data["notes"] == list(summary.notes)
        featx.write_report(tmp_path / "f.h5", tmp_path / "some.html", videos=moved)
        data = parse(tmp_path / "some.html").data
        assert [video for video, _ in data["pictures"]] == [2, 3]
        reasons = dict(data["picture_reasons"])
        assert reasons[0] == "the video is not in the folder given" and "when it was extracted" in reasons[1]
    finally:
        hidden.rename(folder / "videos")


def test_where_a_video_is_looked_for(tmp_path, monkeypatch):
    for name in ("a/b.avi", "near/c/d.avi", "x%y\udcff.avi", "secret.avi"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"12345")
    monkeypatch.chdir(tmp_path)
    near = tmp_path / "near"
    assert find_video("b", "a/b.avi", 5, near, None) == (Path("a/b.avi"), "")
    assert find_video("b", os.fspath(tmp_path / "a/b.avi"), 0, near, None)[0] == tmp_path / "a/b.avi"
    assert find_video("c/d", "c/d.avi", 5, near, None)[0] == near / "c/d.avi"
    assert find_video("x%y%FF", "x%y%FF.avi", 5, near, None)[0] == Path("x%y\udcff.avi")
    assert find_video("d", "/gone/c/d.avi", 5, near, near / "c")[0] == near / "c/d.avi"
    assert find_video("c/d/000000.000-000001.500", "/gone/c/d.avi", 5, near, near)[0] == near / "c/d.avi"
    for key, path, words in (
        ("b", "a/b.avi", "has 5 bytes, but had 6"),
        ("b", "https://example.org/b.avi", "an address"),
        ("b", "", "does not say"),
        ("b", "gone/" + 300 * "b", "not there"),
        ("b", "go\0ne.avi", "not there"),
    ):
        found, reason = find_video(key, path, 6, near, None)
        assert found is None and words in reason
    # a folder that is named is not left
    assert find_video("../secret", "../secret.avi", 5, near, near)[0] is None
    assert find_video("secret", os.fspath(tmp_path / "secret.avi"), 5, near, near)[0] is None


@pytest.mark.parametrize("codecs", [images.av.codecs_available, frozenset({"mjpeg"})], ids=["webp", "jpeg"])
def test_thumbnails_keep_to_their_size_and_colours(tmp_path, monkeypatch, codecs):
    monkeypatch.setattr(images.av, "codecs_available", codecs)
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    large, small = images.encode_thumbnail(noise, 10**6), images.encode_thumbnail(noise, 5000)
    assert len(small) <= 5000 < len(large)
    assert len(images.encode_thumbnail(np.zeros((2, 3000, 3), np.uint8), 2000)) < 2000
    colour = np.full((90, 120, 3), (40, 90, 200), np.uint8)
    (tmp_path / "picture").write_bytes(images.encode_thumbnail(colour, 2000))
    with images.av.open(str(tmp_path / "picture")) as container:
        pixels = next(container.decode(video=0)).to_ndarray(format="bgr24")
    assert pixels.shape == colour.shape and np.abs(pixels.astype(int) - colour).max() <= 6


def test_a_thumbnail_is_of_the_middle(tmp_path):
    from conftest import write_video

    from featx.video import read_picture

    path = write_video(tmp_path / "v.mp4", 60, brightness=lambda i: 40 if i < 30 else 200, options={"g": "5"})
    assert read_picture(path).shape == (48, 64, 3)
    assert read_picture(path, 1.6).mean() > 150 > 80 > read_picture(path, 0.5).mean()
    assert read_picture(path, 1e9).size and read_picture(path, -1.0).size


# --------------------------------------------------------------------------------------------------------------- mistakes


def test_mistakes_say_what_to_do(tmp_path):
    path = write_file(tmp_path / "f.h5", {"fc6": make_rows(4)})
    (tmp_path / "old.html").write_text("mine")
    for options, error, words in (
        ({"output": tmp_path / "r.pdf"}, UsageError, "name it such as r.html"),
        ({"output": tmp_path / "old.html"}, UsageError, "--overwrite"),
        ({"output": tmp_path / "no/r.html"}, UsageError, "its folder does not exist"),
        ({"method": "umap"}, UnknownNameError, "unknown method 'umap'"),
        ({"layers": "fc9"}, UnknownNameError, "unknown layer 'fc9'"),
        ({"videos": tmp_path / "gone"}, UsageError, "no such folder"),
        ({"videos": tmp_path, "thumbnails": False}, UsageError, "leave one of them out"),
    ):
        with pytest.raises(error, match=words):
            featx.write_report(path, **{"output": tmp_path / "r.html", **options})
    with pytest.raises(UsageError, match="names layer fc6"):
        featx.write_report(f"{path}:fc6", tmp_path / "r.html", layers=["fc7"])
    holes = {key: np.full(3, np.nan) if key.endswith("2") else np.ones(3) for key in make_rows(4)}
    with pytest.raises(FeatureFileError, match="v_0002' is not finite"):
        featx.write_report(write_file(tmp_path / "nan.h5", {"fc6": holes}), tmp_path / "r.html")
    assert (tmp_path / "old.html").read_text() == "mine" and not (tmp_path / "r.html").exists()
    featx.write_report(path, tmp_path / "old.html", overwrite=True)
    assert parse(tmp_path / "old.html").data["title"] == "f.h5"


def test_a_page_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    path = write_file(tmp_path / "f.h5", {"fc6": make_rows(4)})

    def broken(*args):
        yield "<!doctype html>"
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(report, "page_text", broken)
    with pytest.raises(FeatxError, match="No space left"):
        featx.write_report(path, tmp_path / "r.html")
    assert [p.name for p in tmp_path.iterdir()] == ["f.h5"]


def test_the_command(tmp_path, capsys, made):
    with pytest.raises(SystemExit) as exit:
        main(
            [
                "report",
                str(made[0] / "f.h5"),
                "-o",
                str(tmp_path / "r.html"),
                "--layer",
                "prob",
                "--title",
                "T",
                "--quiet",
            ]
        )
    assert exit.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{tmp_path / 'r.html'}: 4 videos, 2 classes, 1 failures, 4 thumbnails, prob, ")
    data = parse(tmp_path / "r.html").data
    assert data["title"] == "T" and list(data["layers"]) == ["prob"]
