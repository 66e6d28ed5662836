"""The scenes that teach the embedded checkpoint: what they show, and that their labels are true."""

from __future__ import annotations

import math
import sys
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
sys.path.append(str(EXAMPLES))

import simple_figures  # noqa: E402
import train_mini  # noqa: E402
from render_actions import _noise, render_clip  # noqa: E402
from rendering import aspect, camera, scene  # noqa: E402
from rendering.actions import ACTIONS  # noqa: E402
from rendering.parts import PARTS, part_maps  # noqa: E402
from rendering.photographs import read_photographs  # noqa: E402
from rendering.pictures import FAMILIES, draw_pictures  # noqa: E402
from rendering.scene import REACH_DIMS, Renderer  # noqa: E402
from simple_figures import LABELS, figures_batch  # noqa: E402

FAMILY_OF_PHOTOGRAPHS = list(FAMILIES).index("photo")


@pytest.fixture(scope="module")
def folder_of_photographs(tmp_path_factory):
    """A pure green and a pure red disc, cut out, and a blue picture."""
    folder = tmp_path_factory.mktemp("photographs")
    row, column = np.mgrid[:60, :60] - 29.5
    disc = (np.hypot(row, column) < 28)[..., None] * np.uint8(255)
    for name, colour in (("a", (0, 255, 0)), ("b", (255, 0, 0))):
        write_png(folder / f"{name}.png", np.concatenate([np.broadcast_to(np.uint8(colour), (60, 60, 3)), disc], 2))
    write_png(folder / "c.png", np.broadcast_to(np.uint8((0, 0, 255, 255)), (60, 80, 4)).copy())
    return folder


def write_png(path, pixels):
    """Write RGBA uint8 (h, w, 4)."""
    codec = av.CodecContext.create("png", "w")
    codec.height, codec.width, codec.pix_fmt, codec.time_base = *pixels.shape[:2], "rgba", Fraction(1, 25)
    packets = codec.encode(av.VideoFrame.from_ndarray(pixels, "rgba")) + codec.encode(None)
    path.write_bytes(b"".join(bytes(packet) for packet in packets))


@pytest.fixture(scope="module")
def batch():
    return Renderer((5, 0), pictures=6).batch(3, 24, 32)


def test_a_batch_depends_on_its_seeds_and_number_only(batch):
    again = Renderer((5, 0), pictures=6)
    other = again.batch(2, 24, 32)
    again = again.batch(3, 24, 32)
    assert batch.clips.shape == (24, 8, 32, 32, 3) and batch.clips.dtype == torch.uint8
    assert torch.equal(batch.clips, again.clips) and torch.equal(batch.reach, again.reach)
    assert all(torch.equal(batch.labels[name], again.labels[name]) for name in scene.LABELS)
    assert not torch.equal(batch.clips, other.clips)
    assert not torch.equal(batch.clips, Renderer((5, 1), pictures=6).batch(3, 24, 32).clips)


def test_labels_are_told_where_they_are_known(batch):
    assert set(batch.labels) == {*scene.LABELS, *scene.EXEMPLARS}
    for name, classes in scene.LABELS.items():
        assert batch.labels[name].min() >= -1 and batch.labels[name].max() < len(classes)
    assert (batch.labels["cutout"] == -1).all()  # there are none
    assert torch.equal(batch.labels["photograph"] >= 0, batch.labels["picture"] == FAMILY_OF_PHOTOGRAPHS)
    people = batch.labels["people"] >= 0
    assert torch.equal(people, batch.has_reach.bool()) and 0 < people.sum() < 24
    assert batch.reach.shape == (24, REACH_DIMS) and not batch.reach[~people].any() and batch.reach[people].any(1).all()
    assert torch.equal(batch.labels["action"] >= 0, batch.labels["playback"] == 1)  # backwards it is another action
    assert not (people & (batch.labels["dynamic"] >= 0)).any()
    assert torch.equal(people, batch.labels["playback_speed"] >= 0) and len(LABELS["action"]) >= 40
    uncut = batch.labels["cut"] == 0
    assert torch.equal(uncut, batch.labels["camera_speed"] >= 0) and torch.equal(uncut, batch.labels["zoom"] >= 0)


