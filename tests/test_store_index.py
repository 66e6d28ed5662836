"""What a folder of many files told is remembered, and never believed of a file that is not as it was."""

import os
import shutil
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from feature_files import write_file

import featx
from featx import durable, store
from featx.errors import FeatureFileError, UsageError
from featx.store import index, member, reader
from featx.store.keys import Keys, Texts

NAMES = [f"{'abc'[i % 3]}/{i:02d}" for i in range(24)] + ["ä", "日本/1", "z"]
RNG = np.random.default_rng(1)
ROWS = {key: RNG.standard_normal(6).astype(np.float32) for key in NAMES}
CLIPS = {key: RNG.standard_normal((1 + i % 3, 6)).astype(np.float32) for i, key in enumerate(NAMES)}


def write(path, keys, rows=None, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptors = {"fc6": {key: (rows or ROWS)[key] for key in keys}}
    return write_file(path, descriptors, clips={"fc6": {key: CLIPS[key] for key in keys}}, save="both", **more)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Six files: one with parts, which have the last word on a key and on a failure, one with failures alone."""
    folder = tmp_path_factory.mktemp("original")
    write(folder / "0.h5", NAMES[0::4], failures=[("late", "no frames"), ("never", "cut short")])
    write(folder / "0.h5.parts/part-0.h5", [NAMES[0], NAMES[1]], {**ROWS, NAMES[0]: -ROWS[NAMES[0]]})
    write(folder / "1.h5", NAMES[5::4])
    write(folder / "2.h5", NAMES[2::4])
    write(folder / "3.h5", NAMES[3::4])
    write(folder / "4.h5", [], failures=[(NAMES[7], "here it failed"), ("also", "gone")])
    return folder


@pytest.fixture
def folder(original, tmp_path, monkeypatch):
    monkeypatch.setenv("FEATX_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(reader, "MAX_OPEN", 2)
    monkeypatch.setattr(index, "SETTLED_NS", -(10**18))  # what was written just now may be remembered
    return Path(shutil.copytree(original, tmp_path / "many"))


@pytest.fixture
def examined(monkeypatch):
    """The names of the files that were opened and checked."""
    names = []

    def examine(source, file, path):
        names.append(path.name)
        return original_examine(source, file, path)

    original_examine = member.examine
    monkeypatch.setattr(member, "examine", examine)
    return names


def content(folder):
    """All that a set tells."""
    with featx.open(folder) as features:
        columns = [features.column(name).tolist() for name in store.SCHEMA["videos"]]
        clips = [features.clip_column(name).tolist() for name in store.SCHEMA["clips"]]
        rows = [features.descriptors("fc6").tolist(), np.concatenate(list(features.clip_blocks("fc6", 7))).tolist()]
        pieces = [
            (piece.path.name, piece.places.tolist(), piece.sums.tolist(), np.array(piece.read()).tolist())
            for clips in (False, True)
            for piece in store.pieces(features, "fc6", clips)
        ]
        store.verify_set(features)
        return [
            list(features.keys),
            features.failures,
            features.paths,
            features.provenance,
            *columns,
            *clips,
            rows,
            pieces,
        ]


def the_index(home):
    (path,) = (home / "sets").iterdir()
    return path


def test_what_was_seen_is_not_looked_at_again(folder, examined, tmp_path):
    first = content(folder)
    assert sorted(examined) == ["0.h5", "1.h5", "2.h5", "3.h5", "4.h5", "part-0.h5"]
    assert first[0] == sorted(NAMES) and [failure.key for failure in first[1]] == ["also", "late", "never"]
    assert np.float32(first[-2][0][first[0].index(NAMES[0])]).tolist() == (-ROWS[NAMES[0]]).tolist()
    examined.clear()
    before = the_index(tmp_path / "home").stat()
    assert content(folder) == first and examined == []
    after = the_index(tmp_path / "home").stat()  # that it was read may show in its time of access
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns) and before.st_mode & 0o777 == 0o600
    assert not list(folder.rglob("*.index")) and not list(folder.rglob(".*"))  # nothing is written beside the files


def in_place(folder):
    """A number of the descriptors, with the file's size and time as they were."""
    path, value = folder / "2.h5", ROWS[NAMES[2]].tobytes()
    data, status = path.read_bytes(), path.stat()
    with open(path, "r+b") as file:
        file.seek(data.index(value))
        file.write(value[4:] + value[:4])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size and path.stat().st_mtime_ns == status.st_mtime_ns
    return ["2.h5"]


def replaced(folder):
    status = (folder / "2.h5").stat()
    write(folder / "new", NAMES[2::4], {key: -row for key, row in ROWS.items()})
    os.utime(folder / "new", ns=(status.st_atime_ns, status.st_mtime_ns))
    os.replace(folder / "new", folder / "2.h5")
    return ["2.h5"]


def removed(folder):
    (folder / "3.h5").unlink()
    return []


def added(folder):
    write_file(folder / "5.h5", {"fc6": {"new": ROWS["z"]}}, clips={"fc6": {"new": CLIPS["z"]}}, save="both")
    return ["5.h5"]


def part_added(folder):
    write(folder / "1.h5.parts/part-3.h5", [NAMES[5]], {NAMES[5]: ROWS["z"]})
    return ["part-3.h5"]


def part_removed(folder):
    shutil.rmtree(folder / "0.h5.parts")
    return []


def renamed(folder):
    os.rename(folder / "3.h5", folder / "33.h5")
    return ["33.h5"]


def exchanged(folder):
    for old, new in (("2.h5", "x"), ("3.h5", "2.h5"), ("x", "3.h5")):
        os.rename(folder / old, folder / new)
    return ["2.h5", "3.h5"]


@pytest.mark.parametrize(
    "change",
    [in_place, replaced, removed, added, part_added, part_removed, renamed, exchanged],
    ids=lambda f: f.__name__,
)
def test_what_changed_is_looked_at_again_and_nothing_else(folder, examined, tmp_path, monkeypatch, change):
    with featx.open(folder):
        examined.clear()
    new = change(folder)

    def told():
        with featx.open(folder) as features:
            return list(features.keys), features.failures, features.paths, features.descriptors("fc6").tolist()

    first = told()
    assert sorted(examined) == new
    examined.clear()
    assert told() == first and examined == []
    monkeypatch.setenv("FEATX_HOME", str(tmp_path / "another"))
    assert told() == first and len(examined) == len(first[2])


def test_a_set_tells_of_a_file_that_changes_while_it_is_open(folder):
    featx.open(folder).close()
    with featx.open(folder) as features:
        replaced(folder)
        with pytest.raises(FeatureFileError, match="2.h5 was replaced while it was read"):
            features.descriptors("fc6")


def test_a_file_that_became_something_else_is_named(folder):
    featx.open(folder).close()
    (folder / "2.h5").write_text("no HDF5")
    with pytest.raises(FeatureFileError, match="2.h5: not an HDF5 file"):
        featx.open(folder)
    shutil.copy(folder / "3.h5", folder / "2.h5")
    with pytest.raises(UsageError, match="stands in .*2.h5 and in .*3.h5"):
        featx.open(folder)


def test_what_changed_a_moment_ago_is_not_remembered(folder, examined, tmp_path, monkeypatch):
    monkeypatch.setattr(index, "SETTLED_NS", 10**18)
    first = content(folder)
    assert not (tmp_path / "home").exists()
    examined.clear()
    assert content(folder) == first and len(examined) == 6
    monkeypatch.setattr(index, "SETTLED_NS", -(10**18))
    os.utime(folder / "1.h5", ns=(0, 4 * 10**18))  # as from a disk whose clock is ahead: all but this one are settled
    for _ in range(2):
        examined.clear()
        content(folder)
    assert examined == ["1.h5"]


def flipped(place):
    def change(path):
        data = bytearray(path.read_bytes())
        data[place if place >= 0 else len(data) // -place] ^= 4
        path.write_bytes(data)

    return change


def of_another_folder(path):
    other = path.parents[2] / "other"
    shutil.copytree(path.parents[2] / "many", other)
    path.rename(path.parent / "kept")
    featx.open(other).close()
    next(path.parent.glob("*.index")).rename(path)
    (path.parent / "kept").unlink()


UNTRUSTED = {
    "magic": flipped(11),
    "checksum": flipped(17),
    "sizes": flipped(24),
    "names": flipped(80),
    "tables": flipped(-2),
    "keys": lambda path: path.write_bytes(path.read_bytes()[:-1] + b"?"),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "empty": lambda path: path.write_bytes(b""),
    "writable by others": lambda path: path.chmod(0o666),
    "folder": lambda path: (path.unlink(), path.mkdir()),
    "pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "link": lambda path: (path.rename(path.parents[1] / "elsewhere"), path.symlink_to(path.parents[1] / "elsewhere")),
    "of another folder": of_another_folder,
}


@pytest.mark.parametrize("name", UNTRUSTED)
def test_an_index_that_cannot_be_trusted_is_none(folder, examined, tmp_path, name):
    first = content(folder)
    UNTRUSTED[name](the_index(tmp_path / "home"))
    examined.clear()
    assert content(folder) == first and len(examined) == 6


def test_an_index_of_another_user_or_version_is_none(folder, examined, monkeypatch):
    first = content(folder)
    for change in ((os, "geteuid", lambda: 12345), (index, "__version__", "0.0")):
        with monkeypatch.context() as patch:
            patch.setattr(*change)
            examined.clear()
            assert content(folder) == first and len(examined) == 6


def test_an_index_lying_beside_strangers_files_is_not_read(folder, examined, tmp_path):
    content(folder)
    path = the_index(tmp_path / "home")
    for place in (folder, folder / "sets"):
        place.mkdir(exist_ok=True)
        shutil.copy(path, place / path.name)
    path.unlink()
    examined.clear()
    content(folder)
    assert len(examined) == 6


def test_where_nothing_can_be_kept_everything_is_read_all_the_same(folder, tmp_path, monkeypatch):
    first = content(folder)
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("FEATX_HOME", str(tmp_path / "file/home"))
    assert content(folder) == first == content(folder)


def test_a_writer_that_was_killed_and_one_that_is_writing(folder, examined, tmp_path):
    first = content(folder)
    path = the_index(tmp_path / "home")
    path.unlink()
    (path.parent / f".{path.name}.unfinished").write_bytes(b"half of it")
    with durable.new_file(path, replace=True):
        path.with_name("begun").touch()
        assert content(folder) == first  # it is not waited for
        assert not path.exists()
        path.with_name("begun").unlink()
    path.unlink()  # what the other one wrote: nothing
    assert content(folder) == first and the_index(tmp_path / "home") == path
    examined.clear()
    assert content(folder) == first and examined == []


def test_several_at_once(folder, monkeypatch):
    monkeypatch.setattr("featx.store.handles.MOST", 4)
    first = content(folder)
    with featx.open(folder) as features, ThreadPoolExecutor(4) as pool:
        whole = features.descriptors("fc6")
        assert all(np.array_equal(rows, whole) for rows in pool.map(lambda _: features.descriptors("fc6"), range(40)))
        assert all(found == first for found in pool.map(lambda _: content(folder), range(4)))


def test_the_oldest_are_forgotten(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(index, "MOST", 2)
    for name in "xyz":
        shutil.copytree(folder, tmp_path / name)
        featx.open(tmp_path / name).close()
    assert len(list((tmp_path / "home/sets").iterdir())) == 2


@pytest.mark.parametrize(("span", "room"), [(1, 1), (1, 64), (10**6, 40), (10**6, 2**20)])
def test_rows_however_they_are_read(folder, monkeypatch, span, room):
    monkeypatch.setattr(member, "SPAN_BYTES", span)
    monkeypatch.setattr(reader, "ROOM_BYTES", room)
    descriptors = np.array([-ROWS[key] if key == NAMES[0] else ROWS[key] for key in sorted(NAMES)])
    clips = np.concatenate([CLIPS[key] for key in sorted(NAMES)])
    with featx.open(folder) as features:
        for places in ([3], [5, 5, 1], [-1, 0], list(range(27)), list(range(26, -1, -1)), [0, 13, 26]):
            rows = features.rows("fc6", places)
            assert rows.dtype == np.float32 and np.array_equal(rows, descriptors[places])
            assert np.array_equal(features.clip_rows("fc6", places), clips[places])
        assert features.rows("fc6", []).shape == (0, 6)
        for wrong in ([27], [-28]):
            with pytest.raises(IndexError):
                features.rows("fc6", wrong)


def test_no_rows_have_a_width_too(folder):
    write(folder / "-.h5", [], failures=[("early", "gone")])
    with featx.open(folder) as features:
        assert features.paths[0].name == "-.h5"
        assert features.rows("fc6", []).shape == features.clip_rows("fc6", []).shape == (0, 6)


def test_blocks_of_many_files_are_read_ahead_and_handed_out_as_asked(folder, monkeypatch):
    with featx.open(folder) as features:
        whole = features.descriptors("fc6")
        for piece in (1, 24, 2**16):
            monkeypatch.setattr(reader, "PIECE_BYTES", piece)
            blocks = list(features.blocks("fc6", 4))
            assert [len(block) for block in blocks] == [4] * 6 + [3] and np.array_equal(np.concatenate(blocks), whole)


def test_keys_are_a_sequence_like_a_list():
    texts = sorted(NAMES)
    order = np.random.default_rng(0).permutation(len(texts))
    mixed = Keys(Texts.of([texts[i].encode() for i in order]), np.argsort(order))
    for keys in (Keys(Texts.of([text.encode() for text in texts])), mixed):
        assert keys == texts and texts == list(keys) and len(keys) == len(texts) and keys != texts[1:]
        assert keys[0] == texts[0] and keys[-2] == texts[-2] and keys.index("z") == texts.index("z")
        for part in (slice(3, 9), slice(None, None, -2), slice(-4, None), slice(9, 3), slice(None)):
            assert keys[part] == texts[part]
        assert "z" in keys and "zz" not in keys and 3 not in keys and keys.find("ä") == texts.index("ä")
        for i in (27, -28):
            with pytest.raises(IndexError):
                keys[i]
        assert repr(keys) == "Keys('a/00', 'a/03', 'a/06', … 27 keys)"
    assert list(Keys(Texts.of([]))) == [] and Keys(Texts.of([])) == []


def test_a_set_that_is_known_takes_little_memory_a_video(tmp_path, folder):
    many = tmp_path / "long"
    many.mkdir()
    for i in range(3):
        keys = [f"class{j % 7}/video number {3 * j + i:06d}" for j in range(1000)]
        write_file(many / f"{i}.h5", {"fc6": {key: [1.0] for key in keys}})
    featx.open(many).close()
    tracemalloc.start()
    try:
        with featx.open(many) as features:
            held = tracemalloc.get_traced_memory()[0]
            assert features.keys[-1] == max(features.keys) and len(features) == 3000
    finally:
        tracemalloc.stop()
    per_key = len("class0/video number 000000") + 16
    assert held < 3000 * per_key + 60_000, f"{held / 3000:.0f} bytes a video"
