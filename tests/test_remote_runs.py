"""Runs whose videos, and outputs, lie in stores: the same features as from the disk, bounded, gone on with, without secrets."""

from __future__ import annotations

import os
import shutil
import threading
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import write_noise_video
from stores import BUCKET, fill, s3_server
from test_cli import run

import featx
from featx import fetch_ahead, parts, remote, uploads
from featx.cli.extract import parts_line
from featx.errors import FeatxError, UsageError
from featx.remote import transfer

extract_to = partial(featx.extract_to, engine="torch", num_decoders=1)
FOLDER = f"s3://{BUCKET}/v/"
KEYS = ["a/0", "a/1", "a/2", "b/3", "b/4", "b/5"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder of six small videos, and the feature file of them."""
    folder = tmp_path_factory.mktemp("stores")
    for i, key in enumerate(KEYS):
        (folder / "v" / key).parent.mkdir(parents=True, exist_ok=True)
        write_noise_video(folder / f"v/{key}.mp4", 14 + 2 * i, seed=i)
    featx.extract_to(folder / "v", folder / "local.h5", engine="torch")
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch, s3_server(patch, tmp_path_factory.mktemp("aws")) as system:
        yield system


@pytest.fixture
def s3(made, server, monkeypatch, home):
    """The store, with the videos below v/ and nothing else."""
    monkeypatch.setattr(transfer, "PAUSES", (0.0, 0.0))
    with suppress(FileNotFoundError):
        server.rm(f"{BUCKET}/out", recursive=True)
    fill(server, made / "v", f"{BUCKET}/v")
    return server


def descriptors(path):
    with featx.open(path) as features:
        return features.keys, features.descriptors("pool5")


def assert_same_as_local(path, made):
    (keys, ours), (expected_keys, expected) = descriptors(path), descriptors(made / "local.h5")
    assert keys == expected_keys and np.array_equal(ours, expected)


def below(s3, prefix="out"):
    return sorted(name.removeprefix(f"{BUCKET}/") for name in s3.find(f"{BUCKET}/{prefix}"))


def test_videos_of_a_store_give_the_features_of_the_same_files(capsys, made, s3, tmp_path):
    output = tmp_path / "f.h5"
    command = ("extract", FOLDER, "-o", output, "--engine", "torch")
    code, out, err = run(capsys, *command, "--hash")
    assert code == 0 and "6 videos done" in out, err
    assert_same_as_local(output, made)
    assert [path.name for path in tmp_path.iterdir() if path.name != "home"] == ["f.h5"]
    with featx.open(output) as features:
        assert list(features.column("path")) == [f"{FOLDER}{key}.mp4" for key in KEYS]
        sizes = [(made / f"v/{key}.mp4").stat().st_size for key in KEYS]
        assert list(features.column("size_bytes")) == sizes and all(features.column("mtime_ns") > 0)
        assert all(len(sha256) == 64 for sha256 in features.column("sha256"))
    secrets = (os.environ["AWS_SECRET_ACCESS_KEY"], os.environ["AWS_ENDPOINT_URL"])
    assert not any(secret.encode() in output.read_bytes() for secret in secrets)
    s3.pipe_file(f"{BUCKET}/v/a/1.mp4", (made / "v/b/5.mp4").read_bytes())
    s3.pipe_file(f"{BUCKET}/v/b/9.mp4", (made / "v/a/0.mp4").read_bytes())
    again = extract_to(FOLDER, output, refresh=True)
    assert (again.num_videos, again.num_present, again.changed) == (2, 5, ["a/1"])
    s3.rm_file(f"{BUCKET}/v/b/9.mp4")


def test_what_was_fetched_never_takes_more_than_its_room(made, s3, tmp_path, monkeypatch):
    """Room for two of six videos, of which each waits in a batch for the next: nothing stands still."""
    sizes = [(made / f"v/{key}.mp4").stat().st_size for key in KEYS]
    limit, most = 2 * max(sizes), []
    own_write = transfer._Written._write

    def measured(self, block):
        own_write(self, block)
        there = [path.stat().st_size for path in self._target.parent.iterdir() if path.exists()]
        most.append(sum(there))

    monkeypatch.setattr(transfer._Written, "_write", measured)
    left = tmp_path / "cache/featx-run-kill_run"
    (left / "videos").mkdir(parents=True)
    (left / "videos/video.mp4").write_bytes(b"half")
    (left / ".lock").touch()
    output = tmp_path / "f.h5"
    done = extract_to(FOLDER, output, cache=tmp_path / "cache", cache_bytes=limit, batch_size=8, num_decoders=2)
    assert done.num_videos == 6 and 0 < max(most) <= limit
    assert list((tmp_path / "cache").iterdir()) == []
    small = extract_to(FOLDER, tmp_path / "g.h5", cache_bytes=max(sizes) - 1)
    (failure,) = small.failures
    assert small.num_videos == 5 and f"has {max(sizes):,} bytes, more than" in failure.reason
    assert "--cache-size" in failure.reason and failure.size_bytes == max(sizes)


def test_an_output_in_a_store_is_there_whole_and_alone(capsys, made, s3, home):
    address = f"s3://{BUCKET}/out/f.h5"
    code, out, err = run(capsys, "extract", FOLDER, "-o", address, "--engine", "torch")
    assert code == 0 and out.splitlines()[-1].startswith(f"{address}: 6 videos done"), err
    assert below(s3) == ["out/f.h5"] and not list((home / "outputs").iterdir())
    s3.get_file(f"{BUCKET}/out/f.h5", str(home / "got.h5"))
    assert_same_as_local(home / "got.h5", made)
    code, out, _ = run(capsys, "extract", FOLDER, "-o", address, "--engine", "torch")
    assert code == 0 and f"{address} holds 6 of 6 videos" in out and "nothing to do" in out
    code, _, err = run(capsys, "extract", FOLDER, "-o", address, "--stride", "4")
    assert code == 2 and f"stride is 8 in {address}" in err and str(home) not in err
    assert below(s3) == ["out/f.h5", "out/f.h5.parts/writer"]  # as it was, though a run had begun
    s3.pipe_file(f"{BUCKET}/out/notes.h5", b"no feature file")
    with pytest.raises(UsageError, match=f"s3://{BUCKET}/out/notes.h5 exists and is not an HDF5 file"):
        extract_to(FOLDER, f"s3://{BUCKET}/out/notes.h5", overwrite=True)
    assert s3.cat_file(f"{BUCKET}/out/notes.h5") == b"no feature file"


class Killed(BaseException):
    """A run ends here, as if by kill -9: nothing of it is tidied."""


def killed_after(num_parts, monkeypatch, write=uploads.RemoteOutput.write):
    """A run that is gone once so many parts were uploaded; at what time it writes a part is set to every video."""
    monkeypatch.setattr(parts, "PART_SECONDS", 0.0)
    count = []

    def counted(self, leaving=()):
        if len(count) >= num_parts:
            raise Killed
        write(self, leaving)
        count.append(1)

    monkeypatch.setattr(uploads.RemoteOutput, "write", counted)


def test_a_killed_run_goes_on_here_and_on_another_machine(made, s3, home, monkeypatch, tmp_path):
    address = f"s3://{BUCKET}/out/f.h5"
    with monkeypatch.context() as patch:
        killed_after(2, patch)
        with pytest.raises(Killed):
            extract_to(FOLDER, address)
    there = below(s3)
    assert "out/f.h5" not in there and "out/f.h5.parts/part-00000000.h5" in there and there[-1].endswith("writer")
    local = {path.name for path in (home / "outputs").rglob("part-*.h5")}
    assert len(local) > len(there) - 1  # the part in flight when it was killed
    with monkeypatch.context() as patch:
        patch.setenv("FEATX_HOME", str(tmp_path / "other"))  # another machine
        done = extract_to(FOLDER, address)
    assert done.num_present >= 2 and done.num_present + done.num_videos == 6
    assert below(s3) == ["out/f.h5"]
    s3.get_file(f"{BUCKET}/out/f.h5", str(tmp_path / "got.h5"))
    assert_same_as_local(tmp_path / "got.h5", made)
    notes = []
    assert extract_to(FOLDER, address, on_note=notes.append).num_present == 6
    assert [note for note in notes if f"{address} was written elsewhere meanwhile" in note]


def test_a_run_goes_on_here_with_what_was_not_yet_uploaded(made, s3, monkeypatch):
    address = f"s3://{BUCKET}/out/g.h5"
    with monkeypatch.context() as patch:
        killed_after(1, patch)
        with pytest.raises(Killed):
            extract_to(FOLDER, address)
    num_there = len([name for name in below(s3) if "/part-" in name])
    notes = []
    done = extract_to(FOLDER, address, on_note=notes.append)
    assert done.num_present > num_there and not any("elsewhere" in note for note in notes)
    assert below(s3) == ["out/g.h5"]


@pytest.mark.parametrize("finished", [True, False])
def test_what_was_deleted_here_is_not_deleted_in_the_store(made, s3, home, monkeypatch, tmp_path, finished):
    """Somebody makes room in the folder of caches between two runs, of which the second is of other videos."""
    address = f"s3://{BUCKET}/out/f.h5"
    if finished:
        extract_to(FOLDER + "a/", address)
        with uploads.RemoteOutput(address, None, print):  # a run that begins to go on, and ends
            pass
    else:
        with monkeypatch.context() as patch:
            killed_after(2, patch)
            with pytest.raises(Killed):
                extract_to(FOLDER + "a/", address)
    for path in (home / "outputs").rglob("*.h5"):
        path.unlink()
    before = below(s3)
    assert sum(name.endswith(".h5") for name in before) >= 1
    with uploads.RemoteOutput(address, None, print) as place:
        place.write()
        assert below(s3) == before
    done = extract_to(FOLDER + "b/", address)
    assert done.num_videos == 3 and below(s3) == ["out/f.h5"]
    s3.get_file(f"{BUCKET}/out/f.h5", str(tmp_path / "got.h5"))
    with featx.open(tmp_path / "got.h5") as features:
        assert len(features) >= 5


def test_a_run_that_is_just_ending_still_holds_its_output(tmp_path, monkeypatch):
    own_flock = uploads.fcntl.flock

    def flock(descriptor, operation):
        own_flock(descriptor, operation)
        if (tmp_path / "outputs").exists():
            shutil.rmtree(tmp_path / "outputs")  # by the other run, which then let go

    monkeypatch.setattr(uploads.fcntl, "flock", flock)
    output = uploads.RemoteOutput("memory://store/f.h5", tmp_path, print)
    with pytest.raises(UsageError, match="another run is writing memory://store/f.h5"), output:
        pass


def test_a_bucket_that_does_not_exist_is_told_before_anything_is_extracted(capsys, made, s3, home):
    code, _, err = run(capsys, "extract", FOLDER, "-o", "s3://absent/f.h5")
    assert code == 2 and "s3://absent/f.h5 cannot be written: its store has no such bucket; make it first" in err
    code, _, err = run(capsys, "extract", "s3://absent/v/", "-o", home / "f.h5")
    assert code == 2 and "s3://absent/v/ cannot be listed: there is no such thing" in err


def test_a_store_that_does_not_answer_is_not_taken_for_an_empty_one(made, s3, monkeypatch):
    """The output would be begun anew, and at the end replaced."""
    address = f"s3://{BUCKET}/out/f.h5"
    s3.pipe_file(f"{BUCKET}/out/f.h5", b"of a week")
    monkeypatch.setattr(remote.Store, "look", lambda self: (_ for _ in ()).throw(OSError("no answer")))
    monkeypatch.setattr(type(s3), "exists", lambda *_, **__: False)  # as many of fsspec's file systems answer then
    with pytest.raises(FeatxError, match=f"{address} cannot be read: no answer"):
        extract_to(FOLDER, address)
    assert below(s3) == ["out/f.h5"] and s3.cat_file(f"{BUCKET}/out/f.h5") == b"of a week"


def test_two_runs_of_one_output_do_not_mix(made, s3, home, monkeypatch, tmp_path):
    address = f"s3://{BUCKET}/out/f.h5"
    with uploads.RemoteOutput(address, None, print) as first:
        with pytest.raises(UsageError, match=f"another run is writing {address}"):
            extract_to(FOLDER, address)
        done = extract_to(FOLDER, address, cache=tmp_path)  # as on another machine
        assert done.num_videos == 6
        first.output.write_bytes(b"other")
        with pytest.raises(FeatxError, match="another run, which was started after this one"):
            first.write()
    assert s3.info(f"{BUCKET}/out/f.h5")["size"] > 1000


def test_an_upload_that_fails_ends_the_run_and_nothing_is_lost(made, s3, monkeypatch):
    address = f"s3://{BUCKET}/out/f.h5"

    async def refused(*_, **__):
        raise OSError("the store is full")

    with monkeypatch.context() as patch:
        patch.setattr(type(s3), "_put_file", refused)
        type(s3).clear_instance_cache()  # the next one is made of the class as it now is
        with pytest.raises(
            FeatxError, match=r"cannot be written: the store is full; what is finished is kept on this disk"
        ):
            extract_to(FOLDER, address)
    type(s3).clear_instance_cache()
    assert below(s3) == ["out/f.h5.parts/writer"]
    done = extract_to(FOLDER, address)
    assert done.num_present >= 1 and done.num_present + done.num_videos == 6 and below(s3) == ["out/f.h5"]


@pytest.fixture
def web(made):
    """A web server that shows its folders as pages of links, and wants a token below /v/b/ where `token` is set."""

    class Handler(SimpleHTTPRequestHandler):
        def send_head(self):
            token = self.server.token
            if token and self.headers.get("Authorization") != token:
                return self.send_error(403)
            return super().send_head()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=made)) as server:
        server.token = ""
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_a_folder_of_a_web_server_is_listed_where_the_server_lists(capsys, made, web, tmp_path, monkeypatch):
    pytest.importorskip("aiohttp", reason="the package aiohttp is not installed")
    address = f"http://127.0.0.1:{web.server_port}/v/"
    code, _, err = run(capsys, "extract", address, "-o", tmp_path / "f.h5")
    assert code == 2 and "--allow-urls" in err
    assert extract_to(address, tmp_path / "f.h5", allow_urls=True).num_videos == 6
    assert_same_as_local(tmp_path / "f.h5", made)
    with pytest.raises(UsageError, match="cannot be listed: .*--list"):
        extract_to(address + "absent/", tmp_path / "g.h5", allow_urls=True)
    web.token = "Bearer 00ff"
    with pytest.raises(UsageError, match="cannot be listed"):
        extract_to(address, tmp_path / "g.h5", allow_urls=True)
    import fsspec

    monkeypatch.setitem(fsspec.config.conf, "http", {"headers": {"Authorization": web.token}})
    assert remote.has_settings(address)
    assert extract_to(address + "b/", tmp_path / "g.h5", allow_urls=True).num_videos == 3
    assert b"00ff" not in (tmp_path / "g.h5").read_bytes()


def test_transfers_under_way_do_not_fill_the_disk_together(tmp_path, monkeypatch):
    """Each alone would find room, of which the others have not yet taken theirs."""
    free = fetch_ahead.SPARE_BYTES + 100
    monkeypatch.setattr(fetch_ahead.shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))
    room = fetch_ahead._Room(tmp_path, 1000, lambda: (_ for _ in ()).throw(remote.Stop))
    room.take(tmp_path / "a", 60)
    with pytest.raises(remote.Stop):  # it would wait
        room.take(tmp_path / "b", 60)
    room.take(tmp_path / "c", 40)
    (tmp_path / "a.part").write_bytes(bytes(60))
    free -= 60
    room.drop(tmp_path / "c")
    room.take(tmp_path / "c", 40)
    with pytest.raises(remote.Stop):
        room.take(tmp_path / "b", 1)


def test_what_a_web_server_shows_is_a_key_only_below_its_folder(monkeypatch):
    address, names = "https://host/v/", ["a.mp4", "%2e%2e/b.mp4", ".c.mp4", "%2Ed.mp4", "e%2e%2e/f.mp4", "g%2Emp4"]
    found = [{"name": address + name, "size": None, "type": "file"} for name in names]
    store = remote.Store(address, SimpleNamespace(ls=lambda folder, detail: found), address)
    monkeypatch.setattr(remote.listing, "open_store", lambda address: store)
    assert [each.relative for each in remote.videos_below(address)] == ["a.mp4", "e../f.mp4", "g.mp4"]


def test_fetching_ahead_ends_with_the_run_and_tells_what_nobody_foresaw(tmp_path, monkeypatch):
    item = featx.plan.VideoItem("a", featx.plan._unfetched("memory://a.mp4"), url="memory://a.mp4")
    ahead = fetch_ahead.FetchAhead(tmp_path / "f", 1000)
    monkeypatch.setattr(fetch_ahead.remote, "fetch", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        list(ahead.fetched([item]))
    ahead.close()
    assert not (tmp_path / "f").exists()


@pytest.mark.parametrize(
    ("output", "command"),
    [("out/f.h5", "'featx merge out/f.h5 -o out/f.h5'"), ("s3://b/out/f.h5", "'featx merge f.h5 -o f.h5'")],
)
def test_the_advised_merge_is_of_files_of_the_disk(output, command, capsys):
    line = parts_line(output, 3)
    assert line.startswith(f"3 new parts lie in {output}.parts and are read with the file; ") and command in line
    code, _, err = run(capsys, "merge", "s3://b/out/f.h5", "-o", "s3://b/out/f.h5")
    assert code == 2 and "s3://b/out/f.h5" in err  # what must not be advised
