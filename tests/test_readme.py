"""Every command and every Python block of the README, run section by section, with stand-ins for weights and data sets."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_noise_video
from data_set_stand_ins import STAND_INS, set_small_counts
from feature_files import write_file
from small_weights import small_card, trained_state

import featx
from featx.backbones import ARCHITECTURES, build
from featx.catalog import CHECKPOINTS
from featx.checkpoints.names import namings
from featx.checkpoints.verify import verify
from featx.cli import main
from featx.evaluation import DATASETS, ucf101

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(sh|python)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
SECTIONS = {  # heading -> its blocks
    text.partition("\n")[0]: re.findall(r"^```(sh|python)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    for text in README.split("\n## ")
}
COMMANDS = [line for kind, block in BLOCKS if kind == "sh" for line in block.splitlines()]
SETUP = [command for command in COMMANDS if command.startswith("python3 -m venv")]

# commands that make pictures, which need the extra "plots"
DRAWN = re.compile(r" --plot|^featx (embed|filters) |pictures\.py|training_curves\.py")

# programs that learn, judge and draw much, each for several seconds: they run where the README runs from top to bottom
SLOW = re.compile(r"train_mini\.py|training_curves\.py|judge_mini\.py|pictures\.py")

# what makes a long program short; the options that the README shows stay
SHORTENED = {
    "benchmark.py": ["--quick", "--only", "decode"],
    "make_descriptors.py": ["--dims", "104"],
    "pictures.py": ["--curve-dims", "5"],
    "render_actions.py": ["--clips-per-class", "1", "--clips-per-group", "1", "--frames", "8"],
    "judge_mini.py": ["--no-baselines", "--stride", "16"],
    "train_mini.py": [
        *(
            "--minutes",
            "0.02",
            "--held-out",
            "4",
            "--workers",
            "0",
            "--batch-size",
            "4",
            "--pictures",
            "4",
            "--words",
            "10",
        ),
    ],
}


FEW_GROUPS = "_g0[1236]_"
FEW_VIDEOS = "(Wave|ArmCirclesIn|CartwheelLeft)_g0[126]_"  # where no lists of theirs are used


def test_the_two_set_up_commands_stand_under_their_headings():
    assert len(SETUP) == 2
    quick_start, tests = (README.split(f"\n## {name}\n")[1].split("\n## ")[0] for name in ("Quick start", "Tests"))
    assert SETUP[0] in quick_start and "featx extract examples/videos" in SETUP[0]
    assert SETUP[1] in tests and SETUP[1].endswith("-m pytest -n 3 --dist worksteal")
    assert "## Tests" in (ROOT / ".ci/run").read_text()  # it takes the command from there


@pytest.fixture
def place(tmp_path, home, monkeypatch):
    """A folder in which every command of the README finds what it names, and an empty cache of weights."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for folder in ("videos", "more", "ucf101/Archery"):
        (tmp_path / folder).mkdir(parents=True)
    write_noise_video(tmp_path / "videos/a.mp4", 20)
    shutil.copy(tmp_path / "videos/a.mp4", tmp_path / "more/clip.mp4")
    shutil.copy(tmp_path / "videos/a.mp4", tmp_path / "ucf101/Archery/v_Archery_g08_c01.mp4")
    (tmp_path / "list.txt").write_text("videos/a.mp4\nmore/clip.mp4\n")
    (tmp_path / "segments.csv").write_text(
        "path,start_seconds,end_seconds,label\nvideos/a.mp4,0.2,0.6,walk\nmore/clip.mp4,0,0.4,walk\n"
        "videos/a.mp4,0.1,0.5,run\nmore/clip.mp4,0.3,0.8,run\n"
    )
    (tmp_path / "clips.txt").write_text("videos/a.mp4 0 1\nvideos/a.mp4 4 1\n")
    mini = json.loads((ROOT / "weights/res3d-mini.json").read_text())
    (tmp_path / "my-card.json").write_text(json.dumps(mini | {"name": "res3d-mine", "embedded": False, "source": []}))
    shutil.copy(ROOT / "weights" / mini["file"], tmp_path)
    for name in "ab":
        write_file(tmp_path / f"{name}.h5", {"fc6": {name: np.ones(3)}})
    monkeypatch.chdir(tmp_path)
    set_small_counts(monkeypatch)
    return tmp_path