def test_photographs_of_ones_own_are_seen_and_their_things_named(folder_of_photographs):
    batch = Renderer((5, 0), pictures=24, photographs=folder_of_photographs).batch(0, 120, 32)
    _, green, red = batch.clips.int().unbind(-1)
    shares = {}
    for number, colour in enumerate((green - red, red - green)):  # in the order of their names
        seen = (colour > 90).flatten(1).float().mean(1) > 0.01
        for other in (0, 1):
            named = batch.labels["cutout"] == other
            assert named.sum() >= 5
            shares[number, other] = float(seen[named].float().mean())
    # one may be hidden, dim or out of the picture, and the other behind it
    assert shares[0, 0] > shares[0, 1] + 0.2 and shares[1, 1] > shares[1, 0] + 0.2
    assert 0 <= batch.labels["photograph"].max() < len(read_photographs(folder_of_photographs).whole)
    assert torch.equal(batch.labels["photograph"] >= 0, batch.labels["picture"] == FAMILY_OF_PHOTOGRAPHS)


def test_clips_show_something_that_changes(batch):
    clips = batch.clips.float()
    assert (clips.std((1, 2, 3, 4)) > 3).float().mean() > 0.8
    assert ((clips[:, 1:] - clips[:, :-1]).abs().mean((1, 2, 3, 4)) > 0.5).float().mean() > 0.8


def test_people_in_calm_scenes_grow_rarer():
    assert [train_mini.calm_share(p, 0.5) for p in (0, 0.25, 0.5, 0.9)] == pytest.approx([1, 0.6, 0.2, 0.2])
    assert train_mini.calm_share(0, 0) == 0.2  # weights that know them already


def test_a_third_of_a_batch_are_simple_figures(monkeypatch):
    monkeypatch.setattr(simple_figures, "draw_filmed_size", lambda generator, side: (side, side))
    renderer = Renderer((5, 0), pictures=6)
    mixed = train_mini.mixed_batch(renderer, 3, 30, 32)
    figures, scenes = mixed.labels["motion"] >= 0, mixed.labels["camera"] >= 0
    assert figures.sum() == 10 and not (figures & scenes).any()
    assert set(mixed.labels) == {*LABELS, *scene.EXEMPLARS} and (mixed.labels["motion"][:20] == -1).all()
    assert torch.equal(mixed.clips[:20], renderer.batch(3, 20, 32).clips)
    assert mixed.labels["motion"][20:].tolist() == [(30 + i) % 14 for i in range(10)]
    own = render_clip("WalkForward", (5, 0, 42, 1), (5, 0, 42, 2), *frames_of(42), 37, 49).frames
    again = figures_batch((5, 0), 4, 10, 32, 0.0)
    assert torch.equal(again.clips[2], torch.from_numpy(own[:, 2:34, 8:40, ::-1].copy()))
    assert mixed.has_reach[20:].all() and mixed.reach[20:].any(1).all()
    assert mixed.parts[20:, :, PARTS.index("head")].amax((1, 2, 3)).min() > 0.4


@pytest.mark.parametrize("cells, height, width", [(2.0, 37, 50), (9.3, 64, 48), (64.0, 30, 90)])
def test_noise_is_interpolated_between_its_cells(cells, height, width):
    """As SciPy interpolates linearly, at places drawn towards the cells by a cubic."""
    rows, columns = (max(2, round(x) + 1) for x in (cells, cells * width / height))
    grid = np.random.default_rng(3).standard_normal((2, rows, columns))
    places = np.meshgrid(np.linspace(0, rows - 1, height), np.linspace(0, columns - 1, width), indexing="ij")
    smoothed = [np.floor(x) + 3 * (x % 1) ** 2 - 2 * (x % 1) ** 3 for x in places]
    expected = np.stack([ndimage.map_coordinates(one, smoothed, order=1) for one in grid])
    found = _noise(np.random.default_rng(3), cells, height, width, 2)
    assert found.dtype == np.float32 and np.allclose(found, expected, atol=2e-4)


def frames_of(index: int) -> tuple[np.ndarray, int]:
    """Which frames of how long a video clip `index` of collection (5, 0) shows."""
    rng = np.random.default_rng((5, 0, index, 0))
    num_frames = int(rng.integers(16, 29))
    return int(rng.integers(0, num_frames - 14)) + 2 * np.arange(8), num_frames


