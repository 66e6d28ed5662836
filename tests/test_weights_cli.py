"""`featx weights`: list, show, get, add, verify, with a server on 127.0.0.1 and small cards in place of the published ones."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pickle
import threading

import numpy as np
import pytest
import torch
from small_weights import cards, save_port, small_card, trained_state  # noqa: F401  (cards is a fixture)
from test_cli import run
from test_download import file, serve  # noqa: F401  (serve is a fixture)

from featx.catalog import CHECKPOINTS, WEIGHTS_FOLDER, Source
from featx.checkpoints import acquire, cache, load
from featx.checkpoints.describe import describe
from featx.checkpoints.safetensors import write_safetensors


@pytest.fixture
def c3d(home, cards, tmp_path):  # noqa: F811
    """(card, its file in the names of a port)."""
    card = cards["c3d-small"]
    return card, save_port(card, trained_state(card), tmp_path / "c3d.pickle", "DavideA's port")


# ------------------------------------------------------------------------------------------------- list and show


def test_list_tells_of_every_card(capsys, home):
    code, out, err = run(capsys, "weights", "list")
    table = out.split("\n\n")[0].splitlines()
    assert (code, err) == (0, "") and max(map(len, out.split("\n\n")[0].splitlines())) <= 100
    assert table[0].split() == ["name", "architecture", "classes", "MB", "licence", "from", "here", "data"]
    for name, card in CHECKPOINTS.items():
        (line,) = [line for line in table if line.startswith(f"{name} ")]
        assert card.architecture in line and f" {card.classes} " in line and card.licence in line
        way = "featx" if card.embedded else "get" if any(source.plain for source in card.source) else "browser"
        assert f" {way} " in line and f" {'yes' if card.embedded else 'no'} " in line
    assert str(home) in out


def test_show_of_a_card_that_does_not_resize(capsys, home, tmp_path):
    mini = json.loads((WEIGHTS_FOLDER / "res3d-mini.json").read_text())
    card = tmp_path / "mine.json"
    pixels = {name: value for name, value in mini["preprocess"].items() if name != "resize"}
    card.write_text(json.dumps(mini | {"name": "res3d-mine", "embedded": False, "preprocess": pixels}))
    code, out, _ = run(capsys, "weights", "show", card)
    out = " ".join(out.split())
    assert code == 0 and "pixels not resized, cropped to 112 at " in out and "None" not in out


def test_add_over_a_damaged_record(capsys, c3d, home):
    card, path = c3d
    run(capsys, "weights", "add", card.name, path)
    (home / "weights/c3d-small.json").write_text("{")
    code, out, _ = run(capsys, "weights", "add", card.name, path)
    assert code == 0 and "c3d-small is stored" in out and load(card)


def test_list_as_json(capsys, home):
    code, out, _ = run(capsys, "weights", "list", "--json")
    rows = json.loads(out)
    assert code == 0 and rows.keys() == CHECKPOINTS.keys()
    for name, row in rows.items():
        card = CHECKPOINTS[name]
        assert (row["architecture"], row["data"], row["classes"]) == (card.architecture, card.data, card.classes)
        assert (row["licence"], row["urls"]) == (card.licence, list(card.urls))


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_show_tells_everything(name, capsys, home):
    code, out, _ = run(capsys, "weights", "show", name)
    card = CHECKPOINTS[name]
    joined = " ".join(out.split())
    assert code == 0
    for text in (card.architecture, card.data, card.licence, " ".join(card.note.split()), *card.urls, *card.variants):
        assert text in joined, text
    for layer, dims in card.layers.items():
        assert f"{layer} {dims}" in joined
    if card.embedded:
        assert "here embedded in featx" in joined
    elif card.downloads:
        assert f"'featx weights get {name}' fetches source" in joined
    else:
        assert f"'featx weights add {name} {card.file or 'FILE'}'" in joined


def test_list_and_show_tell_what_is_here(capsys, c3d, home):
    card, path = c3d
    run(capsys, "weights", "add", card.name, path)
    _, out, _ = run(capsys, "weights", "list", "--json")
    assert {name: row["here"] for name, row in json.loads(out).items()} == {
        "c3d-small": "yes",
        "res3d-small": "no",
        "p3d199-small": "no",
        "p3d199-flow-small": "no",
    }
    _, out, _ = run(capsys, "weights", "show", card.name)
    assert "c3d.pickle (torch, DavideA's port names)" in out and str(cache.find(card)) in out
    assert hashlib.sha256(path.read_bytes()).hexdigest() in out
    (home / "weights" / "c3d-small.json").write_text("{")
    _, out, _ = run(capsys, "weights", "list", "--json")
    assert json.loads(out)["c3d-small"]["here"] == "damaged"


# ------------------------------------------------------------------------------------------------- add


def test_add(capsys, c3d, tmp_path):
    card, path = c3d
    cube = tmp_path / "mean.npy"
    np.save(cube, np.full((3, 16, 128, 171), 106, np.float32))
    code, out, err = run(capsys, "weights", "add", card.name, path, "--mean", cube)
    assert (code, err) == (0, "")
    assert f"c3d-small is stored: {cache.find(card)}" in out and "(torch, DavideA's port names)" in out
    assert "mean.npy, subtracted before the crop" in out
    path.unlink()
    assert load(card).naming == "featx's own"


def test_add_warns_of_the_other_kind_of_pixels(capsys, home, cards, tmp_path):  # noqa: F811
    card = cards["p3d199-small"]
    path = save_port(card, trained_state(card, grey=False), tmp_path / "p3d.pth.tar", "qijiezhao's port")
    code, out, _ = run(capsys, "weights", "add", card.name, path)
    assert code == 0 and "warning  it expects normalised pixels" in out and "--variant port or normalised" in out


class Hostile:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def pickled(content, path):
    path.write_bytes(pickle.dumps(content))


def with_tensor(name, change):
    def write(card, state, path):
        write_safetensors(path, state | {name: change(state[name])})

    return write


def absurd_header(card, state, path):
    path.write_bytes((2**63).to_bytes(8, "little") + b'{"a":')


HOSTILE = {
    "code": (lambda card, state, path: pickled({"w": Hostile(path.parent / "ran")}, path), "more than tensors"),
    "cut": (
        lambda card, state, path: (torch.save(state, path), path.write_bytes(path.read_bytes()[:-2000])),
        "are refused (",
    ),
    "cut caffe": (lambda card, state, path: path.write_bytes(b"\x0a\x08CaffeNet\x12\x7f"), "Caffe"),
    "absurd length": (absurd_header, "the header claims 9,223,372,036,854,775,808 bytes"),
    "empty": (lambda card, state, path: path.write_bytes(b""), "are an empty file"),
    "web page": (lambda card, state, path: path.write_bytes(b"<!DOCTYPE html>"), "no form of weights"),
    "integers": (with_tensor("fc8.bias", lambda t: t.to(torch.int64)), "not floating-point numbers: fc8.bias"),
    "NaN": (with_tensor("fc8.bias", lambda t: t * float("nan")), "not finite: fc8.bias"),
    "shape": (with_tensor("fc8.bias", lambda t: t[:-1]), "wrong shape: fc8.bias (4,) for (5,)"),
    "constant": (with_tensor("fc7.weight", torch.zeros_like), "is not sound: one number throughout: fc7.weight"),
    "other net": (
        lambda card, state, path: write_safetensors(path, trained_state(small_card("res3d-sports1m"))),
        "do not fit c3d-small",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_no_sound_file_of_the_card_is_not_stored(case, capsys, c3d, home, tmp_path):
    card, _ = c3d
    write, words = HOSTILE[case]
    write(card, trained_state(card), tmp_path / "bad")
    code, out, err = run(capsys, "weights", "add", card.name, tmp_path / "bad")
    assert (code, out) == (2, "") and words in err and err.count("\n") == 1 and "Traceback" not in err
    assert not (tmp_path / "ran").exists()
    assert not home.exists()


def test_a_file_with_the_name_of_another_cards_is_not_stored(capsys, c3d, cards, home):  # noqa: F811
    """Nets for 16 and for 64 frames have the same tensors."""
    card, path = c3d
    cards["c3d-64f"] = dataclasses.replace(card, name="c3d-64f", file="c3d-64f.pth")
    code, _, err = run(capsys, "weights", "add", card.name, path.rename(path.with_name("c3d-64f.pth")))
    assert code == 2 and "has the name of the file of c3d-64f, not of c3d-small" in err and not home.exists()


def test_add_says_which_card_a_file_fits(capsys, home, tmp_path):
    card = CHECKPOINTS["res3d-mini"]
    write_safetensors(tmp_path / "w", load(card).backbone.state_dict())
    code, _, err = run(capsys, "weights", "add", "res3d-sports1m", tmp_path / "w")
    assert code == 2 and "it fits res3d-mini in every tensor" in err


# ------------------------------------------------------------------------------------------------- get


@pytest.fixture
def published(c3d, cards, serve, monkeypatch):  # noqa: F811
    """(server, card): the file of `c3d` behind a plain URL with a published prefix, and one that needs a browser."""
    card, path = c3d
    content = path.read_bytes()
    server = serve(file(content))
    sources = (
        Source("https://browser/c3d.bin", "c3d.bin", "the authors' file"),
        Source(server.url, "c3d.pickle", "a port", plain=True, sha256_prefix=hashlib.sha256(content).hexdigest()[:8]),
        Source(server.url + "2", "two.pickle", "another port", plain=True),
    )
    cards[card.name] = dataclasses.replace(card, source=sources)
    return server, cards[card.name], content


def test_get(capsys, published, home):
    server, card, content = published
    code, out, _ = run(capsys, "weights", "get", card.name)
    assert code == 0 and "c3d-small is stored" in out
    record = cache.read_record(card.name)
    assert record.origin.sha256 == hashlib.sha256(content).hexdigest() and record.origin.url == server.url
    assert load(card).sha256 == record.origin.sha256
    assert not list((home / "downloads" / card.name).iterdir())


def test_get_of_what_is_here(capsys, published):
    server, card, _ = published
    run(capsys, "weights", "get", card.name)
    code, out, _ = run(capsys, "weights", "get", card.name)
    assert code == 0 and "c3d-small is here already: " in out and len(server.requests) == 1
    cache.find(card).write_bytes(b"damaged")
    assert run(capsys, "weights", "get", card.name)[0] == 0 and len(server.requests) == 2 and load(card)
    assert run(capsys, "weights", "get", card.name, "--source", 2)[0] == 0 and len(server.requests) == 3


def test_get_adds_a_mean_cube_to_what_is_here(capsys, published, tmp_path):
    server, card, _ = published
    run(capsys, "weights", "get", card.name)
    before = cache.read_record(card.name)
    np.save(tmp_path / "mean.npy", np.full((3, 16, 128, 171), 96, np.float32))
    code, out, _ = run(capsys, "weights", "get", card.name, "--mean", tmp_path / "mean.npy")
    assert code == 0 and len(server.requests) == 1 and "mean.npy, subtracted before the crop" in out
    assert "warning  mean cube" in out and "it is on average 96.0, 96.0, 96.0 (B, G, R)" in out
    after = cache.read_record(card.name)
    assert after.mean.origin.file == "mean.npy"
    assert (
        dataclasses.replace(after, mean=None, origin=dataclasses.replace(after.origin, added=before.origin.added))
        == before
    )


def test_two_that_get_the_same_both_end_well(published, home):
    server, card, content = published
    notes, results, waits = [], [], threading.Event()

    def told(note):
        notes.append(note)
        waits.set()

    second = threading.Thread(target=lambda: results.append(acquire.get(card, on_note=told)))

    def meanwhile(handler):
        second.start()
        assert waits.wait(60)
        file(content)(handler)

    server.answers = [meanwhile]
    results.append(acquire.get(card))
    second.join()
    assert notes == ["another process is fetching c3d-small; it is waited for"] and len(server.requests) == 1
    assert results[0][0] == results[1][0] == cache.read_sound_record(card.name)
    assert not list((home / "downloads" / card.name).iterdir())


def test_get_goes_on_where_it_broke(capsys, published, home):
    server, card, content = published
    server.answers = [file(content, cut=1000), lambda handler: handler.send_error(503)]
    code, _, err = run(capsys, "weights", "get", card.name, "--quiet")
    assert code == 2 and "1,000 bytes, which are kept: the same command goes on" in err and "(or try --source 3)" in err
    assert [p.name for p in sorted((home / "downloads" / card.name).iterdir())] == [
        "c3d.pickle.part",
        "c3d.pickle.part.json",
    ]
    server.answers = [file(content)]
    assert run(capsys, "weights", "get", card.name, "--quiet")[0] == 0
    assert server.ranges[-1] == "bytes=1000-" and load(card)


def test_get_of_a_corrupt_file(capsys, published):
    server, card, content = published
    server.answers = [file(content[:-1] + b"x")]
    code, _, err = run(capsys, "weights", "get", card.name, "--quiet")
    assert code == 2 and "not beginning" in err and "thrown away" in err and cache.find(card) is None


def test_get_of_another_source(capsys, published, home):
    server, card, content = published
    server.answers = [file(b"<html>")]  # which nothing published tells apart
    code, _, err = run(capsys, "weights", "get", card.name, "--source", 3, "--quiet")
    assert code == 2 and "no form of weights" in err and cache.find(card) is None
    assert not list((home / "downloads" / card.name).iterdir())
    server.answers = [file(content)]
    assert run(capsys, "weights", "get", card.name, "--source", 3, "--quiet")[0] == 0
    assert [path for path, *_ in server.requests] == ["/w.pth2"] * 2
    code, _, err = run(capsys, "weights", "get", card.name, "--source", 4)
    assert code == 2 and "--source is 4, but c3d-small has 3" in err


@pytest.mark.parametrize("args", [["c3d-small", "--source", 1], ["res3d-sports1m"]])
def test_hosts_that_need_a_browser(args, capsys, published, cards):  # noqa: F811
    cards["res3d-sports1m"] = CHECKPOINTS["res3d-sports1m"]
    code, out, _ = run(capsys, "weights", "get", *args)
    card = cards[args[0]]
    assert code == 2 and f"    featx weights add {card.name} {card.file}" in out.splitlines()
    assert all(any(url in line for line in out.splitlines()) for url in card.urls)
    assert published[0].requests == []


def test_every_card_without_a_plain_url_says_what_to_do(capsys, home):
    for name, card in CHECKPOINTS.items():
        if not card.embedded and not card.downloads:
            code, out, _ = run(capsys, "weights", "get", name)
            assert code == 2 and f"featx weights add {name} " in out and all(url in out for url in card.urls)


# ------------------------------------------------------------------------------------------------- verify


def test_verify_by_name_and_by_file(capsys, c3d):
    card, path = c3d
    code, out, _ = run(capsys, "weights", "verify", card.name)
    assert code == 1 and "problem  c3d-small needs weights that are not here" in out
    run(capsys, "weights", "add", card.name, path)
    for arg in (card.name, path):
        code, out, _ = run(capsys, "weights", "verify", arg)
        assert (
            code == 0 and "problem" not in out and f"c3d-small, {cache.find(card) if arg == card.name else path}" in out
        )
    code, out, _ = run(capsys, "weights", "verify", path, "--json")
    report = json.loads(out)
    assert code == 0 and report["good"] and {finding["level"] for finding in report["findings"]} == {"ok"}


def test_verify_against_another_file(capsys, c3d, tmp_path):
    card, path = c3d
    state = {name: t.flip(2) if t.ndim == 5 else t for name, t in trained_state(card).items()}
    write_safetensors(tmp_path / "turned", state)
    code, out, _ = run(capsys, "weights", "verify", path, "--against", tmp_path / "turned")
    assert code == 1 and "kernels are turned (backwards in time): only one of the files is right" in out
    assert "  backwards in time: conv1a.weight, conv2a.weight, conv3a.weight, conv3b.weight, … (8 in all)" in out
    assert run(capsys, "weights", "verify", path, "--against", path)[0] == 0
    code, out, _ = run(capsys, "weights", "verify", path, "--against", path, "--json")
    assert json.loads(out)["comparison"]["conclusion"] == "the two files hold the same weights"


def test_a_file_that_fits_several_cards(capsys, c3d, cards):  # noqa: F811
    card, path = c3d
    path = path.rename(path.with_name("twin.pickle"))
    cards["c3d-twin"] = dataclasses.replace(card, name="c3d-twin", file="twin.pickle")
    code, out, err = run(capsys, "weights", "verify", path)
    assert code == 0 and "fits c3d-small, c3d-twin alike; taken as c3d-twin" in err and out.startswith("c3d-twin, ")
    assert run(capsys, "weights", "verify", path, "--backbone", "c3d-small")[1].startswith("c3d-small, ")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["lits"], "unknown command of featx weights: 'lits'; did you mean 'list'"),
        (["show", "c3d-smal"], "did you mean 'c3d-small'"),
        (["get", "c3d-smal"], "did you mean 'c3d-small'"),
        (["add", "c3d-smal", "x"], "did you mean 'c3d-small'"),
        (["add", "c3d-small", "{tmp}/absent"], "cannot be read (No such file"),
        (["add", "c3d-small", "{tmp}/c3d.pickle", "--mean", "{tmp}/absent"], "absent' cannot be read (No such file"),
        (["add", "res3d-mini", "{tmp}/c3d.pickle"], "res3d-mini is embedded in featx, so nothing is stored"),
        (["get", "res3d-mini"], "res3d-mini is embedded in featx, so nothing is stored"),
        (["verify"], "name a card or a file of weights"),
        (["verify", "c3d-smal"], "unknown card or file of weights 'c3d-smal'; did you mean 'c3d-small'"),
        (["verify", "{tmp}/other"], "fits no card in every tensor; nearest is c3d-small, with 21 of 22 tensors"),
        (["verify", "c3d-small", "--variant", "port"], "c3d-small has no variants"),
        (["verify", "--card", "{tmp}/absent.json"], "absent.json' cannot be read (No such file"),
        (["verify", "--card", "x.json", "--backbone", "c3d-small"], "leave one of them out"),
    ],
)
def test_mistakes_cost_one_line(args, words, capsys, c3d, cards, tmp_path):  # noqa: F811
    cards["res3d-mini"] = CHECKPOINTS["res3d-mini"]
    state = trained_state(c3d[0])
    write_safetensors(tmp_path / "other", {name: state[name] for name in state if name != "fc6.bias"})
    code, _, err = run(capsys, "weights", *(arg.format(tmp=tmp_path) for arg in args))
    assert code == 2 and words in err.splitlines()[-1] and "Traceback" not in err


@pytest.mark.parametrize("name", ["list", "show", "get", "add", "verify"])
def test_every_subcommand_has_an_example(name, capsys):
    code, out, _ = run(capsys, "weights", name, "--help")
    assert code == 0 and f"featx weights {name}" in out.split("Example", 1)[1]


def test_extract_says_first_what_it_takes(capsys, c3d, clips_folder, tmp_path):
    card, path = c3d
    cube = tmp_path / "mean.npy"
    np.save(cube, np.broadcast_to(np.float32(card.preprocess.mean)[:, None, None, None], (3, 16, 128, 171)))
    run(capsys, "weights", "add", card.name, path, "--mean", cube)
    stored = "weights stored from c3d.pickle (DavideA's port names)"
    for weights, mean, words in [
        (None, None, f"{stored}, mean cube stored from mean.npy (--mean card for the card's constants)"),
        (path, None, f"weights {path}, mean cube stored from mean.npy (--mean card for the card's constants)"),
        (None, cube, f"{stored}, mean cube {cube}"),
        (None, "card", f"{stored}, the card's constant mean"),
    ]:
        assert describe(card, weights, mean) == f"backbone c3d-small, {words}"
    args = ("extract", clips_folder / "dog/001.avi", "-o", tmp_path / "f.h5", "--backbone", card.name, "--layer", "fc6")
    code, out, _ = run(capsys, *args)
    assert code == 0 and out.splitlines()[0] == describe(card)
