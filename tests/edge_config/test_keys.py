"""Keys of nodes: as ZeroMQ writes them, in files that nobody else reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st
from zmq.utils import z85

from edge_config.keys import (
    ALLOWED_FILE,
    SECRET_FILE,
    KeyFault,
    decode_key,
    encode_key,
    new_pair,
    pair_of,
    read_allowed,
    read_pair,
    written_allowed,
    written_pair,
)

if TYPE_CHECKING:
    from pathlib import Path


def test_a_new_pair_is_one_to_zeromq() -> None:
    pair = new_pair()
    assert zmq.curve_public(pair.secret.reveal().encode()) == pair.public
    assert pair.public[:1].isalnum()


def test_a_pair_of_zeromq_is_one_here() -> None:
    public, secret = zmq.curve_keypair()
    assert pair_of(secret.decode()).public == public


def test_a_secret_is_not_shown() -> None:
    pair = new_pair()
    assert pair.secret.reveal() not in repr(pair)


@given(st.binary(min_size=32, max_size=32))
def test_keys_are_written_as_zeromq_writes_them(key: bytes) -> None:
    assert encode_key(key) == z85.encode(key)
    assert decode_key(encode_key(key)) == decode_key(encode_key(key).decode()) == key


@pytest.mark.parametrize("text", ["", "x" * 39, "x" * 41, "x" * 39 + " ", "x" * 39 + '"', "#####" * 8, "é" * 20])
def test_what_is_no_key_is_not_taken_for_one(text: str) -> None:
    with pytest.raises(ValueError, match="not a key"):
        decode_key(text)


def write_secret(folder: Path, content: bytes, mode: int = 0o600) -> None:
    (folder / SECRET_FILE).touch()
    (folder / SECRET_FILE).chmod(mode)
    (folder / SECRET_FILE).write_bytes(content)


def test_a_pair_that_was_written_is_read(tmp_path: Path) -> None:
    pair = new_pair()
    write_secret(tmp_path, written_pair(pair))
    assert read_pair(tmp_path) == pair


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_a_secret_that_others_may_read_is_not_used(tmp_path: Path, mode: int) -> None:
    write_secret(tmp_path, written_pair(new_pair()), mode)
    with pytest.raises(KeyFault, match=f"chmod 600 {tmp_path / SECRET_FILE}"):
        read_pair(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"secret = 7", b"secret =", b'secret = "short"', b'private = "x"', b"\xff\xfe", bytes(1 << 21)]
)
def test_a_file_without_a_secret_is_named_and_not_shown(tmp_path: Path, content: bytes) -> None:
    write_secret(tmp_path, content)
    with pytest.raises(KeyFault, match=str(tmp_path / SECRET_FILE)) as caught:
        read_pair(tmp_path)
    assert "short" not in str(caught.value)


def test_no_file_is_no_pair_and_nobody_allowed(tmp_path: Path) -> None:
    with pytest.raises(KeyFault, match="chat-node keys new"):
        read_pair(tmp_path)
    assert read_allowed(tmp_path) == {}


def test_a_directory_in_the_files_place_is_said(tmp_path: Path) -> None:
    (tmp_path / ALLOWED_FILE).mkdir()
    with pytest.raises(KeyFault, match="Is a directory"):
        read_allowed(tmp_path)


def test_a_list_that_was_written_is_read(tmp_path: Path) -> None:
    allowed = {"eu-1": new_pair().public, "us_1": new_pair().public, "3": new_pair().public}
    (tmp_path / ALLOWED_FILE).write_bytes(written_allowed(allowed))
    assert read_allowed(tmp_path) == allowed
    (tmp_path / ALLOWED_FILE).write_bytes(written_allowed({}))
    assert read_allowed(tmp_path) == {}


def test_a_list_is_taken_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    key, other = new_pair().public.decode(), new_pair().public.decode()
    for text, said in {
        f'eu = "{key}"\nus = "{key}"': "eu and us have the same key",
        f'eu = "{key}"\neu = "{other}"': "is not as chat-node keys writes it",
        f'eu = "{key}"\nus = "nonsense"': "given for us is no public key",
        f'eu = "{key}"\nus = 7': "given for us is no public key",
        f'eu = "{key}"\n"u s" = "{other}"': "'u s' is no node's name",
    }.items():
        (tmp_path / ALLOWED_FILE).write_text(text)
        with pytest.raises(KeyFault, match=said):
            read_allowed(tmp_path)
