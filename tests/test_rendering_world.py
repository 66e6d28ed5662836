"""The rendered world of examples/rendering/: pictures, cameras, things, dynamic textures and capture."""

from __future__ import annotations

import math
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).parents[1] / "examples"
sys.path.append(str(EXAMPLES))

from rendering import camera as camera_module  # noqa: E402
from rendering.camera import CAMERAS, Camera, draw_camera, look, screen_points  # noqa: E402
from rendering.capture import EFFECTS, apply_capture, draw_capture, quantise  # noqa: E402
from rendering.draws import DIRECTIONS, STILL, direction_of  # noqa: E402
from rendering.dynamic import DYNAMICS, PACES, SPACE_BANDS, draw_dynamic, render_dynamic  # noqa: E402
from rendering.objects import MOTIONS, SHAPES, draw_objects, paint_objects  # noqa: E402
from rendering.patterns import BANDS, PAINTERS  # noqa: E402
from rendering.photographs import read_photographs  # noqa: E402
from rendering.pictures import FAMILIES, draw_pictures  # noqa: E402

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def clock(batch: int, num_frames: int = 8, step: float = 1.0) -> torch.Tensor:
    return (torch.arange(num_frames) * step).expand(batch, -1).contiguous()


def still_camera(batch: int, num_frames: int = 8, extent: float = 2.0) -> Camera:
    """A camera that looks straight at the middle."""
    camera = draw_camera(seeded(), clock(batch, num_frames), cut_share=0)
    return replace(
        camera,
        offset=torch.zeros(batch, num_frames, 2),
        zoom=torch.ones(batch, num_frames),
        roll=torch.zeros(batch, num_frames),
        tilt=torch.zeros(batch, 2),
        extent=torch.full((batch,), extent),
    )


def centroids(light: torch.Tensor) -> torch.Tensor:
    """The centres (T, 2), in picture heights from the middle, of the light in (T, h, w)."""
    _, height, width = light.shape
    y = (torch.arange(height) + 0.5) / height - 0.5
    x = (torch.arange(width) + 0.5 - width / 2) / height
    total = light.sum((1, 2))
    return torch.stack([(light.sum(2) * y).sum(1) / total, (light.sum(1) * x).sum(1) / total], 1)


def spot(size: int, y: float, x: float, extent: float) -> torch.Tensor:
    """A picture (1, 3, size, size) with a small bright spot where a camera of `extent` sees scene point (y, x)."""
    line = ((torch.arange(size) + 0.5) / size - 0.5) * extent
    light = torch.exp(-((line[:, None] - y) ** 2 + (line[None] - x) ** 2) / 0.03**2)
    return light.expand(1, 3, -1, -1).contiguous()


@pytest.fixture(scope="module")
def bank():
    return draw_pictures(seeded(1), 12, 48)


# ------------------------------------------------------------------------------------------------ pictures


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_makes_varied_pictures_in_range(family):
    pictures = draw_pictures(seeded(3), 3, 40, families=(family,))
    assert pictures.pixels.shape == (3, 3, 40, 40) and pictures.pixels.dtype == torch.float32
    assert pictures.pixels.min() >= 0 and pictures.pixels.max() <= 1
    assert {list(FAMILIES)[number] for number in pictures.family} == {family}
    assert (pictures.band >= 0).all() if family == "band" else (pictures.band == -1).all()
    deviations = pictures.pixels.flatten(2).std(2).mean(1)
    assert deviations.max() > 0.02 and not torch.equal(pictures.pixels[0], pictures.pixels[1])
    again = draw_pictures(seeded(3), 3, 40, families=(family,))
    assert torch.equal(pictures.pixels, again.pixels)


def test_painters_and_the_special_families_are_all_there_are():
    assert set(FAMILIES) == {*PAINTERS, "photo", "mix", "band"}
    whole = read_photographs().whole
    assert len(whole) >= 2 and all(photo.shape[0] == 3 and 0.02 < photo.mean() < 0.9 for photo in whole)


