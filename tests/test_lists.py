import pytest

from featx.errors import UsageError
from featx.lists import few, match_names, read_lines, split_label


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("Archery/v_x.avi 3", ("Archery/v_x.avi", 3)),
        ("Archery/v_x.avi", ("Archery/v_x.avi", None)),
        ("a b/my take 2", ("a b/my take 2", None)),
        ("a b/my take 2.mp4 7", ("a b/my take 2.mp4", 7)),
    ],
)
def test_a_label_stands_behind_a_suffix(line, expected):
    assert split_label(line) == expected


def test_read_lines(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes("\ufeffa/ü.avi\r\n\r\n  b \r\n".encode())
    assert read_lines(path) == ["a/ü.avi", "b"]
    path.write_text("\n")
    with pytest.raises(UsageError, match="empty"):
        read_lines(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="UTF-8"):
        read_lines(path)
    with pytest.raises(UsageError, match="No such file"):
        read_lines(tmp_path / "absent.txt")


def test_few():
    assert few(["a", "b"]) == "a, b"
    assert few("abcd") == "a, b, c …"


@pytest.mark.parametrize(
    ("names", "keys", "expected"),
    [
        (["a/x.avi", "b/x.avi"], ["a/x", "b/x"], {"a/x.avi": 0, "b/x.avi": 1}),  # whole, less the suffix
        (["a/x.v2"], ["a/x", "a/x.v2"], {"a/x.v2": 1}),  # as written goes first
        (["./a//x.avi"], ["a/x"], {"./a//x.avi": 0}),
        (["a/x.avi"], ["other/x"], {"a/x.avi": 0}),  # by a unique base name
        (["x"], ["deep/down/x"], {"x": 0}),
        (["/data/a/x.avi", "/data/b/x.avi"], ["a/x", "b/x"], {"/data/a/x.avi": 0, "/data/b/x.avi": 1}),
        (["a/x.avi"], ["ucf/a/x", "hmdb/b/x"], {"a/x.avi": 0}),  # folders settle it
        (["a/x.avi", "b/x.avi"], ["a/x"], {"a/x.avi": 0}),  # a/x is a/x, so b/x is missing
        (["a/y.avi"], ["a/x"], {}),
        (["a/x.avi", "a/y.avi"], ["a/x", "b/y"], {"a/x.avi": 0}),  # folders are named alike, so b/y is another video
        (["/data/a/x.avi", "/data/a/y.avi"], ["a/x", "b/y"], {"/data/a/x.avi": 0}),
        (["a/x.avi", "a/y.avi"], ["1/x", "2/y"], {"a/x.avi": 0, "a/y.avi": 1}),  # named otherwise throughout
        (["a/6.avi"], ["b/6"], {}),  # a number says nothing without its folder
        (["a/000000.000-000010.000"], ["b/000000.000-000010.000"], {}),  # nor do the times of a segment
        (["a/take 1.5"], ["a/take 1"], {}),  # no suffix
        (["a/6.avi", "x"], ["6", "deep/x"], {"a/6.avi": 0, "x": 1}),
    ],
)
def test_matching(names, keys, expected):
    assert match_names(names, keys) == expected


def test_folders_must_agree_where_base_names_are_not_enough():
    assert match_names(["a/x.avi"], ["other/x"], by_base_name=False) == {}
    assert match_names(["/data/a/x.avi", "y.avi"], ["a/x", "b/y"], by_base_name=False) == {
        "/data/a/x.avi": 0,
        "y.avi": 1,
    }


def test_an_ambiguous_base_name_names_both_keys():
    with pytest.raises(UsageError, match=r"'c/x.avi' fits both 'a/x' and 'b/x'"):
        match_names(["c/x.avi"], ["a/x", "b/x"])
    with pytest.raises(UsageError, match=r"'a/x.avi' and 'b/x.avi' are both listed and both fit the key 'x'"):
        match_names(["a/x.avi", "b/x.avi"], ["x"])
