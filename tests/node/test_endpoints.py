"""Where a node listens, as the command line finds it."""

from pathlib import Path

import pytest

from node import endpoints
from node.endpoints import Endpoints

HERE = Endpoints(node="n1", pid=1, public="http://127.0.0.1:8000", internal="http://127.0.0.1:9000")


def test_what_was_written_is_read(tmp_path: Path) -> None:
    endpoints.write(tmp_path, HERE)
    assert endpoints.read(tmp_path) == HERE
    assert [path.name for path in tmp_path.iterdir()] == [endpoints.FILE_NAME]


@pytest.mark.parametrize("content", [None, b"", b"{}", b"\xff", b'{"node": 1}'])
def test_what_can_not_be_read_is_not_known(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / endpoints.FILE_NAME).write_bytes(content)
    assert endpoints.read(tmp_path) is None


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://[::1]:80"),
        ("::1", "http://[::1]:80"),
        ("chat.example", "http://chat.example:80"),
    ],
)
def test_a_url_is_one_that_can_be_opened(host: str, expected: str) -> None:
    assert endpoints.url("http", host, 80) == expected
