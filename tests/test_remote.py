"""Stores behind fsspec: addresses and their secrets, listings that stream, transfers that are whole or fail."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from stores import Unreliable, fill

from featx import plan, remote
from featx.errors import FeatxError, UsageError, VideoError
from featx.plan import VideoItem, plan_videos
from featx.remote import Store, listing, transfer
from featx.shards import shard_number

fsspec = pytest.importorskip("fsspec", reason="the package fsspec is not installed")


@pytest.fixture
def memory():
    system = fsspec.filesystem("memory")
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(transfer, "PAUSES", (0.0, 0.0))


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("s3://bucket/a b/c?d#e@f.mp4", "s3://bucket/a b/c?d#e@f.mp4"),
        ("https://host/a.mp4", "https://host/a.mp4"),
        ("https://host/a.mp4?id=17&part=2", "https://host/a.mp4?id=17&part=2"),
        ("https://host/a%20b.mp4?id=17&X-Amz-Signature=00ff&X-Amz-Date=2", "https://host/a%20b.mp4?id=17"),
        ("https://host/a.mp4?sv=2020&sig=00ff&se=x", "https://host/a.mp4"),
        ("https://host/a.mp4?access_token=1", "https://host/a.mp4"),
        ("https://host/a.mp4?jwt=1&hmac=2&a=1;token=3", "https://host/a.mp4"),
        ("https://host/a.mp4?x=" + 50 * "a", "https://host/a.mp4"),
        ("https://user:word@host/a.mp4#part", "https://…@host/a.mp4"),
        ("s3://key:word@bucket/a.mp4", "s3://…@bucket/a.mp4"),
        ("a file?key=1", "a file?key=1"),
        ("https://host/a.mp4?pwd=1&pw=2&md5=3&code=4&hash=5&h=6&ID=7", "https://host/a.mp4?ID=7"),
        ("s3://AKIA1:ab/cdSECRET@bucket/x.mp4", "s3://…@bucket/x.mp4"),
        ("s3://AKIA1:ab@cd/SECRET@bucket/x.mp4", "s3://…@bucket/x.mp4"),
        ("s3://AKIA1:12/cdSECRET@bucket/x.mp4", "s3://…@bucket/x.mp4"),
        ("https://user:pa/ss?w@host/x.mp4", "https://…@host/x.mp4"),
        ("https://user:pa/ss", "https://…"),
        ("http://127.0.0.1:80/a@b.mp4", "http://127.0.0.1:80/a@b.mp4"),
        ("http://[::1]:80/a@b.mp4", "http://[::1]:80/a@b.mp4"),
    ],
)
def test_what_could_be_a_secret_is_not_shown(address, public):
    assert remote.public_address(address) == public
    assert remote.public_address(public) == public or "…@" in public
    assert remote.public_text(f"404 for '{address.replace(' ', '')}'") == f"404 for '{public.replace(' ', '')}'"


def test_an_address_of_another_kind_and_a_password_are_refused():
    for address in ("ftp://a/b.mp4", "file:///etc/passwd", "s3:///a.mp4", "https:///x", "simplecache://a/b"):
        with pytest.raises(UsageError, match="only http and https"):
            remote.require_address(address)
    for address in (
        "s3://key:word@bucket/a.mp4",
        "https://u:word@h/x.mp4",
        "gs://k:a/word@b/x",
        "http://u:/word/a@h/x",
    ):
        with pytest.raises(UsageError, match="holds a password") as told:
            remote.require_address(address)
        assert "word" not in str(told.value).replace("password", "")
    with pytest.raises(UsageError, match="is no address: Port out of range"):
        remote.require_address("http://h:99999/a.mp4")
    arn = "s3://arn:aws:s3:eu-west-1:12:accesspoint/mine/a@b.mp4"
    for address in ("gs://bucket/a@b.mp4", "http://h:80/a@b.mp4", "http://[::1]:80/a@b.mp4", arn):
        assert remote.require_address(address) == address == remote.public_address(address)
    with pytest.raises(UsageError, match="s3://bucket/a.h5 is an address"):
        remote.require_no_address("s3:/bucket/a.h5", "fetch it")


@pytest.mark.parametrize(
    ("missing", "address", "told"),
    [
        ("fsspec", "s3://bucket/v/", "needs the package fsspec"),
        ("s3fs", "s3://bucket/v/", "needs the package s3fs"),
        ("gcsfs", "gs://bucket/v/", "pip install 'featx[cloud]' gcsfs"),
    ],
)
def test_a_missing_package_is_named_with_what_installs_it(monkeypatch, missing, address, told):
    monkeypatch.setitem(sys.modules, missing, None)
    known = sys.modules["fsspec.registry"]
    monkeypatch.setattr(known, "_registry", {})
    monkeypatch.setattr(known, "registry", known._registry)
    with pytest.raises(UsageError, match="featx\\[cloud\\]") as error:
        plan_videos(address)
    assert told in str(error.value)


def test_videos_below_an_address_have_the_keys_of_the_same_folder(memory, tmp_path):
    names = [
        "a.mp4",
        "b/c.AVI",
        "b/c d/é.mkv",
        "b/.hidden/x.mp4",
        ".x.mp4",
        "b/notes.txt",
        "z.mp4/inside.mp4",
        "100%.mp4",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"12345")
    fill(memory, tmp_path, "/store/v")
    memory.pipe_file("/store/vv.mp4", b"1")  # begins like the folder, and lies beside it
    ours, local = plan_videos("memory://store/v/"), plan_videos(tmp_path)
    assert [item.key for item in ours] == [item.key for item in local] and len(ours) == 5
    assert ours[-1].url == "memory://store/v/z.mp4/inside.mp4" and ours[-1].size_bytes == 5 and ours[-1].mtime_ns > 0
    assert [item.key for item in plan_videos("memory://store/v")] == [item.key for item in ours]
    (one,) = plan_videos("memory://store/v/a.mp4")
    assert (one.key, one.path_text, one.path.suffix) == ("store/v/a", "memory://store/v/a.mp4", ".mp4")
    (whole,) = plan_videos("memory://store/v/b/c d/", keys_from="path")
    assert whole.key.endswith("store/v/b/c d/é.mkv")


def test_a_list_may_name_addresses_only_where_that_is_allowed(memory, tmp_path):
    (tmp_path / "list.txt").write_text("s3://bucket/b/2.mp4\nhttps://host/1.mp4?token=x\n")
    with pytest.raises(UsageError, match="--allow-urls"):
        plan_videos([], tmp_path / "list.txt")
    items = plan_videos([], tmp_path / "list.txt", allow_urls=True)
    assert [item.key for item in items] == ["bucket/b/2", "host/1"]
    assert items[1].path_text == "https://host/1.mp4" and items[1].url.endswith("token=x")
    (tmp_path / "list.txt").write_text("s3://bucket/b/\n")
    with pytest.raises(UsageError, match="names the folder"):
        plan_videos([], tmp_path / "list.txt", allow_urls=True)
    (tmp_path / "parts.csv").write_text("path,start_seconds,end_seconds\ns3://bucket/a.mp4,0,1\n")
    with pytest.raises(UsageError, match=r"s3://bucket/a.mp4 is an address.*fetch it"):
        plan_videos([], segments=tmp_path / "parts.csv")
    memory.pipe_file("/store/notes.txt", b"1")
    with pytest.raises(UsageError, match="no videos below memory://store/; looked for"):
        plan_videos("memory://store/")
    with pytest.raises(UsageError, match="memory://absent/ cannot be listed: there is no such thing"):
        plan_videos("memory://absent/")


class Pages:
    """A store of S3's kind with a million keys, of which each page is made when it is asked for."""

    def __init__(self, num_keys: int, page_keys: int = 1000) -> None:
        self.num_keys, self.page_keys, self.num_asked = num_keys, page_keys, 0

    def split_path(self, path):
        bucket, _, key = path.partition("/")
        return bucket, key, None

    def call_s3(self, method, Bucket, Prefix, ContinuationToken="0"):
        assert (method, Bucket, Prefix) == ("list_objects_v2", "bucket", "v/")
        self.num_asked += 1
        first = int(ContinuationToken)
        end = min(first + self.page_keys, self.num_keys)
        contents = [
            {"Key": f"v/{i % 100:02d}/{i:07d}.mp4", "Size": 1000 + i, "ETag": 32 * "e"} for i in range(first, end)
        ]
        return {"Contents": contents, "IsTruncated": end < self.num_keys, "NextContinuationToken": str(end)}


