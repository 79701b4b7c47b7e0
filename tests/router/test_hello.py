"""A node's introduction, as bytes that any version can begin to read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.hello import MAX_HELLO, Hello, Versions, read_hello, read_versions

NAMES = st.from_regex(r"[A-Za-z0-9_.-]{1,64}", fullmatch=True)
HELLOS = st.builds(
    Hello,
    st.tuples(st.integers(1, 65_535), st.integers(1, 65_535)).map(lambda pair: Versions(min(pair), max(pair))),
    st.integers(0, 65_535), st.integers(0, 65_535), NAMES, NAMES,
    st.from_regex(r"[A-Za-z0-9_-]{1,32}", fullmatch=True),
)  # fmt: skip


@given(HELLOS)
def test_what_was_written_is_read(hello: Hello) -> None:
    data = hello.encoded()
    assert len(data) <= MAX_HELLO
    assert read_hello(data) == hello
    assert read_versions(data) == hello.versions


@given(st.binary(max_size=300))
def test_any_bytes_are_a_hello_or_none(data: bytes) -> None:
    assert read_hello(data) is None or read_versions(data) is not None


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\0\0\0\0\x01", b"cn", b"cn/1", b"cn/1-1", b"cn/0-1/0/0/a/b/s", b"cn/2-1/0/0/a/b/s",
        b"cn/1-65536/0/0/a/b/s", b"cn/1-999999/0/0/a/b/s", b"cx/1-1/0/0/a/b/s", b" cn/1-1/0/0/a/b/s",
        b"cn/1-1/0/0/a/b/s" + b"/" * 240,
    ],
)  # fmt: skip
def test_it_is_none_to_any_version(data: bytes) -> None:
    assert read_versions(data) is None
    assert read_hello(data) is None


@pytest.mark.parametrize(
    "data",
    [
        b"cn/1-1/", b"cn/1-1/0/0/a/b", b"cn/1-1/0/0//b/s", b"cn/1-1/0/0/a//s", b"cn/1-1/0/0/a/b/", b"cn/1-1/x/0/a/b/s",
        b"cn/1-1/0/65536/a/b/s", b"cn/1-1/65536/0/a/b/s", b"cn/1-1/0/0/a b/c/s", b"cn/1-1/0/0/\xc3\xa9/b/s",
        b"cn/1-1/0/0/a/b/s\n", b"cn/7-9/whatever a later version says",
    ],
)  # fmt: skip
def test_a_form_of_another_version_shows_only_its_versions(data: bytes) -> None:
    assert read_hello(data) is None
    assert read_versions(data) is not None


def test_what_a_later_version_adds_is_ignored() -> None:
    assert read_hello(b"cn/1-4/2/7401/eu-1/b00t/s3cret/and more") == Hello(
        Versions(1, 4), 2, 7401, "eu-1", "b00t", "s3cret"
    )


@pytest.mark.parametrize(
    ("ours", "theirs", "common"),
    [
        ((1, 1), (1, 1), 1), ((1, 3), (2, 5), 3), ((2, 5), (1, 3), 3), ((1, 9), (4, 4), 4), ((1, 1), (2, 2), None),
        ((5, 7), (1, 4), None),
    ],
)  # fmt: skip
def test_the_newest_common_version_is_spoken(
    ours: tuple[int, int], theirs: tuple[int, int], common: int | None
) -> None:
    assert Versions(*ours).common(Versions(*theirs)) == common


@pytest.mark.parametrize("node", ["", "a/b", "ä", "a" * 65, "a\n"])
def test_a_name_that_is_none_is_not_written(node: str) -> None:
    with pytest.raises(ValueError, match="letters"):
        Hello(Versions(1, 1), 0, 0, node, "boot", "secret").encoded()
