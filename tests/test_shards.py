"""Shards: which videos go where, recomputed from the rule; SLURM; runs apart and joined; what is missing or twice."""

import hashlib
import itertools
import json

import h5py
import numpy as np
import pytest
from conftest import write_noise_video
from feature_files import write_file

import featx
from featx.cli import main
from featx.dry_run import dry_run
from featx.errors import FeatureFileError, ProvenanceError, UsageError
from featx.run import extract_to, merge
from featx.shards import joined, missing_shards, parse_held, parse_shard, shard_number


def by_hand(key, num_shards):
    """The rule as the module states it, from the hexadecimal digest: 16 digits are 8 bytes."""
    return int(hashlib.sha256(key.encode()).hexdigest()[:16], 16) % num_shards + 1


@pytest.mark.parametrize("num_shards", [1, 2, 7, 1000])
def test_a_key_has_one_shard(num_shards):
    keys = [f"Wave/v_Wave_g{i:02d}" for i in range(300)] + ["ä/ü %FF", ""]
    for key in keys:
        number = shard_number(key, num_shards)
        assert number == by_hand(key, num_shards) and 1 <= number <= num_shards
        assert parse_shard(f"{number}/{num_shards}").holds(key)
        assert num_shards == 1 or not parse_shard(f"{number % num_shards + 1}/{num_shards}").holds(key)


def test_known_shards_stay_where_they_are():
    """Files of earlier versions must go on: these must never change."""
    assert [shard_number(key, 8) for key in ("a", "Wave/v_Wave_g01_c01", "é")] == [
        0xCA978112CA1BBDCA % 8 + 1,  # what sha256sum says of "a" begins so
        by_hand("Wave/v_Wave_g01_c01", 8),
        by_hand("é", 8),
    ]


def slurm(task, count, least, greatest=None, step=None):
    values = {"ID": task, "COUNT": count, "MIN": least, "MAX": greatest, "STEP": step}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items() if value is not None}


@pytest.mark.parametrize("tasks", [range(0, 4), range(1, 9), range(10, 51, 10), range(3, 10, 3)])
def test_the_tasks_of_an_array_are_the_shards(tasks):
    """So they are where the text tells the tasks, and then also where each runs again, alone or with some others."""
    wanted = [f"{k}/{len(tasks)}" for k in range(1, len(tasks) + 1)]
    whole = [slurm(task, len(tasks), tasks[0], tasks[-1], tasks.step) for task in tasks]
    assert [str(parse_shard("slurm", variables)) for variables in whole] == wanted
    given = f"slurm/{tasks[0]}-{tasks[-1]}:{tasks.step}"
    again = [slurm(task, 1, task, task, 1) for task in tasks]
    among = [slurm(task, 2, min(task, tasks[1]), max(task, tasks[-1]), 1) for task in tasks]
    for environments in (whole, again, among):
        assert [str(parse_shard(given, variables)) for variables in environments] == wanted
        if (tasks[0], tasks.step) == (1, 1):
            assert [str(parse_shard(f"SLURM/{len(tasks)}", variables)) for variables in environments] == wanted


@pytest.mark.parametrize("task", [0, 1, 3])
def test_an_array_of_one_task_is_never_taken_for_the_whole(task):
    """`sbatch --array=3`, of an array that was 1-8, looks so: 1/1 would be all videos, under the name of one shard."""
    with pytest.raises(UsageError, match=f"has the task {task} alone, .*--shard slurm/N"):
        parse_shard("slurm", slurm(task, 1, task, task, 1))
    assert str(parse_shard("slurm/1", slurm(1, 1, 1, 1, 1))) == "1/1"