def test_a_listing_streams(monkeypatch):
    """The first video comes before the second page is asked for, and none is kept."""
    pages = Pages(6_000)
    monkeypatch.setattr(listing, "open_store", lambda address: Store(address, pages, "bucket/v"))
    videos = remote.videos_below("s3://bucket/v/")
    assert next(videos).relative == "00/0000000.mp4" and pages.num_asked == 1
    tracemalloc.start()
    try:
        assert sum(1 for _ in videos) == 5_999 and pages.num_asked == 6
        assert tracemalloc.get_traced_memory()[1] < 2_000_000  # two pages
    finally:
        tracemalloc.stop()


def planned_bytes(address, num_videos, monkeypatch):
    monkeypatch.setattr(listing, "open_store", lambda address: Store(address, Pages(num_videos), "bucket/v"))
    tracemalloc.start()
    try:
        items = plan_videos(address)
        assert len(items) == num_videos
        return tracemalloc.get_traced_memory()[1] / num_videos
    finally:
        tracemalloc.stop()


def test_a_planned_video_of_a_store_takes_no_more_than_one_of_the_disk(monkeypatch, tmp_path):
    local = [(tmp_path / f"{i % 100:02d}" / f"{i:07d}.mp4", False) for i in range(3000)]
    monkeypatch.setattr(plan, "_below", lambda top, search: iter(local))
    tracemalloc.start()
    try:
        local = [(tmp_path / f"{i % 100:02d}" / f"{i:07d}.mp4", False) for i in range(3000)]
        assert len(plan_videos(tmp_path)) == 3000
        most = tracemalloc.get_traced_memory()[1] / 3000
    finally:
        tracemalloc.stop()
    assert planned_bytes("s3://bucket/v/", 3000, monkeypatch) < most


