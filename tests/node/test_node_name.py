"""The name of a node that was given none: made with its data directory, and kept there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edge_config.schema import Config, Node
from node.app import _node_name
from router.errors import StorageFault

if TYPE_CHECKING:
    from pathlib import Path


def test_a_name_is_made_once_in_a_directory_that_is_not_there_yet(tmp_path: Path) -> None:
    config = Config(node=Node(data_dir=tmp_path / "new" / "data"))
    name = _node_name(config)
    assert name
    assert _node_name(config) == name
    assert _node_name(Config(node=Node(name="n1", data_dir=tmp_path / "other"))) == "n1"
    assert not (tmp_path / "other").exists()


def test_a_directory_that_can_not_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageFault, match=r"The data directory .*/file can't be used"):
        _node_name(Config(node=Node(data_dir=tmp_path / "file")))