def before(command: str, place: Path) -> None:
    """Make what a command needs and no earlier one made."""
    if "c3d.pickle" in command and not (place / "c3d.pickle").exists():
        c3d = build("c3d", **featx.catalog.get_checkpoint("c3d-sports1m").build_arguments)
        port = next(n for n in namings("c3d", c3d.state_dict()) if n.label.startswith("DavideA"))
        torch.save({theirs: c3d.state_dict()[ours] for theirs, ours in port.ours.items()}, place / "c3d.pickle")
    if "ucfTrainTestlist" in command and not (place / "ucfTrainTestlist").exists():
        ucf101_stand_in(place)
    if "small.h5" in command and not command.startswith("featx pca") and not (place / "small.h5").exists():
        featx.pca("features.h5", "small.h5", dims=10)
    reads_clips = "clips.h5" in command and "-o clips.h5" not in command
    if (reads_clips or "import c3d_activitynet.h5" in command) and not (place / "clips.h5").exists():
        featx.extract_to("examples/videos", "clips.h5", save="both")
    if "import c3d_activitynet.h5" in command and not (place / "c3d_activitynet.h5").exists():
        featx.export("clips.h5", "c3d_activitynet.h5", "activitynet")
    for name, make in STAND_INS.items():
        if name in command and not (place / name).exists():
            make(place)


def ucf101_stand_in(place: Path) -> None:
    """Descriptors of three classes and their lists, in the form of the official ones."""
    rng = np.random.default_rng(0)
    classes = ("Archery", "HorseRace", "PlayingPiano")
    centres = rng.normal(size=(3, 4096))
    names = {c: [f"v_{c}_g{g:02}_c{i:03}" for g in (1, 8) for i in range(200 if g == 8 else 10)] for c in classes}
    rows = {f"{c}/{n}": centres[i] + 3 * rng.normal(size=4096) for i, c in enumerate(classes) for n in names[c]}
    write_file(place / "c3d.h5", {"fc6": rows})
    lists = place / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "classInd.txt").write_text("".join(f"{i} {c}\n" for i, c in enumerate(classes, 1)))
    train = [f"{c}/{n}.avi {i}\n" for i, c in enumerate(classes, 1) for n in names[c] if "_g08_" in n]
    test = [f"{c}/{n}.avi\n" for c in classes for n in names[c] if "_g01_" in n]
    for split in (1, 2, 3):
        (lists / f"trainlist0{split}.txt").write_text("".join(train))
        (lists / f"testlist0{split}.txt").write_text("".join(test))


def make_small(command: str, place: Path, monkeypatch: pytest.MonkeyPatch, few: str) -> None:
    """Make what a command works on so small that it takes a moment."""
    if "examples" in command or "clips.h5" in command:
        take_few_examples(place, few)
    if "c3d-sports1m" in command:
        small = dataclasses.replace(small_card("c3d-sports1m"), name="c3d-sports1m", default_layer="fc6")
        monkeypatch.setattr("featx.catalog.CHECKPOINTS", {**CHECKPOINTS, small.name: small})
    if "--splits synthetic" in command:
        counts = take_few_classes(place / "synthetic", 5)
        monkeypatch.setattr(ucf101, "NUM_CLASSES", 5)
        monkeypatch.setattr(ucf101, "COUNTS", counts)


def take_few_examples(place: Path, few: str) -> None:
    """Leave in examples/ some videos, and lists of these."""
    examples = place / "examples"
    if not examples.is_symlink():
        return
    examples.unlink()
    (examples / "splits").mkdir(parents=True)
    for path in (ROOT / "examples").iterdir():
        if path.name not in ("videos", "splits"):
            (examples / path.name).symlink_to(path)
    for path in (ROOT / "examples/videos").glob("*/*.mp4"):
        if re.search(few, path.name):
            (examples / "videos" / path.parent.name).mkdir(parents=True, exist_ok=True)
            (examples / "videos" / path.parent.name / path.name).symlink_to(path)
    for path in (ROOT / "examples/splits").iterdir():
        lines = [line for line in path.read_text().splitlines(True) if "_g" not in line or re.search(few, line)]
        (examples / "splits" / path.name).write_text("".join(lines))


