"""How a node comes among others, or stays alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edge_config.load import load
from node.meeting import met
from router.errors import StorageFault
from router.log_member import adopt
from router.register_wire import Certificate

if TYPE_CHECKING:
    from pathlib import Path

CERTIFICATE = Certificate("c0ffee", 64, 1, 3, 2, 1, b"p" * 32, b"g" * 32)


async def test_a_node_without_a_cluster_is_alone(tmp_path: Path) -> None:
    async with met(load(None, {}, {"node.data_dir": str(tmp_path)}), "a") as others:
        assert others is None


async def test_a_node_with_the_log_of_a_cluster_does_not_run_alone(tmp_path: Path) -> None:
    adopt(tmp_path, CERTIFICATE, durable=False)
    with pytest.raises(StorageFault, match="is of the cluster c0ffee"):
        async with met(load(None, {}, {"node.data_dir": str(tmp_path)}), "a"):
            raise AssertionError