@pytest.mark.parametrize(
    ("text", "variables", "told"),
    [
        ("slurm/8", slurm(9, 9, 1, 9, 1), "has the task 9, but 'slurm/8' stands for tasks 1 to 8"),
        ("slurm/8", slurm(0, 1, 0, 0, 1), "say slurm/0-7 for an array from 0"),
        (
            "slurm/8",
            slurm(3, 8, 0, 7, 1),
            "has the task 0, .* say slurm/0-7",
        ),  # each task of it is refused, not the first alone
        ("slurm/0-8:4", slurm(2, 3, 0, 8, 4), "tasks 0 to 8 in steps of 4"),
        ("slurm/8-1", slurm(1, 1, 1), "such as slurm/1-8"),
        ("slurm/0-8:0", slurm(0, 1, 0), "such as slurm/1-8"),
        ("slurm/0", slurm(1, 1, 1), "such as slurm/1-8"),
        ("slurm/8", {}, "SLURM_ARRAY_TASK_ID is ''"),
        ("slurm/x", {}, "must be K/N, .* slurm/8"),
        ("slurm/0-200000", slurm(0, 1, 0), "200001 shards"),
    ],
)
def test_a_task_of_another_array_is_refused(text, variables, told):
    with pytest.raises(UsageError, match=told):
        parse_shard(text, variables)


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({}, "SLURM_ARRAY_TASK_ID is ''"),
        (slurm(2, 3, 1, 7, 1), "without gaps, such as --array=1-3"),  # --array=1,2,7
        (slurm(7, 3, 1), "without gaps"),
        (slurm(2, 4, 1, 7, 2), "without gaps"),
        ({**slurm(2, 3, 1), "SLURM_ARRAY_TASK_COUNT": "three"}, "SLURM_ARRAY_TASK_COUNT is 'three'"),
    ],
)
def test_an_array_that_is_none_is_refused(variables, told):
    with pytest.raises(UsageError, match=told):
        parse_shard("slurm", variables)


@pytest.mark.parametrize("text", ["", "3", "0/4", "5/4", "1/0", "-1/4", "1/4/2", "a/b", "1/200000", "١/٢", "1.0/2"])
def test_a_shard_that_is_none_is_refused(text):
    with pytest.raises(UsageError, match="shard"):
        parse_shard(text, {})


def test_what_files_hold_together():
    """Every split of five shards over three files gives their union, in runs of numbers."""
    for owner in itertools.product(range(3), repeat=5):
        texts = []
        for file in range(3):
            numbers = [n for n in range(1, 6) if owner[n - 1] == file]
            if numbers:
                texts.append(joined([(str(n), f"{n}/5") for n in numbers]))
                assert parse_held(texts[-1] or "1-5/5") == (frozenset(numbers), 5)
        if len(texts) > 1:
            assert joined([(text, text) for text in texts]) == ""
    assert joined([("a", "1/5"), ("b", "3/5"), ("c", "2/5")]) == "1-3/5"
    assert joined([("a", "")]) == joined([("a", ""), ("b", "")]) == "" and joined([("a", "2/3")]) == "2/3"
    assert missing_shards("1-3/5") == "shard 4/5, 5/5 are missing" and not missing_shards("1/1")
    assert missing_shards("2/2") == "shard 1/2 is missing" and missing_shards("9/9").endswith("and 2 more are missing")


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        (["1/2", "1/2"], "shard 1/2 stands in f0 and in f1"),
        (["1-2/4", "2,4/4"], "shard 2/4 stands in f0 and in f1"),
        (["1/2", "2/3"], "f0 holds shard 1/2, f1 shard 2/3"),
        (["1/2", ""], "f0 holds shard 1/2, f1 is no shard"),
        (["", "2/2"], "f1 holds shard 2/2, f0 is no shard"),
    ],
)
def test_what_does_not_belong_together_is_named(texts, told):
    with pytest.raises(ProvenanceError, match=told):
        joined([(f"f{i}", text) for i, text in enumerate(texts)])


@pytest.mark.parametrize("text", ["x", "0/3", "4/3", "3-1/3", "1-999999/999999", "1,/3", "1/3 "])
def test_a_file_of_a_strange_shard_is_refused(tmp_path, text):
    path = write_file(tmp_path / "f.h5", {"fc6": {"a": [1, 0]}})
    with h5py.File(path, "r+") as h5:
        h5.attrs["shard"] = text
    with pytest.raises(FeatureFileError, match="shard"):
        featx.open(path)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for i in range(5):
        write_noise_video(folder / f"v{i}.avi", 16, seed=i)
    return folder


@pytest.fixture(scope="module")
def shards(videos, tmp_path_factory):
    """The outputs of three runs, and of one that took all videos."""
    folder = tmp_path_factory.mktemp("shards")
    for k in (1, 2, 3):
        extract_to(videos, folder / f"out.{k}.h5", shard=f"{k}/3")
    whole = folder.parent / "whole.h5"
    extract_to(videos, whole)
    return [folder / f"out.{k}.h5" for k in (1, 2, 3)], whole


