"""The page: a template, its style and its programs, filled with data so that nothing in the data can become any of them."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Iterator, Mapping
from importlib import resources

from featx.errors import one_line

__all__ = ["SCRIPTS", "page_text"]

# in the order in which they are joined into one program
SCRIPTS = ("data.js", "text.js", "overview.js", "map.js", "details.js", "gallery.js", "main.js")
CHUNK_VIDEOS = 64  # thumbnails in a block, which the page takes apart when one of them comes into view
ROOM = "%%{}%%"


def page_text(title: str, data: Mapping[str, object], pictures: Mapping[int, bytes]) -> Iterator[str]:
    """The page in pieces, to be joined. `data` is what JSON can hold; `pictures`: video -> a WebP or JPEG file.

    Data stand in script blocks that no browser runs, as ASCII JSON without "<", and as base64. The policy in the page's
    head allows exactly the style and the program that are ours, by their hashes, pictures that the page makes itself,
    and no network at all.
    """
    style, program = _read("page.css"), _program()
    data = dict(data) | {"pictures": _picture_sizes(pictures), "chunk_videos": CHUNK_VIDEOS}
    policy = (
        f"default-src 'none'; script-src '{_hash(program)}'; style-src '{_hash(style)}'; img-src blob:; "
        "base-uri 'none'; form-action 'none'"
    )
    rooms = {
        "policy": html.escape(policy),
        "title": html.escape(one_line(title)),
        "style": style,
        "data": _json(data),
        "program": program,
    }
    head, tail = _read("page.html").split(ROOM.format("pictures"))
    yield _fill(head, rooms)
    yield from _picture_blocks(pictures)
    yield tail


def _fill(text: str, rooms: Mapping[str, str]) -> str:
    """Put each text into its room, in one pass: what is put in is not searched again."""
    pieces = text.split("%%")  # text, name, text, name, ... text
    return "".join(rooms[piece] if i % 2 else piece for i, piece in enumerate(pieces))


def _program() -> str:
    return '"use strict";\n(() => {\n' + "\n".join(_read(name) for name in SCRIPTS) + "})();\n"


def _read(name: str) -> str:
    return resources.files("featx.report").joinpath("page", name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """What a Content-Security-Policy calls the text of a style or script element."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _json(value: object) -> str:
    """ASCII JSON in which no "<" can end, or begin, anything."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _picture_sizes(pictures: Mapping[int, bytes]) -> list[list[int]]:
    """[video, bytes] of each picture, in the order in which they stand in the blocks."""
    return [[video, len(pictures[video])] for video in sorted(pictures)]


def _picture_blocks(pictures: Mapping[int, bytes]) -> Iterator[str]:
    videos = sorted(pictures)
    for number, start in enumerate(range(0, len(videos), CHUNK_VIDEOS)):
        data = b"".join(pictures[video] for video in videos[start : start + CHUNK_VIDEOS])
        yield f'<script type="text/plain" id="pictures-{number}">{base64.b64encode(data).decode()}</script>\n'
