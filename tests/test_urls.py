"""Addresses as videos: refused unless allowed, fetched whole or a failed video, never a short one. All on 127.0.0.1."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from test_cli import run

import featx
from featx import fetch_ahead
from featx.checkpoints import download
from featx.errors import FeatxError, UsageError, VideoError
from featx.features import Features
from featx.interrupt import Interrupts
from featx.plan import VideoItem
from featx.run import extract_to
from featx.urls import UrlVideos


@pytest.fixture
def server(clips_folder):
    """/whole.mp4, and what a bad server or network makes of it; counts the requests."""
    data = (clips_folder / "dog/000.mp4").read_bytes()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.asked += 1
            if self.path.startswith("/redirect"):
                self.send_response(302)
                self.send_header("Location", "http://a..b/x.mp4" if "astray" in self.path else "file:///etc/passwd")
                self.end_headers()
                return
            self.send_response(404 if "absent" in self.path else 200)
            self.send_header("Content-Type", "video/mp4")
            if "unknown" not in self.path:
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2] if "cut" in self.path else data)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.asked = 0
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_an_address_is_refused_unless_it_is_allowed(capsys, server, clips_folder, tmp_path):
    url = f"http://127.0.0.1:{server.server_port}/whole.mp4"
    (tmp_path / "list.txt").write_text(f"{clips_folder}/dog/000.mp4\n{url}\n")
    for inputs in ([url], ["--list", tmp_path / "list.txt"]):
        for command in (["extract", "-o", tmp_path / "f.h5"], ["classify"]):
            code, _, err = run(capsys, *command, *inputs)
            assert code == 2 and f"{url} is an address" in err and "--allow-urls" in err
    for other in ("ftp://a/b.mp4", "file:///etc/passwd", "rtsp://a/b", "http:///x.mp4", "http://u:p@h/x.mp4"):
        with pytest.raises(UsageError, match="only http and https|password"):
            featx.extract_to(other, tmp_path / "f.h5", allow_urls=True)
    assert server.asked == 0 and [p.name for p in tmp_path.iterdir()] == ["list.txt"]


def test_what_is_fetched_is_whole_or_a_failed_video(server, clips_folder, tmp_path):
    host = f"127.0.0.1:{server.server_port}"
    names = ["whole.mp4", "cut.mp4", "absent.mp4", "unknown.mp4", "redirect.mp4"]
    (tmp_path / "list.txt").write_text("\n".join(f"http://{host}/{name}" for name in names))
    output, one = tmp_path / "f.h5", clips_folder / "dog/001.avi"
    summary = featx.extract_to(one, output, lists=[tmp_path / "list.txt"], allow_urls=True, content_hash=True)
    reasons = {failure.key: failure.reason for failure in summary.failures}
    assert reasons.keys() == {f"{host}/{name[:-4]}" for name in names[1:]} and summary.num_videos == 2
    assert "cannot be fetched" in reasons[f"{host}/cut"] and "404" in reasons[f"{host}/absent"]
    assert "how long" in reasons[f"{host}/unknown"] and "only http and https" in reasons[f"{host}/redirect"]
    with featx.open(output) as features:
        ours, file = features[f"{host}/whole"], featx.extract(clips_folder / "dog/000.mp4")
        assert np.array_equal(ours.descriptors["pool5"], file.descriptors["pool5"])
        assert (ours.path, ours.mtime_ns, len(ours.sha256)) == (f"http://{host}/whole.mp4", 0, 64)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f.h5", "list.txt"]
    asked = server.asked
    again = featx.extract_to(one, output, lists=[tmp_path / "list.txt"], allow_urls=True)
    assert (again.num_present, len(again.failed_before), server.asked) == (2, 4, asked)


def test_what_no_address_may_hold_is_sent_as_it_must_be_and_no_secret_is_written(server, clips_folder, tmp_path):
    host = f"127.0.0.1:{server.server_port}"
    names = [
        "whole é.mp4",
        "absent b.mp4?token=00ff",
        "absent c.mp4?x='y'&token=00ff",
        "redirect-astray.mp4?token=00ff",
    ]
    (tmp_path / "list.txt").write_text("\n".join(f"http://{host}/{name}" for name in names))
    summary = featx.extract_to([], tmp_path / "f.h5", lists=[tmp_path / "list.txt"], allow_urls=True)
    assert summary.num_videos == 1 and len(summary.failures) == 3
    assert all("cannot be fetched" in failure.reason for failure in summary.failures)
    assert "00ff" not in str(summary) and b"00ff" not in (tmp_path / "f.h5").read_bytes()
    with featx.open(tmp_path / "f.h5") as features:
        assert features.keys == [f"{host}/whole é"]
    for wrong in ("http://[::1/a.mp4?token=00ff", "http://a..b/a.mp4?token=00ff"):
        with pytest.raises(UsageError, match="is no address: .*; correct it") as told:
            featx.extract_to(wrong, tmp_path / "g.h5", allow_urls=True)
        assert "00ff" not in str(told.value)


def test_the_first_that_cannot_be_fetched_ends_a_run_that_stops_at_errors(server, tmp_path):
    urls = [f"http://127.0.0.1:{server.server_port}/absent{i:03d}.mp4" for i in range(300)]
    (tmp_path / "list.txt").write_text("\n".join(urls))
    notes, options = [], {"lists": [tmp_path / "list.txt"], "allow_urls": True, "on_error": "stop"}
    summary = featx.extract_to([], tmp_path / "f.h5", on_note=notes.append, **options)
    assert len(summary.failures) == 1 and "--on-error stop" in notes[-1]
    assert server.asked <= fetch_ahead.MAX_READY + 2 * fetch_ahead.NUM_FETCHERS


@pytest.mark.parametrize("how", ["no room", "no room for its length", "cannot be written"])
def test_a_full_disk_of_this_machine_is_no_fault_of_a_video(server, tmp_path, monkeypatch, how):
    """It is an error that ends the run, and once there is room the video is fetched."""
    url = f"http://127.0.0.1:{server.server_port}/whole.mp4"

    def full(*args):
        raise download.OwnDiskError("no room", 10**18) if "length" in how else OSError(errno.ENOSPC, "No space left")

    with monkeypatch.context() as patch:
        if how == "no room":
            patch.setattr(fetch_ahead, "SPARE_BYTES", 10**18)
        else:
            patch.setattr(download, "_require_room", full)
        item = VideoItem("v", Path("whole.mp4"), url=url)
        with pytest.raises(FeatxError, match="where fetched files lie, .*; the same command goes on") as told:
            list(fetch_ahead.FetchAhead(tmp_path / "fetched", 2 * 10**18).fetched([item]))
        assert not isinstance(told.value, VideoError)
        assert ("No space left" in str(told.value)) == (how == "cannot be written")
        assert ("1,000,000,000,000,000,000 bytes" in str(told.value)) == ("length" in how)
    (fetched,) = fetch_ahead.FetchAhead(tmp_path / "fetched", 2 * 10**18).fetched([item])
    assert fetched.item.path.exists()


def test_classify_takes_addresses_too(capsys, server, clips_folder):
    url = f"http://127.0.0.1:{server.server_port}/whole.mp4"
    code, out, _ = run(capsys, "classify", url, "--allow-urls", "--top", "1")
    own = run(capsys, "classify", clips_folder / "dog/000.mp4", "--top", "1")[1]
    assert code == 0 and out.splitlines()[1] == own.splitlines()[1]


def test_a_file_that_is_called_as_an_address_ends_is_another_video(server, clips_folder, tmp_path, monkeypatch):
    host, output, notes = f"http://127.0.0.1:{server.server_port}", tmp_path / "f.h5", []
    urls = [f"{host}/whole.mp4", f"{host}/absent.mp4"]
    featx.extract_to(urls, output, allow_urls=True, content_hash=True)
    for name in ("whole.mp4", "absent.mp4"):
        (tmp_path / name).write_bytes((clips_folder / "dog/001.avi").read_bytes())
    monkeypatch.chdir(tmp_path)
    asked = server.asked
    for content_hash in (False, True):
        again = featx.extract_to(urls, output, allow_urls=True, content_hash=content_hash, on_note=notes.append)
        assert (again.changed, again.num_present, len(again.failed_before)) == ([], 1, 1)
    assert server.asked == asked and not notes
    assert len(featx.extract_to(urls, output, allow_urls=True, retry_failed=True).failures) == 1
    assert server.asked > asked


def test_a_fetched_file_goes_alone_with_the_hash_of_what_was_fetched(server, tmp_path):
    url = f"http://127.0.0.1:{server.server_port}/whole?id=3&X-Amz-Signature=0123"
    items = [VideoItem(f"v{number}", Path("whole"), url=url) for number in range(12)]
    videos = UrlVideos(tmp_path / "fetched", content_hash=True)
    files = {item.key: item.path for item in videos.local(items)}
    assert files.keys() == {item.key for item in items} and len(set(files.values())) == 12
    expected = hashlib.sha256(files["v1"].read_bytes()).hexdigest()
    made = Features("v1", str(files["v1"]), 1, 1, 25.0, 1.0, 1, 1)
    results = videos.results([made, replace(made, key="v2"), replace(made, key="v3")])
    files["v2"].unlink()  # as whoever has decoded it does
    for key in ("v1", "v2"):
        result = next(results)
        assert (result.key, result.sha256, result.mtime_ns) == (key, expected, 0)
        assert result.path == url.partition("&")[0]  # the signature is nobody's business
    assert not files["v1"].exists() and all(files[f"v{number}"].exists() for number in (0, 3, 11))
    results.close()
    assert not (tmp_path / "fetched").exists()


def test_a_signal_does_not_wait_for_a_server(tmp_path):
    release = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            self.wfile.write(b"a few bytes")
            if not release.is_set():  # else it is asked a second time, when the run has ended
                os.kill(os.getpid(), signal.SIGINT)
            release.wait(60)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/z.mp4"
        with Interrupts() as interrupts:
            summary = extract_to(url, tmp_path / "f.h5", allow_urls=True, interrupts=interrupts)
        assert summary.exit_code == 130 and not summary.failures and not release.is_set()
        release.set()
        for fetcher in [thread for thread in threading.enumerate() if thread.name == "featx-fetch"]:
            fetcher.join(60)
            assert fetcher.daemon and not fetcher.is_alive()
        assert not list(tmp_path.iterdir())
        server.shutdown()
