"""csv_lines.py: whatever a key holds, its row is read as it was written, by any version of Python's csv."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from feature_files import write_file

import featx
from featx.csv_lines import csv_reader, csv_writer
from featx.errors import FeatureFileError, UsageError
from featx.evaluation.embedding import Embedding
from featx.exports import export
from featx.matrices import import_matrix
from featx.neighbours.records import Duplicates, Pair
from featx.timestamps import write_timestamps

HARD = ["a\rb", 'c,"d"', "e\r\nf", "g\nh", " i", "ü"]


def read(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_cells_are_read_as_they_were_written(tmp_path):
    with open(tmp_path / "t.csv", "w", newline="", encoding="utf-8") as file:
        csv_writer(file).writerows([[key, 1.5, ""] for key in HARD])
    assert read(tmp_path / "t.csv") == list(csv_reader(tmp_path / "t.csv")) == [[key, "1.5", ""] for key in HARD]
    assert b'"a\rb",1.5,\n"c,""d""",1.5,\n' in (tmp_path / "t.csv").read_bytes()


def test_every_table_holds_hard_keys(tmp_path):
    rows = {"fc6": {key: np.eye(6)[i] for i, key in enumerate(HARD)}}
    clips = {"fc6": {key: np.ones((1, 6), np.float32) for key in HARD}}
    source, keys = write_file(tmp_path / "f.h5", rows, clips=clips), sorted(HARD)
    write_timestamps(source, tmp_path / "times.csv")
    export(source, tmp_path / "features.csv", "csv", clips=False)
    export(source, tmp_path / "clips.csv", "csv", clips=True)
    pairs = tuple(Pair(key, key, 1.0) for key in keys)
    Duplicates("f.h5", "c", "fc6", 0.9, 6, pairs, (tuple(keys),)).save_csv(tmp_path / "pairs.csv")
    for name, column in (("times", 0), ("features", 0), ("clips", 0), ("pairs", 1), ("pairs", 2)):
        header, *lines = read(tmp_path / f"{name}.csv")
        assert [line[column] for line in lines] == keys and {len(line) for line in lines} == {len(header)}
    for name in ("features", "clips"):
        import_matrix(tmp_path / f"{name}.csv", tmp_path / f"{name}.h5", "csv")
        with featx.open(tmp_path / f"{name}.h5") as features:
            assert features.keys == keys


def import_text(tmp_path, text, **options):
    (tmp_path / "m.csv").write_text(text)
    import_matrix(tmp_path / "m.csv", tmp_path / "m.h5", "csv", overwrite=True, **options)
    with featx.open(tmp_path / "m.h5") as features:
        return list(features.keys)


@pytest.mark.parametrize(
    ("first", "keys"),
    [
        ("key,x,y,z", ["v2"]),
        (",0,1,2", ["v2"]),
        ("0,1,2,3", ["v2"]),  # columns numbered with that of the key
        ("key,1,2,3", ["v2"]),
        ("key,7_0,7_1,7_2", ["v2"]),  # of a layer called 7
        ("v1,1,2,3", ["v1", "v2"]),
        ("v1,0,0,1", ["v1", "v2"]),
        ("v1,0.0,1.0,2.0", ["v1", "v2"]),
    ],
)
def test_a_first_line_is_a_header_only_where_it_holds_no_features(tmp_path, first, keys):
    assert import_text(tmp_path, f"{first}\nv2,3,4,5\n") == keys


@pytest.mark.parametrize("first", ["v1,0.1,,0.3", "v1,0,1,2", "v1,1.2.3,4,5", "v1,-,2,3", "v1,,,", "v1,NA,NA,NA", "v1"])
def test_a_first_video_is_not_lost(tmp_path, first):
    with pytest.raises(FeatureFileError, match="line [12]"):
        import_text(tmp_path, f"{first}\nv2,3,4,5\n")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no line holds features"),
        ("key,a,b\n", "no line holds features"),
        ("\n\n", "no line holds features"),
        ('v1,1,2\n"v2,1,2\nv3,3,4\n', "line 3 is not comma-separated values"),
        ('v1,1,2\n"v2,1,2\n' + "v3,3,4\n" * 20_000, "is not comma-separated values"),
    ],
)
def test_a_table_that_is_none_is_told_of(tmp_path, text, told):
    with pytest.raises(FeatureFileError, match=told):
        import_text(tmp_path, text)


def test_clips_of_a_folder_stand_in_a_table_too(tmp_path):
    np.save(tmp_path / "v.npy", np.ones((1, 3)))
    (tmp_path / "clips.csv").write_text('key,start_frame,end_frame,start_seconds,end_seconds\n"v,0,16,0,1\n')
    with pytest.raises(FeatureFileError, match=r"clips.csv: line 2 is not comma-separated values"):
        import_matrix(tmp_path, tmp_path / "f.h5", "npy")


def test_points_of_hard_names(tmp_path):
    fields = {name: 0 for name in Embedding.__dataclass_fields__}
    points = Embedding(**{**fields, "names": tuple(HARD), "labels": ("x",) * 6, "points": np.zeros((6, 2))})
    points.save_csv(tmp_path / "points.csv")
    assert [line[0] for line in read(tmp_path / "points.csv")] == ["name", *HARD]


def test_keys_that_are_no_utf8_are_refused(tmp_path):
    (tmp_path / "m.csv").write_bytes("clé,1,2\n".encode("latin-1"))
    with pytest.raises(UsageError, match=r"the key 'cl\\xe9' of .*m.csv is not UTF-8; save the keys as UTF-8"):
        import_matrix(tmp_path / "m.csv", tmp_path / "m.h5", "csv")


def test_a_header_may_come_behind_empty_lines(tmp_path):
    assert import_text(tmp_path, "\n\nkey,x,y,z\nv2,3,4,5\n") == ["v2"]
