"""Downloads against a server on 127.0.0.1 that resumes, truncates, corrupts, redirects, and changes its mind."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

import featx
from featx.checkpoints import download as module
from featx.checkpoints.download import download
from featx.errors import CheckpointError

CONTENT = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server:
    """`answer(handler)` answers the next request, the last one all further ones; `ranges` are the Range headers seen."""

    def __init__(self, *answers: Callable) -> None:
        self.answers, self.requests = list(answers), []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.requests.append((self.path, self.headers.get("Range"), self.headers.get("If-Range")))
                answer = server.answers.pop(0) if len(server.answers) > 1 else server.answers[0]
                answer(self)

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/w.pth"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def ranges(self):
        return [each for _, each, _ in self.requests]


def headers(handler, status, **fields):
    handler.send_response(status)
    for name, value in fields.items():
        handler.send_header(name.replace("_", "-"), str(value))
    handler.end_headers()


def file(content=CONTENT, etag='"one"', ranges=True, cut=None, claim=None):
    """Serve a file as an ordinary server does; `cut` ends the connection after so many bytes in all."""

    def answer(handler):
        asked, if_range = handler.headers.get("Range"), handler.headers.get("If-Range")
        start = 0
        if ranges and asked and if_range in (None, etag):
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                return headers(handler, 416, Content_Range=f"bytes */{len(content)}", Content_Length=0)
            headers(
                handler,
                206,
                ETag=etag,
                Content_Length=len(content) - start,
                Content_Range=f"bytes {start}-{len(content) - 1}/{len(content)}",
            )
        else:
            extra = {"ETag": etag} if etag else {}
            headers(handler, 200, Content_Length=claim or len(content), **extra)
        handler.wfile.write(content[start:cut])

    return answer


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    servers = []

    def start(*answers):
        servers.append(Server(*answers))
        return servers[-1]

    yield start
    for each in servers:
        each.server.shutdown()
        each.server.server_close()


@pytest.fixture
def target(tmp_path):
    return tmp_path / "downloads" / "w.pth"


def left(target):
    """Names in the folder, and nothing is ever left in the working one."""
    return sorted(path.name for path in target.parent.iterdir()) if target.parent.exists() else []


def test_a_file_arrives_whole_and_checked(serve, target):
    server, seen = serve(file()), []
    download(server.url, target, sha256_prefix=SHA256[:8], on_progress=lambda *numbers: seen.append(numbers))
    assert target.read_bytes() == CONTENT and left(target) == ["w.pth"]
    assert seen[0] == (0, len(CONTENT)) and seen[-1] == (len(CONTENT), len(CONTENT))
    assert seen == sorted(seen) and server.ranges == [None]


def test_a_broken_transfer_goes_on_in_the_same_call(serve, target):
    server = serve(file(cut=100_000), file(cut=250_000), file())
    download(server.url, target, sha256_prefix=SHA256)
    assert target.read_bytes() == CONTENT and left(target) == ["w.pth"]
    assert server.requests[1][1:] == ("bytes=100000-", '"one"')
    assert server.ranges == [None, "bytes=100000-", "bytes=250000-"]


def test_what_came_is_kept_for_the_next_call(serve, target):
    server = serve(file(cut=100_000), lambda handler: headers(handler, 503, Content_Length=0))
    with pytest.raises(CheckpointError, match=r"503 .* after 100,000 bytes, which are kept: the same command goes on"):
        download(server.url, target)
    assert left(target) == ["w.pth.part", "w.pth.part.json"] and not target.exists()
    server.answers, seen = [file()], []
    download(server.url, target, sha256_prefix=SHA256, on_progress=lambda *numbers: seen.append(numbers))
    assert target.read_bytes() == CONTENT and left(target) == ["w.pth"]
    assert server.ranges[-1] == "bytes=100000-" and seen[0] == (100_000, len(CONTENT))


def test_a_server_that_breaks_at_the_same_place_for_ever(serve, target):
    server = serve(file(cut=100_000))
    with pytest.raises(CheckpointError, match="the connection ended at 100,000 of 300,000 bytes"):
        download(server.url, target)
    assert len(server.requests) == 2  # the second brought nothing


OTHER = np.random.default_rng(1).bytes(300_000)


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        pytest.param(file(OTHER, '"two"'), OTHER, id="sends the whole new file"),
        pytest.param(file(OTHER, '"two"', ranges=False), OTHER, id="ignores ranges"),
        pytest.param(file(OTHER[:50_000], '"two"'), OTHER[:50_000], id="shorter than the part"),
        pytest.param(
            lambda handler: (
                headers(handler, 206, ETag='"two"', Content_Length=200_000, Content_Range="bytes 100000-299999/300000"),
                handler.wfile.write(OTHER[100_000:]),
            ),
            OTHER,
            id="goes on with the new file in the middle",
        ),
        pytest.param(
            lambda handler: (
                headers(handler, 206, ETag='"one"', Content_Length=300_000, Content_Range="bytes 0-299999/300000"),
                handler.wfile.write(OTHER),
            ),
            OTHER,
            id="another range than asked for",
        ),
    ],
)
def test_a_file_that_changed_between_two_tries(second, expected, serve, target):
    server = serve(file(cut=100_000), second, file(OTHER, '"two"'))
    download(server.url, target)
    assert target.read_bytes() == expected and left(target) == ["w.pth"]
    assert server.ranges[1] == "bytes=100000-"


def test_a_part_is_not_continued_without_proof_that_it_is_the_same_file(serve, target):
    """A server without ETag and date: the part is of no use."""
    server = serve(file(cut=100_000, etag=""), file(OTHER, etag=""))
    download(server.url, target)
    assert target.read_bytes() == OTHER and server.ranges == [None, None]


@pytest.mark.parametrize(
    "fields", [{}, {"ETag": '"two"'}, {"Last_Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}], ids=["none", "other", "date"]
)
def test_a_range_that_does_not_repeat_the_etag_is_no_proof(fields, serve, target):
    """As of a server that knows Range, but not If-Range, and whose file has changed."""

    def blind(handler):
        headers(handler, 206, Content_Length=200_000, Content_Range="bytes 100000-299999/300000", **fields)
        handler.wfile.write(OTHER[100_000:])

    server = serve(file(cut=100_000), blind, file(OTHER, '"two"'))
    download(server.url, target)
    assert target.read_bytes() == OTHER and server.ranges == [None, "bytes=100000-", None]


def test_a_part_of_another_url_is_not_continued(serve, target):
    first = serve(file(cut=100_000), lambda handler: headers(handler, 500, Content_Length=0))
    with pytest.raises(CheckpointError):
        download(first.url, target)
    second = serve(file(OTHER))
    download(second.url, target)
    assert target.read_bytes() == OTHER and second.ranges == [None]


def test_a_part_whose_record_is_damaged_is_not_continued(serve, target):
    target.parent.mkdir()
    target.with_name("w.pth.part").write_bytes(b"x" * 1000)
    for text in ("", "[]", '{"url": 3, "colour": 4}'):
        target.with_name("w.pth.part.json").write_text(text)
        server = serve(file())
        download(server.url, target)
        assert target.read_bytes() == CONTENT and server.ranges == [None]


def test_a_whole_part_needs_no_request(serve, target):
    server = serve(file())
    target.parent.mkdir()
    target.with_name("w.pth.part").write_bytes(CONTENT)
    record = {"url": server.url, "etag": '"one"', "last_modified": "", "num_bytes": len(CONTENT)}
    target.with_name("w.pth.part.json").write_text(json.dumps(record))
    download(server.url, target, sha256_prefix=SHA256)
    assert target.read_bytes() == CONTENT and server.requests == []


@pytest.mark.parametrize("hashes", [{"sha256_prefix": "00000000"}, {"sha1": "0" * 40}])
def test_a_corrupt_file_is_thrown_away(hashes, serve, target):
    server = serve(file())
    with pytest.raises(CheckpointError, match=r"gave a file with SHA.*, not.* 0000.*; it was thrown away"):
        download(server.url, target, **hashes)
    assert left(target) == []
    download(server.url, target, sha1=hashlib.sha1(CONTENT).hexdigest())
    assert target.read_bytes() == CONTENT


def test_a_corrupt_first_half_is_fetched_again(serve, target):
    server = serve(file(bytes(300_000), cut=100_000), lambda handler: headers(handler, 500, Content_Length=0))
    with pytest.raises(CheckpointError):
        download(server.url, target)
    server.answers = [file()]
    download(server.url, target, sha256_prefix=SHA256)
    assert target.read_bytes() == CONTENT and server.ranges[-2:] == ["bytes=100000-", None]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(status, serve, target):
    server = serve(lambda handler: headers(handler, status, Location="/elsewhere", Content_Length=0), file(cut=100_000))
    server.answers += [server.answers[0], file()]
    download(server.url, target, sha256_prefix=SHA256)
    assert target.read_bytes() == CONTENT
    assert [path for path, *_ in server.requests] == ["/w.pth", "/elsewhere"] * 2
    assert server.ranges == [None, None, "bytes=100000-", "bytes=100000-"]


@pytest.mark.parametrize("place", ["file:///etc/passwd", "ftp://127.0.0.1/w.pth", "data:text/plain,x"])
def test_redirects_to_other_schemes_are_refused(place, serve, target):
    server = serve(lambda handler: headers(handler, 302, Location=place, Content_Length=0))
    with pytest.raises(CheckpointError, match="but only http and https are read"):
        download(server.url, target)
    assert left(target) == [] and len(server.requests) == 1


@pytest.mark.parametrize("place", ["http://[portal/", f"http://{'x' * 70}.com/", "http://h:port/w.pth"])
def test_addresses_that_cannot_be(place, serve, target):
    server = serve(lambda handler: headers(handler, 302, Location=place, Content_Length=0))
    for url in (server.url, place):
        with pytest.raises(CheckpointError, match="possible address|cannot be fetched") as error:
            download(url, target)
        assert left(target) == [] and "\n" not in str(error.value)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x", "/etc/passwd", "data:,x"])
def test_other_schemes_are_refused(url, target):
    with pytest.raises(CheckpointError, match=r"is asked for, but only http and https are read"):
        download(url, target)
    assert left(target) == []


def test_redirects_from_https_to_http_are_refused():
    request = module.urllib.request.Request("https://host/w.pth")
    with pytest.raises(CheckpointError, match="redirects from https to http://host/w"):
        module._Redirects().redirect_request(request, None, 302, "", {}, "http://host/w")
    assert (
        module._Redirects().redirect_request(request, None, 302, "", {}, "https://other/w").full_url
        == "https://other/w"
    )


def test_a_circle_of_redirects_ends(serve, target):
    server = serve(lambda handler: headers(handler, 302, Location="/w.pth", Content_Length=0))
    with pytest.raises(CheckpointError, match="redirects in a circle or astray"):
        download(server.url, target)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            lambda handler: headers(handler, 404, Content_Length=0),
            "the server says 404 Not Found.*; the file may have moved",
        ),
        (lambda handler: headers(handler, 403, Content_Length=0), "the server says 403"),
        (lambda handler: headers(handler, 500, Content_Length=0), "the server says 500 .*; try again later"),
        (lambda handler: headers(handler, 200, Content_Type="text/html", Content_Length=0), "a web page, not a file"),
        (lambda handler: headers(handler, 200, Content_Encoding="gzip", Content_Length=0), "encoded as 'gzip'"),
        (lambda handler: headers(handler, 200, Content_Length=1 << 40), "which is taken for an error"),
        (lambda handler: handler.wfile.write(b"nonsense\r\n\r\n"), "cannot be fetched"),
        (lambda handler: None, "cannot be fetched"),
    ],
)
def test_answers_that_are_no_file(answer, message, serve, target):
    server = serve(answer)
    with pytest.raises(CheckpointError, match=message) as error:
        download(server.url, target)
    assert server.url in str(error.value) and "\n" not in str(error.value)
    assert left(target) == []


def test_a_disk_without_room(serve, target, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(
        CheckpointError, match=r"needs 300,000 bytes more, but .* has 1,000; make room, or set \$FEATX_HOME"
    ):
        download(serve(file()).url, target)


def test_a_folder_that_cannot_be_written(serve, tmp_path):
    (tmp_path / "home").write_text("a file")
    with pytest.raises(CheckpointError, match=r"cannot be written .*; make room, or set \$FEATX_HOME"):
        download(serve(file()).url, tmp_path / "home" / "w.pth")


def test_a_server_that_does_not_answer(serve, target):
    done = threading.Event()
    server = serve(lambda handler: done.wait(10))
    try:
        with pytest.raises(CheckpointError, match="the server does not answer in time"):
            download(server.url, target, timeout_seconds=0.05)
    finally:
        done.set()
    with socket.socket() as unused:  # bound, but nobody listens
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(CheckpointError, match="refused"):
            download(f"http://127.0.0.1:{unused.getsockname()[1]}/w.pth", target)


def test_a_file_without_a_length(serve, target):
    def answer(handler):
        headers(handler, 200)
        handler.wfile.write(CONTENT)

    seen = []
    download(serve(answer).url, target, sha256_prefix=SHA256, on_progress=lambda *numbers: seen.append(numbers))
    assert target.read_bytes() == CONTENT and seen[-1] == (len(CONTENT), None)


@pytest.mark.parametrize("end", [b"", b"1", b"100\r\nhalf a chunk"])
def test_a_chunked_file_without_its_end_is_a_broken_transfer(end, serve, target):
    def answer(handler):
        handler.protocol_version = "HTTP/1.1"
        headers(handler, 200, Transfer_Encoding="chunked")
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(CONTENT), CONTENT) + end)
        handler.close_connection = True

    server = serve(answer)
    with pytest.raises(CheckpointError, match="the connection ended early|attempts"):
        download(server.url, target, need_length=True)
    assert not target.exists()
    server.answers = [lambda handler: (answer(handler), handler.wfile.write(b"0\r\n\r\n"))]
    if not end:
        download(server.url, target, need_length=True)
        assert target.read_bytes() == CONTENT


def test_a_server_that_drips_is_left(serve, target, monkeypatch):
    class Dripping:
        def __init__(self, num_bytes, seconds):
            self.num_bytes, self.seconds, self.num_left = num_bytes, seconds, 1000

        def read1(self, limit):
            clock[0] += self.seconds
            self.num_left -= 1
            return bytes(self.num_bytes) if self.num_left else b""

    clock = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    received = []
    with pytest.raises(module._Slow, match="only 7 bytes came in 70 s"):
        received.extend(module._blocks(Dripping(1, 10.0), 30.0))
    assert received == [b"\0"] * 7
    assert len(list(module._blocks(Dripping(1 << 15, 29.0), 30.0))) == 999  # slow, but not too slow
    with pytest.raises(
        module._Slow, match="in 90 s"
    ):  # a suspended process sees longer waits, which count as a timeout
        list(module._blocks(Dripping(1, 1e6), 30.0))
    monkeypatch.undo()

    def slow(*args):
        yield CONTENT[:1000]
        raise module._Slow("only 1,000 bytes came in 70 s")

    monkeypatch.setattr(module, "_blocks", slow)
    monkeypatch.setenv("no_proxy", "*")
    server = serve(file())
    with pytest.raises(CheckpointError, match="only 1,000 bytes came"):
        download(server.url, target)
    assert server.ranges == [None]  # and not asked again


def test_progress_is_told_at_every_piece(serve, target):
    """So that who asks for an end at a piece has it soon: a block of BLOCK_BYTES is not waited for."""
    go_on = threading.Event()

    def answer(handler):
        headers(handler, 200, Content_Length=len(CONTENT))
        handler.wfile.write(CONTENT[:10])
        assert go_on.wait(60)
        handler.wfile.write(CONTENT[10:])

    server = serve(answer)
    download(server.url, target, on_progress=lambda num_bytes, total: num_bytes and go_on.set())
    assert target.read_bytes() == CONTENT


def test_a_server_that_never_ends(serve, target, monkeypatch):
    monkeypatch.setattr(module, "MAX_BYTES", 100_000)

    def answer(handler):
        headers(handler, 200)
        handler.wfile.write(CONTENT)

    with pytest.raises(
        CheckpointError, match="gives more than 100,000 bytes, which is taken for an error; it was stopped"
    ):
        download(serve(answer).url, target)


def test_two_processes_do_not_write_one_part(serve, target):
    messages = []

    def meanwhile(handler):
        with pytest.raises(CheckpointError) as error:
            download(server.url, target)
        messages.append(str(error.value))
        file()(handler)

    server = serve(meanwhile)
    download(server.url, target)
    assert messages == ["w.pth is being fetched by another process; wait for it"]
    assert target.read_bytes() == CONTENT


def test_a_whole_file_that_a_killed_run_left_is_not_fetched_again(serve, target):
    server = serve(file(), file())
    download(server.url, target, sha256_prefix=SHA256)
    download(server.url, target, sha256_prefix=SHA256)
    assert len(server.requests) == 1
    target.write_bytes(b"x" + CONTENT[1:])
    download(server.url, target, sha256_prefix=SHA256)
    assert len(server.requests) == 2 and target.read_bytes() == CONTENT and left(target) == ["w.pth"]


KILLED = """
import sys
from pathlib import Path
from featx.checkpoints.download import download
def told(size, total):
    if size > 100_000: print(size, flush=True); sys.stdin.read()
download(sys.argv[1], Path(sys.argv[2]), on_progress=told)
"""


def test_a_killed_transfer_goes_on_where_it_was(serve, target):
    server = serve(file(), file())
    environment = {**os.environ, "PYTHONPATH": str(Path(featx.__file__).parents[1])}
    program = [sys.executable, "-c", KILLED, server.url, str(target)]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as child:
        came = int(child.stdout.readline())
        child.kill()
    download(server.url, target, sha256_prefix=SHA256)
    kept = int(server.ranges[1].removeprefix("bytes=").removesuffix("-"))
    assert came - 2**18 <= kept <= came and target.read_bytes() == CONTENT and left(target) == ["w.pth"]