def test_shards_joined_are_one_run(videos, shards, tmp_path):
    files, whole = shards
    for k, file in enumerate(files, 1):
        with featx.open(file, warn=False) as features:
            assert features.keys == [f"v{i}" for i in range(5) if by_hand(f"v{i}", 3) == k]
            assert features.provenance.shard == f"{k}/3"
    assert merge(files, tmp_path / "all.h5") == 5
    with featx.open(whole) as one, featx.open(tmp_path / "all.h5") as joint, featx.open(files[0].parent) as folder:
        for features in (joint, folder):
            assert features.keys == one.keys and features.provenance.shard == ""
            assert np.array_equal(features.descriptors(one.layers[0]), one.descriptors(one.layers[0]))


def test_a_missing_shard_is_named_and_may_come_later(shards, tmp_path):
    files, _ = shards
    with pytest.raises(UsageError, match="shard 2/3 is missing; .*--partial"):
        merge([files[0], files[2]], tmp_path / "some.h5")
    assert not (tmp_path / "some.h5").exists()
    merge([files[0], files[2]], tmp_path / "some.h5", partial=True)
    with featx.open(tmp_path / "some.h5", warn=False) as some:
        assert some.provenance.shard == "1,3/3"
    with pytest.raises(ProvenanceError, match="shard 3/3 stands in .*some.h5 and in .*out.3.h5"):
        merge([tmp_path / "some.h5", files[2]], tmp_path / "all.h5", partial=True)
    assert merge([tmp_path / "some.h5", files[1]], tmp_path / "all.h5") == 5
    with featx.open(tmp_path / "all.h5") as whole:
        assert whole.provenance.shard == ""


def test_a_shard_without_videos_is_a_file(videos, tmp_path):
    empty = next(k for k in range(1, 50) if not any(by_hand(f"v{i}", 49) == k for i in range(5)))
    summary = extract_to(videos, tmp_path / "f.h5", shard=f"{empty}/49")
    assert (summary.num_planned, summary.exit_code) == (0, 0)
    assert extract_to(videos, tmp_path / "f.h5", shard=f"{empty}/49").num_planned == 0
    with featx.open(tmp_path / "f.h5", warn=False) as features:
        assert not len(features) and features.provenance.shard == f"{empty}/49"
    with pytest.raises(UsageError, match="holds shard .* and this run makes all videos"):
        extract_to(videos, tmp_path / "f.h5")
    for other in (f"{empty}/48", "1/1"):  # of another N, though the file holds nothing that would be lost
        with pytest.raises(UsageError, match=f"holds shard {empty}/49, and this run makes shard {other}; give --shard"):
            extract_to(videos, tmp_path / "f.h5", shard=other)


def test_the_estimate_of_a_shard_is_its_own(videos, capsys):
    counts = [dry_run(videos, shard=f"{k}/3").num_videos for k in (1, 2, 3)]
    assert counts == [sum(by_hand(f"v{i}", 3) == k for i in range(5)) for k in (1, 2, 3)]
    with pytest.raises(SystemExit) as ended:
        main(["extract", str(videos), "--dry-run", "--shard", "1/3", "--json"])
    assert not ended.value.code
    assert json.loads(capsys.readouterr().out)["num_videos"] == counts[0]


def test_which_shard_a_task_takes_is_told(videos, tmp_path, monkeypatch):
    for name, value in slurm(3, 1, 3, 3, 1).items():
        monkeypatch.setenv(name, value)
    notes = []
    empty = next(k for k in range(50, 90) if not any(by_hand(f"v{i}", k) == 3 for i in range(5)))
    extract_to(videos, tmp_path / "f.h5", shard=f"slurm/{empty}", on_note=notes.append)
    assert f"--shard slurm/{empty} is shard 3/{empty} here, 0 of 5 videos" in notes


def test_the_segments_of_a_video_stay_together(videos, tmp_path):
    rows = [f"{videos}/v{i}.avi,{start},{start + 0.3}" for i in range(5) for start in (0, 0.1, 0.2)]
    (tmp_path / "s.csv").write_text("\n".join(["path,start_seconds,end_seconds", *rows]))
    for k in (1, 2, 3):
        found = dry_run([], segments=tmp_path / "s.csv", shard=f"{k}/3")
        names = [key for key, *_ in found.videos] + [failure.key for failure in found.failures]
        assert {name.rpartition("/")[0] for name in names} == {f"v{i}" for i in range(5) if by_hand(f"v{i}", 3) == k}
        assert len(names) == 3 * len({name.rpartition("/")[0] for name in names})
