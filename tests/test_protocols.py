import pytest

from featx.errors import UnknownNameError, UsageError
from featx.evaluation import hmdb51, ucf101
from featx.evaluation.datasets import DATASETS, get_dataset
from featx.evaluation.protocol import Entry, Request, Split, group_of, mixed_groups

# a UCF101 of two classes and two splits: groups 1 and 2 test in split 1, 3 tests in split 2
SMALL = {
    "classInd.txt": "1 Archery\n2 Biking\n",
    "trainlist01.txt": "Archery/v_Archery_g03_c01.avi 1\r\nBiking/v_Biking_g03_c01.avi 2\r\n",
    "testlist01.txt": "Archery/v_Archery_g01_c01.avi\r\nArchery/v_Archery_g02_c01.avi\r\nBiking/v_Biking_g01_c01.avi\r\n",
    "trainlist02.txt": "Archery/v_Archery_g01_c01.avi 1\nBiking/v_Biking_g01_c01.avi 2\n",
    "testlist02.txt": "Archery/v_Archery_g03_c01.avi\n",
}


def write(folder, files):
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).write_bytes(text.encode())
    return folder


@pytest.fixture
def small_ucf101(monkeypatch):
    monkeypatch.setattr(ucf101, "NUM_CLASSES", 2)
    monkeypatch.setattr(ucf101, "COUNTS", {1: (2, 3), 2: (2, 1)})


def load_ucf101(folder, **request):
    return ucf101.load(Request((), folder, **request))


def test_ucf101_by_hand(tmp_path, small_ucf101):
    protocol = load_ucf101(write(tmp_path, SMALL))
    assert protocol.classes == ("Archery", "Biking")
    first, second = protocol.splits
    assert first == Split(
        "split 1",
        (Entry("Archery/v_Archery_g03_c01.avi", "Archery"), Entry("Biking/v_Biking_g03_c01.avi", "Biking")),
        (
            Entry("Archery/v_Archery_g01_c01.avi", "Archery"),
            Entry("Archery/v_Archery_g02_c01.avi", "Archery"),
            Entry("Biking/v_Biking_g01_c01.avi", "Biking"),
        ),
    )
    assert [len(second.train), len(second.test)] == [2, 1]
    assert load_ucf101(tmp_path, numbers=(2,)).splits == (second,)


def test_ucf101_counts_are_the_official_ones():
    assert ucf101.COUNTS == {1: (9537, 3783), 2: (9586, 3734), 3: (9624, 3696)}
    assert all(sum(counts) == 13_320 for counts in ucf101.COUNTS.values())
    assert ucf101.NUM_CLASSES == 101


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "trainlist01.txt",
            SMALL["trainlist02.txt"] + "Archery/v_a.avi 1\n",
            "trainlist01.txt lists 3 videos, but UCF101 has 2 there",
        ),
        ("trainlist01.txt", SMALL["trainlist01.txt"].replace("Biking/", "Cycling/"), "class 'Cycling', which classInd"),
        (
            "trainlist01.txt",
            SMALL["trainlist01.txt"].replace(" 2", " 1"),
            "has label 1, but classInd.txt gives Biking 2",
        ),
        ("trainlist01.txt", SMALL["trainlist01.txt"].replace(" 2", ""), "has label None"),
        (
            "trainlist01.txt",
            2 * "Archery/v_Archery_g03_c01.avi 1\n",
            "split 1: 'Archery/v_Archery_g03_c01.avi' is listed twice",
        ),
        ("testlist02.txt", "Archery/v_Archery_g01_c01.avi\n", "split 2: .* is listed twice"),
        ("testlist01.txt", SMALL["testlist01.txt"].replace("g02_c01", "g03_c02"), "Archery g03 stands on both sides"),
        ("testlist01.txt", "v_Archery_g01_c01.avi\n", "names no class"),
        ("classInd.txt", "1 Archery\n", "has 1 classes, but UCF101 has 2"),
        ("classInd.txt", "1 Archery\n3 Biking\n", "'3 Biking' is not the line 'number class' of class 2"),
    ],
)
def test_ucf101_lists_that_are_not_the_official_ones(tmp_path, small_ucf101, name, text, message):
    with pytest.raises(UsageError, match=message):
        load_ucf101(write(tmp_path, {**SMALL, name: text}))


def test_ucf101_folder(tmp_path, small_ucf101):
    with pytest.raises(UsageError, match="ucf101 needs its list files"):
        load_ucf101(None)
    with pytest.raises(UsageError, match="is no folder"):
        load_ucf101(tmp_path / "absent")
    with pytest.raises(UsageError, match=r"classInd\.txt: cannot be read"):
        load_ucf101(tmp_path)
    with pytest.raises(UsageError, match="folds is 5, but ucf101 has fixed splits"):
        load_ucf101(tmp_path, folds=5)
    with pytest.raises(UsageError, match="split 4 does not exist; choose from 1, 2"):
        load_ucf101(write(tmp_path, SMALL), numbers=(4,))


def write_hmdb51(folder, num_classes=51, flags=(1,) * 70 + (2,) * 30 + (0,) * 5):
    folder.mkdir()
    for c in range(num_classes):
        for n in (1, 2, 3):
            lines = [f"#c{c} x_{i}.avi {flags[(i + 30 * n) % len(flags)]} \n" for i in range(len(flags))]
            (folder / f"class_{c:02d}_test_split{n}.txt").write_text("".join(lines))