MILLION = """
import resource
from test_remote import Pages
from featx.plan import plan_videos
from featx.remote import Store, listing
listing.open_store = lambda address: Store(address, Pages(1_000_000), "bucket/v")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert len(plan_videos("s3://bucket/v/")) == 1_000_000
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.long
def test_a_million_keys_are_planned_in_the_memory_of_their_rows():
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])]),
    }
    done = subprocess.run([sys.executable, "-c", MILLION], capture_output=True, text=True, env=environment)
    assert int(done.stdout) * 1024 < 500 * 1_000_000, done.stderr


def fetched(monkeypatch, tmp_path, data, trouble):
    store = Unreliable(data, trouble)
    monkeypatch.setattr(transfer, "open_store", lambda address: Store(address, store, "file"))
    monkeypatch.setattr(transfer, "BLOCK_BYTES", 10)
    sizes = []
    found = remote.fetch("s3://bucket/file", tmp_path / "got", sizes.append)
    return store, found, sizes, (tmp_path / "got").read_bytes()


def test_a_broken_transfer_is_tried_again_and_whole_or_an_error(monkeypatch, tmp_path):
    data = bytes(range(95))

    def breaks(store, number, block):
        if number in (3, 8):
            raise ConnectionError("reset by peer")
        return block

    store, found, sizes, got = fetched(monkeypatch, tmp_path, data, breaks)
    assert (got, found.size_bytes, sizes, store.num_opened) == (data, 95, [95, 95, 95], 3)
    for trouble, told in [
        (lambda store, number, block: b"" if number % 5 == 4 else block, "40 bytes came of 95"),
        (lambda store, number, block: block + b"more", "bytes came of 95"),
    ]:
        with pytest.raises(VideoError, match=f"in 3 tries: .*{told}"):
            fetched(monkeypatch, tmp_path, data, trouble)


def test_a_file_that_changes_while_it_is_fetched_is_refused(monkeypatch, tmp_path):
    def replaced(store, number, block):
        store.data = bytes(reversed(range(95)))  # as many bytes
        return block

    def expired(store, number, block):
        store.data = b"other"
        raise OSError(16, "The remote file no longer exists")

    for trouble in (replaced, expired):
        with pytest.raises(VideoError, match="changed while it was fetched; --retry-failed"):
            fetched(monkeypatch, tmp_path, bytes(range(95)), trouble)


def test_a_file_of_unknown_length_is_refused_and_one_that_is_denied_is_not_asked_for_again(monkeypatch, tmp_path):
    def denied(store, number, block):
        raise PermissionError("for https://host/a?Signature=00ff")

    with pytest.raises(VideoError, match="access is denied: for https://host/a$"):
        fetched(monkeypatch, tmp_path, b"12", denied)
    monkeypatch.setattr(Unreliable, "info", lambda self, path: {"name": path, "size": None})
    with pytest.raises(VideoError, match="does not say how long"):
        fetched(monkeypatch, tmp_path, b"12", lambda store, number, block: block)


def test_a_full_disk_of_ours_is_told_at_once_and_as_no_fault_of_the_file(monkeypatch, tmp_path):
    for folder in ("/dev/full", tmp_path / "absent/got"):
        (tmp_path / "got").unlink(missing_ok=True)
        (tmp_path / "got").symlink_to(folder)
        with pytest.raises(FeatxError, match="cannot be written .*; make room, .*; the same command goes on") as told:
            fetched(monkeypatch, tmp_path, b"12", lambda store, number, block: block)
        assert not isinstance(told.value, VideoError) and "tries" not in str(told.value)


def test_what_is_put_has_its_name_when_all_of_it_is_there(memory, monkeypatch, tmp_path):
    (tmp_path / "f.h5").write_bytes(b"all of it")
    names = []
    own_put = type(memory).put_file
    monkeypatch.setattr(
        type(memory), "put_file", lambda self, path, name: (names.append(name), own_put(self, path, name))
    )
    remote.put(tmp_path / "f.h5", "memory://store/f.h5")
    assert memory.cat_file("/store/f.h5") == b"all of it" and memory.find("/store") == ["/store/f.h5"]
    assert names and "/store/f.h5" not in names
    (tmp_path / "f.h5").write_bytes(b"another")
    monkeypatch.setattr(type(memory), "mv", lambda *_: (_ for _ in ()).throw(OSError("no room")))
    with pytest.raises(FeatxError, match="memory://store/f.h5 cannot be written: no room; what is finished is kept"):
        remote.put(tmp_path / "f.h5", "memory://store/f.h5")
    assert memory.cat_file("/store/f.h5") == b"all of it"


def test_segments_and_videos_of_a_store_belong_to_a_shard_by_their_keys():
    item = VideoItem("a/b", plan._unfetched("s3://bucket/a/b.mp4"), url="s3://bucket/a/b.mp4")
    assert shard_number(item.video_key, 7) == shard_number("a/b", 7)