def test_band_limited_noise_keeps_to_its_band():
    size = 96
    pictures = draw_pictures(seeded(5), 12, size, families=("band",))
    assert len(set(pictures.band.tolist())) == len(BANDS)
    for picture, band in zip(pictures.pixels, pictures.band.tolist(), strict=True):
        power = torch.fft.fft2(picture - picture.mean((1, 2), keepdim=True)).abs().square().sum(0)
        frequency = torch.fft.fftfreq(size, 1 / size)
        frequency = torch.hypot(frequency[:, None], frequency[None])
        low, high = BANDS[band]
        inside = power[(frequency >= low) & (frequency <= high)].sum() / power.sum()
        assert inside > 0.98  # the rest is the clamp to 0..1


# ------------------------------------------------------------------------------------------------ cameras


@pytest.mark.parametrize("height, width", [(32, 32), (32, 48)])
def test_a_pan_of_known_speed_moves_the_picture_by_so_many_pixels(height, width):
    size = 80
    pictures = torch.rand(2, 3, size, size, generator=seeded())
    camera = still_camera(1, 4, extent=size / height)  # a texel is a pixel
    steps = torch.arange(4)[:, None] * torch.tensor([2.0, -3.0])  # pixels a frame, down and left
    camera = replace(camera, offset=(steps / height)[None])
    seen = look(pictures, torch.tensor([1]), camera, height, width)
    for t in range(4):
        top, left = (size - height) // 2 + 2 * t, (size - width) // 2 - 3 * t
        expected = pictures[1, :, top : top + height, left : left + width]
        torch.testing.assert_close(seen[0, :, t], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", CAMERAS)
def test_what_a_camera_sees_is_where_its_numbers_say(kind):
    place = torch.tensor([0.05, -0.08])
    times = clock(40, step=1.5)
    camera = replace(draw_camera(seeded(4), times, cut_share=0), tilt=torch.zeros(40, 2), extent=torch.full((40,), 2.0))
    number = list(CAMERAS).index(kind)
    row = int(torch.nonzero(camera.kind == number)[0])
    one = Camera(**{field.name: getattr(camera, field.name)[row : row + 1] for field in fields(Camera)})
    seen = look(spot(128, *place.tolist(), 2.0), torch.zeros(1, dtype=torch.int64), one, 64, 64)
    expected = screen_points(one, place.expand(1, 8, 2))[0]
    inside = (expected.abs() < 0.38).all(1)
    assert inside.sum() >= 2
    torch.testing.assert_close(centroids(seen[0, 0])[inside], expected[inside], atol=0.012, rtol=0)


def test_labels_of_cameras_agree_with_the_motion_of_the_picture():
    times = clock(60, step=-0.8)
    camera = draw_camera(seeded(8), times, cut_share=0)
    pans = torch.nonzero(camera.kind == list(CAMERAS).index("pan")).flatten()[:8]
    for row in pans.tolist():
        one = Camera(**{field.name: getattr(camera, field.name)[row : row + 1] for field in fields(Camera)})
        one = replace(
            one, tilt=torch.zeros(1, 2), roll=torch.zeros(1, 8), zoom=torch.ones(1, 8), extent=torch.full((1,), 2.0)
        )
        seen = centroids(look(spot(128, 0, 0, 2.0), torch.zeros(1, dtype=torch.int64), one, 48, 48)[0, 0])
        inside = torch.nonzero((seen.abs() < 0.35).all(1)).flatten()
        motion = (seen[inside[-1]] - seen[inside[0]]) / (inside[-1] - inside[0])
        label = camera.direction[row]
        assert direction_of(-motion) == label or label == STILL  # the picture goes the other way
        assert float(motion.norm()) == pytest.approx(float(camera.speed[row]), abs=0.004)


def test_a_clip_played_backwards_is_the_clip_from_its_end():
    forwards, times = clock(16), clock(16).flip(1)
    one, other = draw_camera(seeded(2), forwards), draw_camera(seeded(2), times)
    uncut = (one.cut == 8) & (other.cut == 8)
    assert torch.allclose(one.offset[uncut], other.offset.flip(1)[uncut], atol=1e-5)
    assert torch.allclose(one.zoom[uncut], other.zoom.flip(1)[uncut])
    assert torch.allclose(one.zoom_rate, -other.zoom_rate, atol=1e-6)
    turned = (one.direction != STILL) & (other.direction != STILL)
    assert torch.equal((one.direction[turned] + 4) % 8, other.direction[turned])


def test_looking_clip_by_clip_or_at_once_is_the_same(bank):
    index, view = torch.arange(9), camera_module.view_of(draw_camera(seeded(5), clock(9)), 20, 28, torch.device("cpu"))
    assert any(view.is_tilted) and not all(view.is_tilted)
    seen = torch.zeros(2, 9, 3, 8, 20, 28)
    camera_module._look_clip_by_clip(seen[0], bank.pixels, index, view, index % 2 == 0)
    camera_module._look_at_once(seen[1], bank.pixels, index, view, index % 2 == 0)
    torch.testing.assert_close(seen[0], seen[1], atol=1e-4, rtol=0)


def test_after_a_cut_another_picture_is_seen():
    pictures = torch.stack([torch.zeros(3, 16, 16), torch.ones(3, 16, 16)])
    camera = draw_camera(seeded(), clock(6), cut_share=1)
    seen = look(pictures, torch.tensor([[0, 1]] * 6), camera, 8, 8)
    after = torch.arange(8) >= camera.cut[:, None]
    assert torch.equal(seen[:, 0, :, 0, 0], after.float()) and after.any(1).all() and not after[:, 0].any()


@pytest.mark.parametrize("angle", range(8))
def test_directions_go_clockwise_from_the_right(angle):
    turn = angle * math.pi / 4
    assert direction_of(torch.tensor([math.sin(turn), math.cos(turn)])) == angle
    vertical, level = DIRECTIONS[angle].split("_")[0], DIRECTIONS[angle].split("_")[-1]
    assert {"up": -1, "down": 1}.get(vertical, 0) == round(math.sin(turn) * 1.2)
    assert {"left": -1, "right": 1}.get(level, 0) == round(math.cos(turn) * 1.2)


# ------------------------------------------------------------------------------------------------ things


def test_things_are_painted_where_their_paths_say():
    white = torch.ones(1, 3, 48, 48)
    objects = draw_objects(seeded(6), clock(40), 1)
    one_each = replace(objects, picture=torch.where(torch.arange(3) == 0, 0, -1).expand(40, 3))
    one_each = replace(
        one_each, shape=torch.zeros_like(objects.shape), wave=torch.zeros(40, 3), tint=torch.ones(40, 3, 3)
    )
    one_each = replace(one_each, outline=torch.full((40, 3, 4), 0.5), aspect=torch.ones(40, 3, 2))  # plain white discs
    canvas = torch.zeros(40, 3, 8, 64, 64)
    paint_objects(canvas, one_each, white, still_camera(40))
    checked = 0
    for row in range(40):
        path, radius = objects.centre[row, 0], objects.radius[row, 0]
        inside = (path.abs().amax(1) + radius) < 0.47
        if not inside.all():
            continue
        checked += 1
        seen = centroids(canvas[row, 0])
        torch.testing.assert_close(seen, path, atol=0.006, rtol=0)
        motion = (seen[-1] - seen[0]) / 7
        if objects.direction[row, 0] != STILL and motion.norm() > 0.006:
            turn = direction_of(motion) - objects.direction[row, 0]
            assert turn % 8 in (0, 1, 7)
            assert float(motion.norm()) == pytest.approx(float(objects.speed[row, 0]), abs=0.003)
        area = canvas[row, 0].sum((1, 2)) / 64**2
        torch.testing.assert_close(area, math.pi * radius**2, rtol=0.15, atol=0.004)
    assert checked >= 10


def test_paths_are_numbers_whatever_the_times():
    """The first and the last frame of a clip are not always as far from its middle, to the last digit."""
    generator = seeded(3)
    step = torch.rand(500, 1, generator=generator) * 5 - 2.5
    times = torch.rand(500, 1, generator=generator) * 60 + step * torch.arange(8)
    objects, camera = draw_objects(generator, times, 4), draw_camera(generator, times)
    for drawn in (objects, camera):
        values = [getattr(drawn, field.name) for field in fields(drawn)]
        assert all(torch.isfinite(value).all() for value in values if value.is_floating_point())
    accelerates = objects.motion == list(MOTIONS).index("accelerate")
    ways = (objects.centre[:, :, 1:] - objects.centre[:, :, :-1]).norm(dim=-1)[accelerates]
    assert accelerates.any() and (ways.diff(dim=1).sign().sum(1).abs() == 6).all()  # ever faster, or ever slower


def test_things_that_collide_keep_apart_and_part_again():
    objects = draw_objects(seeded(7), clock(200, 30), 4, count_shares=(0, 0, 1, 0))
    collides = objects.motion[:, 0] == list(MOTIONS).index("collide")
    assert 60 < collides.sum() < 140
    distance = (objects.centre[:, 0] - objects.centre[:, 1]).norm(dim=-1)[collides]
    touching = (objects.radius[:, 0] + objects.radius[:, 1])[collides]
    assert (distance > touching - 1e-4).all()
    assert (distance.amin(1) - touching[:, 0] < 0.06).all()  # they do meet within the clip
    assert (distance[:, 0] > distance.amin(1)).all() and (distance[:, -1] > distance.amin(1)).all()


def test_bouncing_things_stay_between_the_walls():
    objects = draw_objects(seeded(7), clock(100, 40, 2.0), 4)
    bounces = objects.motion == list(MOTIONS).index("bounce")
    assert bounces.any() and (objects.centre[bounces].abs() <= 0.4201).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_has_its_size_and_stays_in_its_box(shape):
    objects = draw_objects(seeded(9), clock(2, 2), 1, count_shares=(0, 1))
    some = torch.full_like(objects.shape, SHAPES.index(shape))
    objects = replace(
        objects,
        shape=some,
        centre=torch.zeros_like(objects.centre),
        radius=torch.full_like(objects.radius, 0.3),
        wave=torch.zeros_like(objects.wave),
        aspect=torch.ones_like(objects.aspect),
    )
    canvas = torch.zeros(2, 3, 2, 64, 64)
    paint_objects(canvas, objects, torch.ones(1, 3, 64, 64), still_camera(2, 2))
    y = (torch.arange(64) + 0.5) / 64 - 0.5
    far = torch.hypot(y[:, None], y[None]) > 0.32
    assert (canvas[..., far] == 0).all()
    assert 0.25 < float((canvas[:, 0] > 0).float().mean()) / (math.pi * 0.3**2) < 1.15


# ------------------------------------------------------------------------------------------------ dynamic textures


def one_dynamic(name: str, num_frames: int, seed: int = 3, **changes):
    dynamic = draw_dynamic(seeded(seed), clock(1, num_frames))
    return replace(dynamic, family=torch.tensor([list(DYNAMICS).index(name)]), **changes)


@pytest.mark.parametrize("band", range(len(SPACE_BANDS)))
@pytest.mark.parametrize("pace", range(len(PACES)))
def test_dynamic_noise_keeps_to_its_bands_in_space_and_time(band, pace):
    num_frames, size = 128, 32
    dynamic = one_dynamic("noise", num_frames, band=torch.tensor([band]), pace=torch.tensor([pace]))
    canvas = torch.zeros(1, 3, num_frames, size, size)
    camera, index = still_camera(1, num_frames), torch.zeros(1, dtype=torch.int64)
    render_dynamic(dynamic, torch.zeros(1, 3, 8, 8), index, camera, canvas)
    noise = canvas[0].mean(0)
    noise = (noise - noise.mean()) * torch.hann_window(num_frames, periodic=False)[:, None, None]
    power = torch.fft.fftn(noise).abs().square()
    across = torch.fft.fftfreq(size, 1 / size)
    frequency = torch.hypot(across[:, None], across[None])
    (low, high), (slow, fast) = SPACE_BANDS[band], PACES[pace]
    in_space = (frequency >= low) & (frequency <= high)
    assert power[:, in_space].sum() / power.sum() > 0.99
    rate = torch.fft.fftfreq(num_frames).abs()
    in_time = (rate > slow - 2 / num_frames) & (rate < fast + 2 / num_frames)  # the window spreads by 2 bins
    assert power[in_time].sum() / power.sum() > 0.98


@pytest.mark.parametrize("name, rows", [("snow", 2), ("rain", 3), ("smoke", -2)])
def test_what_falls_and_rises_moves_by_its_drift(name, rows):
    size = 32
    drift = torch.tensor([[rows / size, 0.0]])
    dynamic = one_dynamic(name, 5, drift=drift, strength=torch.tensor([0.5]))
    canvas = torch.zeros(1, 3, 5, size, size)
    pictures, index = torch.zeros(1, 3, 8, 8), torch.zeros(1, dtype=torch.int64)
    if name == "smoke":  # without its own change
        dynamic = replace(dynamic, pace=torch.tensor([0]))
    render_dynamic(dynamic, pictures, index, still_camera(1, 5), canvas)
    assert canvas.std() > 0.02
    shifted = torch.stack([canvas[:, :, 0].roll(rows * t, 2) for t in range(5)], 2)
    error = (canvas - shifted).abs().mean() / (canvas - canvas.mean()).abs().mean()
    assert error < (0.35 if name == "smoke" else 1e-3)


@pytest.mark.parametrize("name", DYNAMICS)
def test_every_dynamic_texture_moves_and_repeats(name, bank):
    dynamic = one_dynamic(name, 8, pace=torch.tensor([2]), strength=torch.tensor([0.8]), band=torch.tensor([1]))
    dynamic = replace(dynamic, drift=torch.tensor([[0.06, 0.01]]))
    camera, index = still_camera(1), torch.tensor([1])
    canvases = torch.zeros(2, 1, 3, 8, 40, 56)
    for canvas in canvases:
        render_dynamic(dynamic, bank.pixels, index, camera, canvas)
    assert torch.equal(canvases[0], canvases[1]) and canvases.isfinite().all()
    assert (canvases[0, 0, :, 1:] - canvases[0, 0, :, :-1]).abs().mean() > 0.002
    assert canvases.min() > -1 and canvases.max() < 3


# ------------------------------------------------------------------------------------------------ capture


def test_quantising_equals_its_readable_form():
    block = torch.rand(8, 8, generator=seeded(), dtype=torch.float64)
    step, slope = 0.03, 0.35
    rounded = torch.zeros(8, 8, dtype=torch.float64)

    def wave(k: int, place: int) -> float:
        return math.cos(math.pi / 8 * (place + 0.5) * k) * (math.sqrt(1 / 8) if k == 0 else 0.5)

    cells = [(a, b) for a in range(8) for b in range(8)]
    for v, u in cells:
        coefficient = sum(float(block[y, x]) * wave(v, y) * wave(u, x) for y, x in cells)
        unit = 8 * step * (1 + slope * (v + u))
        coefficient = round(coefficient / unit) * unit
        for y, x in cells:
            rounded[y, x] += coefficient * wave(v, y) * wave(u, x)
    planes = torch.zeros(2, 16, 24)
    planes[1, 8:, 8:16] = block
    result = quantise(planes, step, slope)
    torch.testing.assert_close(result[1, 8:, 8:16].double(), rounded, atol=1e-5, rtol=0)
    assert result[0].abs().max() == 0 and (result[1, :8] == 0).all()


def plain_capture(batch: int, num_frames: int = 4, **changes):
    capture = draw_capture(seeded(), clock(batch, num_frames))
    plain = {
        field.name: torch.full_like(getattr(capture, field.name), field.name in ("gain", "gamma"))
        for field in fields(capture)
    }
    return replace(capture, **{**plain, **changes})


def test_without_effects_a_clip_stays_as_it_is():
    canvas = torch.rand(2, 3, 4, 24, 40, generator=seeded())
    before = canvas.clone()
    apply_capture(canvas, plain_capture(2))
    assert torch.equal(canvas, before)


@pytest.mark.parametrize(
    "change",
    [
        {"low_resolution": torch.tensor([True, False])},
        {"defocus": torch.tensor([0.03, 0])},
        {"smear": torch.tensor([[0.1, -0.08], [0, 0]])},
        {"gain": torch.tensor([0.8, 1]).view(2, 1, 1).repeat(1, 3, 4)},
        {"gamma": torch.tensor([0.7, 1])},
        {"noise": torch.tensor([0.05, 0])},
        {"bars": torch.tensor([[0.1, 0], [0, 0]])},
        {"compression": torch.tensor([0.05, 0])},
    ],
    ids=lambda change: next(iter(change)),
)
def test_an_effect_changes_its_clip_alone_and_moderately(change):
    generator = seeded(1)
    canvas = torch.rand(2, 3, 4, 6, 10, generator=generator).repeat_interleave(4, 3).repeat_interleave(4, 4)
    before = canvas.clone()
    apply_capture(canvas, plain_capture(2, **change))
    assert torch.equal(canvas[1], before[1])
    assert 0.003 < (canvas[0] - before[0]).abs().mean() < 0.25
    together = torch.corrcoef(torch.stack([canvas[0].flatten(), before[0].flatten()]))[0, 1]
    assert together > 0.6 and canvas.min() >= 0 and canvas.max() <= 1


def test_blur_keeps_the_light_and_noise_is_stronger_in_the_dark():
    canvas = torch.zeros(1, 3, 4, 32, 32)
    canvas[..., 16, 16] = 1
    for change in ({"defocus": torch.tensor([0.05])}, {"smear": torch.tensor([[0.0, 0.2]])}):
        blurred = canvas.clone()
        apply_capture(blurred, plain_capture(1, **change))
        assert float(blurred.sum()) == pytest.approx(12, rel=1e-3) and blurred.max() < 0.5
    noisy = torch.full((1, 3, 4, 32, 32), 0.2)
    noisy[..., 16:] = 0.8
    apply_capture(noisy, plain_capture(1, noise=torch.tensor([0.05])))
    assert noisy[..., :16].std() > 1.5 * noisy[..., 16:].std()


def test_effects_come_in_their_shares():
    capture = draw_capture(seeded(), clock(2000))
    shares = {
        "low_resolution": capture.low_resolution,
        "defocus": capture.defocus > 0,
        "motion_blur": capture.smear.norm(dim=1) > 0,
        "gamma": capture.gamma != 1,
        "bars": capture.bars.sum(1) > 0,
        "compression": capture.compression > 0,
    }
    for name, applies in shares.items():
        assert float(applies.float().mean()) == pytest.approx(EFFECTS[name], abs=0.04)


# ------------------------------------------------------------------------------------------------ all together


@pytest.mark.parametrize("device", DEVICES)
def test_a_seed_makes_one_world_on_every_device(device, bank):
    def world(place: str) -> tuple[torch.Tensor, list[torch.Tensor]]:
        generator, times = seeded(11), clock(6, step=2.0)
        pictures, index = bank.pixels.to(place), torch.randint(12, (6, 2), generator=generator)
        camera = draw_camera(generator, times, cut_share=0.3)
        canvas = look(pictures, index, camera, 32, 48)
        dynamic, objects = draw_dynamic(generator, times), draw_objects(generator, times, 12)
        render_dynamic(dynamic, pictures, index, camera, canvas, rows=torch.tensor([1, 4]))
        paint_objects(canvas, objects, pictures, camera)
        capture = draw_capture(generator, times, camera)
        apply_capture(canvas, capture)
        drawn = [
            getattr(record, field.name) for record in (camera, dynamic, objects, capture) for field in fields(record)
        ]
        return canvas.cpu(), [value for value in drawn if isinstance(value, torch.Tensor)]

    (canvas, drawn), (expected, expected_drawn) = world(device), world("cpu")
    assert all(
        value.device.type == "cpu" and torch.equal(value, other)
        for value, other in zip(drawn, expected_drawn, strict=True)
    )
    assert (canvas - expected).abs().mean() < 2e-3 and canvas.min() >= 0 and canvas.max() <= 1
    if device == "cpu":
        assert torch.equal(canvas, expected)