def test_part_maps_take_the_nearest_and_average_the_ways():
    torch.manual_seed(0)
    points, part, clip = torch.rand(3, 8, 4, 2), torch.tensor([0, 5, 0, 2]), torch.tensor([0, 0, 2])
    parts, motions = part_maps(points, part, clip, 3, 32, 48)
    assert parts.shape == (3, 2, 6, 4, 6) and motions.shape == (3, 2, 6, 2, 4, 6)
    assert not parts[1].any() and not motions[1].any() and not parts[:, :, (1, 3, 4)].any()
    for n, half, p, row, column in np.ndindex(*parts.shape):
        most, weight, moved = 0.0, 0.0, torch.zeros(2)
        for q, k in np.ndindex(3, 4):
            if clip[q] == n and part[k] == p:
                own = points[q, 4 * half : 4 * half + 4, k] * 32  # in pixels
                away = (own - torch.tensor([8 * row + 4.0, 8 * column + 4.0])).norm(dim=1) / 8
                seen = float(torch.exp(-0.5 * (away / 0.7) ** 2).max())
                most, weight = max(most, seen), weight + seen
                moved += seen * (own[3] - own[0]) / 32 * 8
        assert parts[n, half, p, row, column] == pytest.approx(most, abs=1e-5)
        if weight > 1e-3:
            assert torch.allclose(motions[n, half, p, :, row, column], moved / weight, atol=1e-3)


@pytest.mark.parametrize("filmed", [(64, 64), (104, 40)])
def test_heads_are_painted_where_the_maps_say(filmed, monkeypatch):
    """In calm simple figures the picture changes where the maps say that a head moves, and little where it keeps still."""
    monkeypatch.setattr(simple_figures, "draw_filmed_size", lambda generator, side: filmed)
    figures = figures_batch((5, 0), 4, 14, 64, 1.0)
    heads = figures.parts[:, 0, PARTS.index("head")]
    motion = figures.motions[:, 0, PARTS.index("head")]
    changed = (figures.clips[:, 0].float() - figures.clips[:, 3].float()).abs().mean(-1)  # (N, h, w)
    changed = F.avg_pool2d(changed[:, None], 8)[:, 0]
    speed = (motion.norm(dim=1) * heads).sum((1, 2)) / heads.sum((1, 2))
    there = (changed * heads).sum((1, 2)) / heads.sum((1, 2))
    assert there[speed > 1].min() > 1.5 * there[speed < 0.1].max()


def test_scenes_are_filmed_in_many_shapes_of_about_as_many_pixels():
    generator = torch.Generator().manual_seed(1)
    sizes = np.array([aspect.draw_filmed_size(generator, 64) for _ in range(400)])
    stretches = sizes[:, 0] / sizes[:, 1]  # a tall film's people are shown broad
    assert not (sizes % 8).any() and (np.abs(sizes.prod(1) / 64**2 - 1) < 0.2).all()
    assert 0.45 < (stretches == 1).mean() < 0.75 and stretches.min() < 0.65 and 2 < stretches.max() < 2.7