def take_few_classes(folder: Path, num_classes: int) -> dict[int, tuple[int, int]]:
    """Leave the first classes in lists of UCF101's form; split -> how many videos train and test."""
    first = [line.split()[1] for line in (folder / "classInd.txt").read_text().splitlines()[:num_classes]]
    counts = {}
    (folder / "classInd.txt").write_text("".join(f"{i} {name}\n" for i, name in enumerate(first, 1)))
    for split in (1, 2, 3):
        sides = []
        for path in (folder / f"trainlist0{split}.txt", folder / f"testlist0{split}.txt"):
            lines = [line for line in path.read_text().splitlines(True) if line.split("/")[0] in first]
            path.write_text("".join(lines))
            sides.append(len(lines))
        counts[split] = tuple(sides)
    return counts


def run_block(code: str) -> None:
    exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})  # with nothing but its own names


def run_program(path: str, args: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What `python PATH ARGS` does, in this process: to start Python and PyTorch takes two seconds."""
    num_threads = torch.get_num_threads()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "argv", [path, *args, *SHORTENED.get(Path(path).name, [])])
        patch.syspath_prepend(str(Path(path).parent.resolve()))
        try:
            runpy.run_path(path, run_name="__main__")
        finally:
            torch.set_num_threads(num_threads)


def run_apart(*args: str) -> None:
    """In a process of its own, as a user does; the benchmark then also compiles, which takes 20 s."""
    short = {**SHORTENED, "benchmark.py": ["--seconds", "0", "--num-videos", "1", "--backbone", "res3d-mini"]}
    subprocess.run([sys.executable, *args, *short.get(Path(args[0]).name, [])], check=True)


def run_blocks(blocks, place, capsys, monkeypatch, apart=False) -> None:
    uses_lists = any("examples/splits" in block or "pictures.py" in block for _, block in blocks)
    few = FEW_GROUPS if uses_lists else FEW_VIDEOS  # of the groups, each split tests one or two
    monkeypatch.setitem(DATASETS, "group-1", None)  # which the README adds, and the end of the test takes away
    for kind, block in blocks:
        if kind == "python":
            run_apart("-c", block) if apart else run_block(block)
            continue
        for command in block.splitlines():
            if command in SETUP or (DRAWN.search(command) and importlib.util.find_spec("matplotlib") is None):
                continue
            if SLOW.search(command) and not apart:
                continue
            if not apart:
                make_small(command, place, monkeypatch, few)
                command = command.replace("--device cpu,cpu", "--device cpu")  # two processes take 6 s to start
            before(command, place)
            program, *args = shlex.split(command)
            if program == "featx":
                with monkeypatch.context() as patch, pytest.raises(SystemExit) as exit:
                    if "ucfTrainTestlist" in command:  # which ours stands in for
                        patch.setattr(ucf101, "NUM_CLASSES", 3)
                        patch.setattr(ucf101, "COUNTS", dict.fromkeys((1, 2, 3), (600, 30)))
                    main(args)
                assert exit.value.code == 0, f"{command}: {capsys.readouterr().err}"
            else:
                assert program == "python", f"no test runs '{command}'"
                run_apart(*args) if apart else run_program(args[0], args[1:], monkeypatch)


@pytest.mark.parametrize("section", [heading for heading, blocks in SECTIONS.items() if blocks])
def test_every_command_and_block_runs(section, place, example_features, capsys, monkeypatch):
    """Each section by itself, after the quick start."""
    shutil.copy(example_features, place / "features.h5")
    run_blocks(SECTIONS[section], place, capsys, monkeypatch)


@pytest.mark.long
def test_the_readme_runs_from_top_to_bottom(place, capsys, monkeypatch):
    """In one place, with what the sections before have left there, and every program in a process of its own."""
    assert [block for blocks in SECTIONS.values() for block in blocks] == BLOCKS
    featx.extract_to("examples/videos", "features.h5")  # what the quick start's command does
    run_blocks(BLOCKS, place, capsys, monkeypatch, apart=True)


def test_python_blocks_tell_the_truth(place):
    features = featx.extract("examples/videos/Wave/v_Wave_g01_c01.mp4", layers=["pool5"], save="both")
    dims = featx.catalog.get_checkpoint("res3d-mini").layers["pool5"]
    assert features.descriptors["pool5"].shape == (dims,) and f"float32 ({dims},)" in README
    num_videos = len(list((ROOT / "examples/videos").glob("*/*.mp4")))
    assert f"the design matrix, float32 ({num_videos}, {dims})" in README
    assert f"{num_videos} small example videos" in README


@pytest.mark.parametrize("name", featx.list_backbones())
def test_the_table_of_backbones_is_complete(name):
    section = README.split("\n## Backbones\n")[1].split("\n## ")[0]
    (row,) = [line for line in section.splitlines() if line.startswith("| `") and f"`{name}`" in line.split("|")[1]]
    card = featx.catalog.get_checkpoint(name)
    assert row.split("|")[2].strip().startswith(card.default_layer)
    for layer, dims in re.findall(r"(\w+) \(([\d,]+)\)", row.replace("the last block", list(card.layers)[-3])):
        assert card.layers[layer] == int(dims.replace(",", ""))
    sampling = card.sampling
    assert f"{sampling.length} frames" in row and f"stride {sampling.stride}" in row
    assert ("step" in row) == (sampling.frame_step > 1) and ("frames/s" in row) == (sampling.fps is not None)
    assert ("embedded" in row) == card.embedded


def test_the_card_of_the_readme_is_one(tmp_path):
    (text,) = re.findall(r"^```json\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    (tmp_path / "card.json").write_text(text)
    card = featx.catalog.read_card_file(tmp_path / "card.json")
    net = build(card.architecture, **card.build_arguments)
    torch.save(trained_state(card), tmp_path / card.file)
    assert verify(card).is_good
    shapes = net.layer_shapes(card.clip_shape, tuple(card.layers))
    assert {layer: int(np.prod(shape)) for layer, shape in shapes.items()} == card.layers
    assert card.preprocess.mean == featx.catalog.get_checkpoint("tv-r3d18-kinetics").preprocess.mean


def test_the_backbone_of_the_readme_is_one(tmp_path, monkeypatch):
    (text,) = [block for _, block in BLOCKS if block.startswith("# mynet.py")]
    (tmp_path / "mynet.py").write_text(text)
    info = tmp_path / "mynet-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mynet\nVersion: 1.0\n")
    assert "`mynet = mynet:ARCHITECTURE`" in README
    (info / "entry_points.txt").write_text("[featx.architectures]\nmynet = mynet:ARCHITECTURE\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(ARCHITECTURES.__dict__, "_added", raising=False)
    try:
        shape = ARCHITECTURES["mynet"].clip_shape
        net = build("mynet", num_classes=5).eval()
        with torch.inference_mode():
            layers = net(torch.rand(2, *shape), net.layer_names)
        assert {name: tuple(x.shape[1:]) for name, x in layers.items()} == net.layer_shapes(shape)
        np.testing.assert_allclose(layers["prob"].sum(1), 1, rtol=1e-5)
    finally:
        ARCHITECTURES.__dict__.pop("_added", None)
        sys.modules.pop("mynet", None)


def test_what_classify_prints_is_what_the_readme_shows(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    (command,) = [line for line in COMMANDS if line.startswith("featx classify") and "--eval" not in line]
    with pytest.raises(SystemExit):
        main(shlex.split(command)[1:])
    assert f"```\n{capsys.readouterr().out}```" in README


@pytest.mark.long
def test_the_quick_start_in_a_fresh_clone(tmp_path):
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(tmp_path / "clone")], check=True)
    subprocess.run(["bash", "-euo", "pipefail", "-c", SETUP[0]], cwd=tmp_path / "clone", check=True)
    with featx.open(tmp_path / "clone/features.h5") as features:
        assert len(features) == len(list((ROOT / "examples/videos").glob("*/*.mp4"))) and not features.failures
