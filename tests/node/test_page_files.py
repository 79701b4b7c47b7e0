"""The page's files as they are served."""

import gzip
from pathlib import Path

from node.page import PageFile, load_page, media_type


def test_files_are_known_by_their_path_and_the_index_by_the_root(tmp_path: Path) -> None:
    (tmp_path / "icons").mkdir()
    (tmp_path / "index.html").write_text("<h1>Chat</h1>")
    (tmp_path / "app.js").write_text("chat()")
    (tmp_path / "icons" / "icon.svg").write_text("<svg/>")
    (tmp_path / ".made-from").write_text("secret")
    page = load_page(tmp_path)
    assert set(page) == {"/", "/index.html", "/app.js", "/icons/icon.svg"}
    assert page["/"] is page["/index.html"]


def test_without_a_built_page_there_are_no_files(tmp_path: Path) -> None:
    assert load_page(tmp_path / "dist") == {}


def test_types_do_not_depend_on_the_machine() -> None:
    names = ("index.html", "app.js", "style.css", "icon.svg", "font.woff2", "unknown.x-y-z")
    assert [media_type(name) for name in names] == [
        "text/html; charset=utf-8",
        "text/javascript; charset=utf-8",
        "text/css; charset=utf-8",
        "image/svg+xml",
        "font/woff2",
        "application/octet-stream",
    ]


def test_only_what_shrinks_is_packed() -> None:
    text = b"chat " * 1000
    packed = PageFile.of("app.js", text).packed
    assert packed is not None
    assert gzip.decompress(packed) == text
    assert PageFile.of("small.js", b"chat()").packed is None
    assert PageFile.of("noise.png", gzip.compress(bytes(range(256)) * 40)).packed is None


def test_tags_follow_the_content() -> None:
    one, two, same = (PageFile.of("app.js", body) for body in (b"1", b"2", b"1"))
    assert one.tag == same.tag != two.tag
    assert one.tag.startswith('"')
    assert one.tag.endswith('"')
