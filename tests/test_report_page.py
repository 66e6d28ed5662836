"""The page of `featx report` in a real browser: drawn, pointed at, filtered, compared, by the mouse and by the keyboard."""

from __future__ import annotations

import numpy as np
import pytest
from browser import open_browser
from conftest import write_video
from feature_files import write_file

import featx
from featx.descriptors import l2_normalise
from featx.report import report

CLASSES = ("fall", "run", "walk")
ODD = "walk/<img src=x onerror=alert(1)>\u202e"
NUM_DIMS = 24


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    keys = [f"{CLASSES[i % 3]}/v_{i:02d}" for i in range(29)] + [ODD]
    centres = 2 * rng.normal(size=(3, NUM_DIMS))
    return {key: centres[i % 3] + rng.normal(size=NUM_DIMS) for i, key in enumerate(keys)}


@pytest.fixture(scope="module")
def cosines(rows):
    unit = l2_normalise(np.stack([rows[key] for key in sorted(rows)])).astype(np.float64)
    return unit @ unit.T


@pytest.fixture(scope="module")
def pages(tmp_path_factory, rows):
    """ "r.html" of 30 videos, of which one has a file; "two.html" of two layers without pictures; "one.html" of one video;
    "few.html" of two, with 9 clips and 2; "rough.html" with vectors that are not exact."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "fall").mkdir()
    write_video(folder / "fall/v_00.avi", 12, brightness=lambda i: 200)
    failures = [("walk/broken", "<b>cut short</b>")]
    clips = {"fc6": {key: np.tile(row, (1 + i % 4, 1)) for i, (key, row) in enumerate(rows.items())}}
    clips = {"fc6": {key: own.astype(np.float32) for key, own in clips["fc6"].items()}}
    path = write_file(folder / "f.h5", {"fc6": rows}, clips=clips, failures=failures)
    featx.write_report(path, folder / "r.html", videos=folder, title="Thirty <i>videos</i>")
    other = {key: np.roll(row, 1) ** 2 for key, row in rows.items()}
    path = write_file(folder / "two.h5", {"fc6": rows, "fc7": other})
    featx.write_report(path, folder / "two.html", thumbnails=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "VECTOR_BYTES", 30 * 2 * 16)
        featx.write_report(folder / "f.h5", folder / "rough.html", thumbnails=False)
    clips = {"fc6": {"a/0": np.ones((9, 3), np.float32), "a/1": np.ones((2, 3), np.float32)}}
    path = write_file(folder / "few.h5", {"fc6": {"a/0": np.ones(3), "a/1": np.eye(3)[0]}}, clips=clips)
    featx.write_report(path, folder / "few.html", thumbnails=False)
    path = write_file(folder / "one.h5", {"fc6": {"a": np.ones(3)}})
    featx.write_report(path, folder / "one.html")
    return folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with open_browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def shown(browser, pages):
    """The page of 30 videos, newly loaded; at the end the console must be empty and nothing but the page asked for."""
    browser.console(), browser.requests()
    browser.open(pages / "r.html")
    yield browser
    assert browser.console() == []
    asked = [address for address in browser.requests() if not address.startswith("blob:")]
    assert asked == [(pages / "r.html").as_uri()]


def num_drawn(browser) -> int:
    """Pixels of the map that are not empty."""
    return browser.js(
        "const map = document.getElementById('map'), c = document.createElement('canvas');"
        "c.width = map.width; c.height = map.height; const g = c.getContext('2d', {willReadFrequently: true});"
        "g.drawImage(map, 0, 0); const d = g.getImageData(0, 0, c.width, c.height).data;"
        "let n = 0; for (let i = 3; i < d.length; i += 4) n += d[i] > 0; return n"
    )


def at(browser, key: str) -> tuple[float, float]:
    browser.js("document.getElementById('map').scrollIntoView({block: 'center'})")
    place = browser.js("return featxReport.place(arguments[0])", key)
    return place["x"], place["y"]


def text(browser, selector: str) -> str:
    return browser.js("return document.querySelector(arguments[0]).innerText", selector)


def nearest(rows, cosines, key: str) -> list[tuple[str, float]]:
    keys = sorted(rows)
    row = cosines[keys.index(key)]
    order = [i for i in np.argsort(-row) if keys[i] != key]
    return [(keys[i], row[i]) for i in order]


def after_a_frame(browser) -> None:
    browser.js("window.frames_ = 0; requestAnimationFrame(() => requestAnimationFrame(() => { window.frames_ = 2; }))")
    browser.until("return window.frames_ === 2")


def test_the_scatter_is_drawn_and_texts_are_texts(shown, rows):
    assert 30 * 20 < num_drawn(shown) < 30 * 400
    assert text(shown, "h1") == "Thirty <i>videos</i>" and shown.js("return document.title") == "Thirty <i>videos</i>"
    assert "<b>cut short</b>" in text(shown, "#failures") and "walk/broken" in text(shown, "#failures")
    assert "c3d-sports1m" in text(shown, "#made") and "128x171" in text(shown, "#made")
    counts = shown.js("return [...document.querySelectorAll('.class')].map((b) => b.innerText.split(/\\s+/))")
    assert [(c[0], int(c[-1])) for c in counts] == [("fall", 10), ("run", 10), ("walk", 10)]
    assert "mean 2.4" in text(shown, "#clips")  # 8 x 1 to 4, and 1, 2
    assert shown.js("return document.querySelectorAll('.histogram div').length") == 4
    assert not shown.js("return document.querySelector('[onerror]')")


def test_few_bars_stand_above_their_axis_and_the_median_is_the_mean_of_the_middle_two(browser, pages):
    browser.open(pages / "few.html")
    assert "least 2, median 5.5, mean 5.5, most 9" in text(browser, "#clips")
    edges = browser.js(
        "const edge = (selector) => document.querySelector('#clips ' + selector).getBoundingClientRect();"
        "return [edge('.histogram div:first-child').left, edge('.axis span:first-child').left,"
        "edge('.histogram div:last-child').right, edge('.axis span:last-child').right]"
    )
    assert abs(edges[0] - edges[1]) <= 1 and abs(edges[2] - edges[3]) <= 1


def test_the_pointer_shows_picture_name_and_neighbours(shown, rows, cosines):
    assert shown.js("return document.getElementById('card').hidden")
    shown.pointer(*at(shown, "fall/v_00"))
    shown.until("return !document.getElementById('card').hidden")
    card = text(shown, "#card")
    assert "fall/v_00" in card and "fall · 1 clip" in card
    shown.until("const i = document.querySelector('#card .head img'); return i && i.complete && i.naturalWidth > 0")
    named = shown.js(
        "return [...document.querySelectorAll('#card li')].map((e) => [e.children[1].title, e.children[2].innerText])"
    )
    assert [(key, value) for key, value in named] == [
        (key, f"{value:.3f}") for key, value in nearest(rows, cosines, "fall/v_00")[: len(named)]
    ]
    assert len(named) == 5
    shown.pointer(*at(shown, "run/v_01"))  # has no file
    shown.until("return document.getElementById('card').innerText.includes('run/v_01')")
    assert "the video is not in the folder given" in text(shown, "#card .picture")


def test_choosing_two_tells_their_cosine(shown, rows, cosines):
    keys = sorted(rows)
    for first, second in (("fall/v_00", nearest(rows, cosines, "fall/v_00")[-1][0]), ("run/v_04", ODD)):
        for key in (first, second):
            shown.pointer(*at(shown, key), click=True)
        shown.until("return document.getElementById('cosine') !== null")
        told = text(shown, "#cosine").replace("−", "-")
        assert told == f"{cosines[keys.index(first), keys.index(second)]:.4f}"
        assert shown.js("return document.querySelectorAll('.slot .picture').length") == 2
    assert "\\x202e" in text(shown, "#pair")
    shown.js("document.querySelector('.result .link').click()")
    assert shown.js("return document.getElementById('cosine')") is None


def test_reduced_vectors_give_about_the_cosine_and_neighbours_the_exact_one(browser, pages, rows, cosines):
    browser.open(pages / "rough.html")
    keys, nearer = sorted(rows), nearest(rows, cosines, "run/v_04")
    error = browser.js("return JSON.parse(document.getElementById('data').textContent).layers.fc6.pair_error")
    assert 1e-4 < error < 0.5
    for other, is_exact in ((nearer[0][0], True), ("fall/v_03", False)):
        for key in ("run/v_04", other):
            browser.pointer(*at(browser, key), click=True)
        told, true = text(browser, "#cosine").replace("−", "-"), cosines[keys.index("run/v_04"), keys.index(other)]
        if is_exact:
            assert told == f"{true:.4f}"
        else:
            assert told.startswith("≈ ") and abs(float(told[2:]) - true) <= error + 6e-4
            assert f"off by more than {error:.3f}" in text(browser, ".how")


def test_a_class_can_be_hidden_and_names_searched(shown):
    before = num_drawn(shown)
    shown.js("document.querySelector('.class').click()")
    assert text(shown, "#shown") == "20 of 30 videos"
    after_a_frame(shown)
    assert 0.4 * before < num_drawn(shown) < 0.9 * before
    shown.pointer(*at(shown, "fall/v_00"))
    assert "fall" not in text(shown, "#card")
    assert shown.js("return document.querySelector('.class').getAttribute('aria-pressed')") == "false"
    shown.js("document.getElementById('search').focus()")
    shown.press(*"RUN 0")
    assert text(shown, "#shown") == "4 of 30 videos"  # run/v_01, run/v_04, run/v_07, run/v_10
    assert shown.js("return document.querySelectorAll('.thing').length") == 4
    named = shown.js("return [...document.querySelectorAll('.thing .name')].map((e) => e.title)")
    assert named == [f"run/v_{i:02d}" for i in (1, 4, 7, 10)]
    shown.press("BACKSPACE", "BACKSPACE", *" zebra")
    assert text(shown, "#shown") == "0 of 30 videos"
    after_a_frame(shown)
    assert num_drawn(shown) == 0


def test_pictures_are_decoded_as_they_come_into_view(shown):
    picture = "document.querySelector('.thing[data-video=\"0\"] img')"
    assert shown.js(f"return {picture}.src") == ""
    shown.js(f"{picture}.scrollIntoView()")
    shown.until(f"return {picture}.naturalWidth > 0")
    assert shown.js(f"return {picture}.src").startswith("blob:")
    assert shown.js("return document.querySelectorAll('.thing .why').length") == 29


def test_the_keyboard_does_all_of_it(shown, rows, cosines):
    for _ in range(40):
        shown.press("TAB")
        if shown.js("return document.activeElement.id") == "map":
            break
    assert shown.js("return document.activeElement.id") == "map"
    shown.until("return !document.getElementById('card').hidden")
    key_at = "return document.querySelector('#card .head .name').innerText"
    first = shown.js(key_at)
    x, _ = at(shown, first)
    shown.press("ARROW_LEFT")
    second = shown.js(key_at)
    assert second != first and at(shown, second)[0] < x
    shown.press("ENTER", "n")
    third = shown.js(key_at)
    assert third == nearest(rows, cosines, second)[0][0]
    assert third.split("/")[1] in shown.js("return document.getElementById('live').textContent")
    shown.press("ENTER")
    keys = sorted(rows)
    assert text(shown, "#cosine").replace("−", "-") == f"{cosines[keys.index(second), keys.index(third)]:.4f}"
    shown.press("HOME")
    assert shown.js(key_at) == keys[0]
    shown.press("PAGE_DOWN")
    assert shown.js(key_at) == keys[1]
    shown.press("TAB")  # to "clear", and on to the neighbours
    shown.press("TAB")
    assert shown.js("return document.activeElement.className") == "neighbour"
    shown.press("ARROW_DOWN")
    chosen = shown.js("return document.activeElement.querySelector('.name').title")
    assert chosen == nearest(rows, cosines, third)[1][0]
    shown.press("ENTER")
    assert chosen.split("/")[1] in text(shown, "#pair")
    shown.press("ESCAPE")
    assert shown.js("return document.getElementById('cosine')") is None


def test_zoom_and_move(shown):
    place = "return featxReport.place('fall/v_00')"
    at(shown, "fall/v_00")
    before = shown.js(place)
    shown.js("document.getElementById('zoom-in').click()")
    after = shown.js(place)
    middle = shown.js(
        "const b = document.getElementById('map').getBoundingClientRect(); return [b.left + b.width / 2, b.top + b.height / 2]"
    )
    assert after["x"] - middle[0] == pytest.approx(1.5 * (before["x"] - middle[0]), abs=0.1)
    assert after["y"] - middle[1] == pytest.approx(1.5 * (before["y"] - middle[1]), abs=0.1)
    shown.js("document.getElementById('zoom-all').click()")
    assert shown.js(place) == pytest.approx(before, abs=0.01)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [400, 900, 1500])
def test_it_fits_every_width_in_dark_and_light(browser, pages, width, dark):
    browser.open(pages / "r.html", width=width, dark=dark)
    assert browser.js("return document.documentElement.scrollWidth") <= width
    assert browser.js("return document.documentElement.dataset.theme") == ("dark" if dark else "light")
    assert num_drawn(browser) > 500
    brightness = (
        "return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).reduce((a, b) => a + Number(b), 0)"
    )
    assert (browser.js(brightness) < 200) == dark
    browser.js("document.getElementById('theme').click()")
    assert (browser.js(brightness) < 200) != dark
    browser.js("localStorage.clear()")


def test_layers_without_pictures_and_one_video_alone(browser, pages, rows):
    browser.console()
    browser.open(pages / "two.html")
    before = browser.js("return featxReport.place('fall/v_00')")
    browser.js("const s = document.getElementById('layer'); s.value = 'fc7'; s.dispatchEvent(new Event('change'))")
    assert browser.js("return featxReport.place('fall/v_00')") != before
    assert "fc7 descriptor of 24 dimensions" in text(browser, "#map-caption")
    browser.open(pages / "one.html")
    assert num_drawn(browser) > 20 and "1 video" in text(browser, "#shown")
    assert "no folder" in text(browser, "#classes") and "the video is not there" in text(browser, "#notes")
    assert browser.console() == []