@pytest.mark.parametrize("height, width", [(104, 40), (48, 88), (64, 64)])
def test_films_are_squeezed_as_pillow_does(height, width):
    image = pytest.importorskip("PIL.Image")
    clips = torch.randint(
        0, 256, (2, 3, height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(2)
    )
    found = aspect.shown(clips, 64)
    for n, t in np.ndindex(2, 3):
        own = image.fromarray(clips[n, t].numpy()).resize((64, 64), image.Resampling.BILINEAR)
        assert np.abs(found[n, t].int().numpy() - np.asarray(own).astype(int)).max() <= 1


def test_calm_scenes_stand_still_but_for_the_people():
    """Behind calm people nothing moves: most pixels of a clip are the same in all frames."""
    calm = Renderer((5, 0), pictures=6).batch(3, 24, 32, ease=1.0)
    people = calm.labels["people"] >= 0
    assert (calm.labels["camera"][people] == 0).all() and (calm.labels["cut"][people] == 0).all()
    still = (calm.clips == calm.clips[:, :1]).all(-1).float().mean((1, 2, 3))  # the share of pixels of a clip
    assert still[people].median() > 0.6
    assert not torch.equal(calm.labels["camera"][~people], torch.zeros(int((~people).sum())))


@pytest.fixture
def filmed_by(monkeypatch):
    """Make every camera of the scenes one of this kind, without cuts."""

    def choose(kind: str) -> None:
        for name in camera.CAMERAS:
            monkeypatch.setitem(camera.CAMERAS, name, float(name == kind))
        monkeypatch.setattr(scene, "draw_camera", partial(camera.draw_camera, cut_share=0.0))

    return choose


def test_who_is_followed_stays_in_the_middle(filmed_by):
    """By the maps of parts: half-way between hips and head of people who are alone."""

    def middles() -> torch.Tensor:
        batch = Renderer((5, 0), pictures=6).batch(3, 60, 64)
        alone = batch.labels["people"] == 0
        maps = batch.parts[alone][:, :, [PARTS.index("hips"), PARTS.index("head")]]
        maps = torch.where(maps > 0.5, maps, 0)
        seen = maps.sum((3, 4)).amin((1, 2)) > 0  # in both halves of the clip, within the picture
        maps = maps[seen] / maps[seen].sum((3, 4), keepdim=True)
        line = (torch.arange(8) + 0.5) / 8 - 0.5
        places = torch.stack([(maps.sum(4) * line).sum(3), (maps.sum(3) * line).sum(3)], -1)  # (N, 2, parts, 2)
        return places.mean(2)

    filmed_by("still")
    loose = middles().norm(dim=-1)
    filmed_by("follow")
    kept = middles().norm(dim=-1)
    assert len(kept) > 15 and kept.max() < 0.12 < loose.max() and kept.mean() < 0.4 * loose.mean()


@pytest.mark.parametrize("kind", ["people", "things"])
def test_a_camera_that_follows_goes_where_its_subject_goes(filmed_by, monkeypatch, kind):
    """Through the camera's own numbers the subject is seen near the middle in every frame, however far it goes."""
    filmed_by("follow")
    painted = []
    name = {"people": "paint_people", "things": "paint_objects"}[kind]
    paint = getattr(scene, name)
    monkeypatch.setattr(scene, name, lambda *args: painted.append((args[1], args[3])) or paint(*args))
    drawn = scene._draw_scene(
        torch.Generator().manual_seed(3),
        kind,
        24,
        (32, 32),
        32,
        pictures_of(6),
        torch.zeros(0),
        torch.device("cpu"),
        0.0,
    )
    (subject, seen_by), *_ = painted
    path = subject.path if kind == "people" else subject.centre[:, 0]
    assert camera.screen_points(seen_by, path).norm(dim=-1).max() < 0.06
    assert (path - path[:, :1]).norm(dim=-1).max() > 0.2
    assert (drawn.labels["camera"] == list(camera.CAMERAS).index("follow")).all()
    if kind == "people":
        assert not subject.following.any()  # the camera's way is theirs already


def test_who_wanders_with_nothing_to_follow_is_not_named_a_follower(filmed_by):
    filmed_by("follow")
    batch = Renderer((5, 0), pictures=6).batch(3, 40, 32)
    follows = batch.labels["camera"] == list(camera.CAMERAS).index("follow")
    somebody = (batch.labels["people"] >= 0) | (batch.labels["thing_direction"] >= 0)
    assert follows[somebody].all() and not follows[batch.labels["dynamic"] >= 0].any()
    assert (batch.labels["camera"][~follows] == -1).all() and not follows.all()


@pytest.fixture
def drawn(monkeypatch):
    """Draw scenes of a kind, seen by cameras that are never cut: their labels and what they were painted from."""

    def draw(kind: str, num: int = 120, ease: float = 0.0) -> tuple[dict[str, torch.Tensor], dict]:
        seen = {}
        for name, paint in (("look", scene.look), ("paint_objects", scene.paint_objects)):

            def painted(*args, name=name, paint=paint):
                seen[name] = args
                return paint(*args)

            monkeypatch.setattr(scene, name, painted)
        draw_people = scene.draw_people

        def drawn_people(generator, num, times, bank_size):
            seen["times"], seen["people"] = times, draw_people(generator, num, times, bank_size)
            return seen["people"]

        monkeypatch.setattr(scene, "draw_people", drawn_people)
        monkeypatch.setattr(scene, "draw_camera", partial(camera.draw_camera, cut_share=0.0))
        generator, size = torch.Generator().manual_seed(6), (16, 16)
        cutouts, device = torch.zeros(0), torch.device("cpu")
        batch = scene._draw_scene(generator, kind, num, size, 16, pictures_of(6), cutouts, device, ease)
        return batch.labels, seen

    return draw


def has_speed(label: torch.Tensor, speed: torch.Tensor, slack: float = 1e-4) -> torch.Tensor:
    """Whether speeds, in picture heights a shown frame, lie between the bounds of their classes."""
    bounds = torch.tensor([0.0, 0.004, 0.012, 0.025, 0.05, math.inf])
    return (speed > bounds[label] - slack) & (speed < bounds[label + 1] + slack)


def way(seen_by: camera.Camera, points: torch.Tensor) -> torch.Tensor:
    """From where to where scene points (B, 8, 2) are seen to go, (B, 2) a frame."""
    seen = camera.screen_points(seen_by, points)
    return (seen[:, -1] - seen[:, 0]) / 7


def test_the_camera_s_speed_and_zoom_are_told(drawn):
    """A place that stays where it is goes over the screen as fast as told; two places part where the camera zooms in."""
    labels, seen = drawn("views")
    seen_by = seen["look"][2]
    steady = (seen_by.zoom == seen_by.zoom[:, :1]).all(1) & (seen_by.roll == seen_by.roll[:, :1]).all(1)
    speed = way(seen_by, torch.zeros(120, 8, 2)).norm(dim=1)
    assert has_speed(labels["camera_speed"], speed)[steady].all()
    assert set(labels["camera_speed"][steady].tolist()) == set(range(5))
    one, other = (camera.screen_points(seen_by, torch.full((120, 8, 2), x)) for x in (0.0, 0.1))
    apart = (one - other).norm(dim=-1)
    growth = apart[:, -1] / apart[:, 0]
    expected = torch.where(growth > 1.01, 2, torch.where(growth < 0.99, 0, 1))
    assert torch.equal(labels["zoom"], expected) and set(expected.tolist()) == {0, 1, 2}


def test_the_speed_of_a_thing_is_told(drawn):
    """How fast it goes over the screen, beside a place that stays where it is."""
    labels, seen = drawn("things", 240)
    _, things, _, seen_by, _ = seen["paint_objects"]
    steady = (seen_by.zoom == seen_by.zoom[:, :1]).all(1) & (seen_by.roll == seen_by.roll[:, :1]).all(1)
    speed = (way(seen_by, things.centre[:, 0]) - way(seen_by, torch.zeros(240, 8, 2))).norm(dim=1)
    told = labels["thing_speed"] >= 0
    assert torch.equal(told, labels["thing_direction"] >= 0) and (things.count[told] == 1).all()
    assert has_speed(labels["thing_speed"], speed)[told & steady].all()
    assert set(labels["thing_speed"][told].tolist()) == set(range(5))


def test_people_s_speed_and_that_of_the_playback_are_told(drawn):
    labels, seen = drawn("people", 300)
    steps = (seen["times"][:, 1:] - seen["times"][:, :-1]).mean(1)
    assert torch.equal(labels["playback"], (steps > 0).long())
    bounds = torch.tensor([0.7, 1.14, 1.85, 3.0])
    label, step = labels["playback_speed"], steps.abs()
    assert ((step > bounds[label] - 1e-3) & (step < bounds[label + 1] + 1e-3)).all()
    assert label.bincount().min() > 60  # as many of each
    people = seen["people"]
    gone = ((people.path[:, -1] - people.path[:, 0]) / 7).norm(dim=1)
    fast = labels["people_speed"] >= 2
    travels = torch.tensor([any(action.travel) for action in ACTIONS.values()])[people.action]
    assert torch.equal(labels["people_speed"] >= 0, travels)  # of who stays in place there is nothing to learn
    assert (labels["people_speed"][travels] == 0).float().mean() < 0.8
    # Bodies also rise and bend, and in perspective who comes nearer gains some of their speed.
    assert fast.sum() >= 5 and gone[fast].median() > 3 * gone[~travels].median()
    assert (gone[fast] > 0.006).float().mean() > 0.8


def test_calm_cameras_have_neither_speed_nor_zoom(drawn):
    labels, _ = drawn("people", 30, ease=1.0)
    assert (labels["camera_speed"] == 0).all() and (labels["zoom"] == 1).all()


def pictures_of(num: int):
    return draw_pictures(torch.Generator().manual_seed(1), num, 48)