def test_hmdb51(tmp_path):
    write_hmdb51(tmp_path / hmdb51.SUBFOLDER)
    protocol = hmdb51.load(Request((), tmp_path))
    assert protocol == hmdb51.load(Request((), tmp_path / hmdb51.SUBFOLDER))
    assert len(protocol.classes) == 51 and [s.name for s in protocol.splits] == ["split 1", "split 2", "split 3"]
    for n, split in enumerate(protocol.splits, 1):
        assert (len(split.train), len(split.test)) == (3570, 1530)
        # flag of line i is flags[i + 30 n]: line 0 of split 1 trains, of split 3 tests
        assert (Entry("class_07/#c7 x_0.avi", "class_07") in split.train) == (n < 3)


def test_hmdb51_lists_that_are_not_the_official_ones(tmp_path):
    write_hmdb51(tmp_path / "fifty", 50)
    with pytest.raises(UsageError, match="50 classes, but HMDB51 has 51"):
        hmdb51.load(Request((), tmp_path / "fifty"))
    write_hmdb51(tmp_path / "counts", flags=(1,) * 69 + (2,) * 30)
    with pytest.raises(UsageError, match="3519 train and 1530 test videos, but HMDB51 has 3570 and 1530"):
        hmdb51.load(Request((), tmp_path / "counts"))
    write_hmdb51(tmp_path / "flags", flags=(1,) * 70 + (3,) * 30)
    with pytest.raises(UsageError, match="is not 'name flag'"):
        hmdb51.load(Request((), tmp_path / "flags"))


def load_folders(keys=(), folder=None, **request):
    return DATASETS["folders"].load(Request(tuple(keys), folder, **request))


def test_folders_with_lists_takes_any_classes_and_counts(tmp_path):
    files = {
        "trainlist01.txt": "walk/my clip 1.mp4 1\nrun/000.mp4\n",
        "testlist01.txt": "walk/take 2\n",
        "trainlist03.txt": "walk/v_w_g01_c01.avi 1\nrun/000.mp4 2\n",
        "testlist03.txt": "walk/v_w_g01_c02.avi\n",
    }
    protocol = load_folders(folder=write(tmp_path, files))
    assert protocol.classes == ("run", "walk")
    assert [split.name for split in protocol.splits] == ["split 1", "split 3"]
    assert protocol.splits[0].train == (Entry("walk/my clip 1.mp4", "walk"), Entry("run/000.mp4", "run"))
    assert protocol.splits[0].test == (Entry("walk/take 2", "walk"),)
    assert [mixed_groups(split) for split in protocol.splits] == [[], ["walk g01"]]


def test_folders_with_lists_that_do_not_do(tmp_path):
    with pytest.raises(UsageError, match=r"has no trainlist01\.txt"):
        load_folders(folder=tmp_path)
    write(tmp_path, {"trainlist01.txt": "a/x.avi\nb/y.avi\n", "testlist01.txt": "c/z.avi\n"})
    with pytest.raises(UsageError, match="class 'c' has test videos and none to train on"):
        load_folders(folder=tmp_path)


GROUPED = [f"{c}/v_{c}_g{g:02d}_c{i:02d}" for c in ("a", "b", "c") for g in range(6) for i in range(4)]


def test_folds_keep_groups_together_and_test_every_video_once():
    protocol = load_folders(GROUPED, folds=3, seed=1)
    assert protocol.classes == ("a", "b", "c") and [s.name for s in protocol.splits] == ["fold 1", "fold 2", "fold 3"]
    tested = [name for split in protocol.splits for name, _ in split.test]
    assert sorted(tested) == GROUPED
    for split in protocol.splits:
        groups = [{(label, group_of(name)) for name, label in side} for side in (split.train, split.test)]
        assert not groups[0] & groups[1]
        assert sorted(label for _, label in split.test) == ["a"] * 8 + ["b"] * 8 + ["c"] * 8  # stratified
    assert "72 videos in 18 groups" in protocol.notes[0]
    assert load_folders(GROUPED, folds=3, seed=1) == protocol != load_folders(GROUPED, folds=3, seed=2)
    assert load_folders(GROUPED, folds=3, seed=1, numbers=(2,)).splits == protocol.splits[1:2]


def test_folds_without_groups_say_so():
    protocol = load_folders([f"deep/{c}/{i:03d}" for c in "ab" for i in range(4)] + ["c/000", "c/001"])
    assert protocol.classes == ("a", "b", "c") and len(protocol.splits) == 4
    assert "each video is its own" in protocol.notes[0]
    assert "fewer groups than folds, so not in every test: 1 (c)" in protocol.notes[1]


def test_folds_that_cannot_be():
    with pytest.raises(UsageError, match="'x' has no parent folder"):
        load_folders(["x", "a/y"])
    with pytest.raises(UsageError, match="class 'b' has 1 group"):
        load_folders([*GROUPED[:24], "b/v_b_g01_c01", "b/v_b_g01_c02"])
    for folds in (1, 7):
        with pytest.raises(
            UsageError, match=f"folds is {folds}, but must be from 2 to 6, the groups of the largest class"
        ):
            load_folders(GROUPED, folds=folds)


def test_group_of():
    assert group_of("v_Archery_g07_c03") == "07"
    assert group_of("walking_gear_07") is None


def test_the_table():
    assert all(name == row.name for name, row in DATASETS.items())
    with pytest.raises(UnknownNameError, match="unknown data set 'ucf-101'; did you mean 'ucf101'"):
        get_dataset("ucf-101")
