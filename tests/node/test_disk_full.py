"""A node whose disk is full, or fails: it takes no messages, says so, keeps what it acknowledged, and can be mended."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.harness.chat_socket import connected
from tests.harness.node_process import NodeProcess, Ready, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.harness.chat_socket import ChatSocket

DISK_BYTES: Final = 16 << 20
FULL_SHARE: Final = 0.9  # of the disk; the log takes nothing from 0.85 on
CHUNK_BYTES: Final = 4096
TEMPORARY: Final = 100
MANY: Final = 600
WHOLE_PAGE: Final = "x" * 4096  # a message that does not fit into what the log's files have left

FAILING_DISK: Final = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static int failing(void) { return access(getenv("FAILING_DISK"), F_OK) == 0; }

#define FAIL_IF_TOLD(name)                                        \\
    int name(int fd) {                                            \\
        if (failing()) { errno = EIO; return -1; }                \\
        return ((int (*)(int))dlsym(RTLD_NEXT, #name))(fd);       \\
    }
FAIL_IF_TOLD(fsync)
FAIL_IF_TOLD(fdatasync)
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk, in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ("mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder))
    done = subprocess.run(mount, check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a small disk can't be mounted; run as root where mounts are permitted: {done.stderr.strip()}")
    yield folder
    subprocess.run(("umount", str(folder)), check=True)


def fill(disk: Path, share: float) -> Path:
    """Take up the disk to this share; gives the file that does."""
    ballast = disk / "ballast"
    space = os.statvfs(disk)
    size = int(space.f_bavail * space.f_frsize - (1 - share) * space.f_blocks * space.f_frsize)
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while size > 0 or share == 1:
            size -= file.write(bytes(CHUNK_BYTES))
    return ballast


def acknowledged(client: ChatSocket, first: int, last: int) -> list[tuple[int, str]]:
    """Publish messages, all of which are acknowledged; gives what the history holds of them."""
    for number in range(first, last + 1):
        reply = client.publish("room", f"m{number}")
        assert "publish" in reply, reply
    return [(number, f"m{number}") for number in range(first, last + 1)]


def is_temporary(reply: dict[str, Any]) -> bool:
    return bool(reply.get("error", {}).get("code") == TEMPORARY and reply["error"]["temporary"])


def wait_status(node: NodeProcess, status: str) -> Ready:
    """Wait until the node says this of itself."""

    def found() -> Ready | None:
        ready = node.ready()
        return ready if ready.status == status else None

    return wait_for(f"the node is {status!r}", found)


@pytest.mark.slow
def test_a_disk_that_fills_up_stops_messages_of_an_idle_node_until_there_is_room(tmp_path: Path, disk: Path) -> None:
    node = NodeProcess(tmp_path, data_dir=disk / "data")
    with node, connected(node.url, "ann") as client:
        kept = acknowledged(client, 1, 5)
        ballast = fill(disk, FULL_SHARE)
        assert wait_status(node, "log full").code == 503
        refused = client.publish("room", "m6")
        assert is_temporary(refused)
        verdict, text = node.verdict()
        assert verdict == 2
        assert "the log is full, no message is taken: the disk is nearly full: free space" in text
        assert client.history("room") == kept

        ballast.unlink()
        assert wait_status(node, "ready").code == 200
        assert client.history("room") == kept
        kept += acknowledged(client, 6, 8)
        node.restart()
        with connected(node.url, "bob") as other:
            assert other.history("room") == kept
            assert "publish" in other.publish("room", "m9")


@pytest.mark.slow
def test_a_disk_without_any_room_halts_the_log_until_a_restart_with_room(tmp_path: Path, disk: Path) -> None:
    node = NodeProcess(tmp_path, data_dir=disk / "data")
    with node, connected(node.url, "ann") as client:
        kept = acknowledged(client, 1, 5)
        ballast = fill(disk, 1)
        taken = 0
        while "publish" in (reply := client.publish("room", f"m{6 + taken}", WHOLE_PAGE)):
            taken += 1
            kept.append((5 + taken, f"m{5 + taken}"))
        assert is_temporary(reply)
        assert wait_status(node, "log halted").code == 503
        verdict, text = node.verdict()
        assert verdict == 2
        assert "the log has halted, no message is taken" in text
        assert "is full. Free space on it, then restart the node." in text
        (line,) = node.lines("log halted")
        assert (line["level"], line["reason"]) == ("error", "full")
        assert client.history("room") == kept
        with pytest.raises(RuntimeError) as refused:
            node.restart()
        assert "ended with status 1" in str(refused.value)
        assert str(refused.value).rstrip().endswith("is full. Free space on it, then restart the node.")
        assert "Traceback" not in str(refused.value)

        ballast.unlink()
        node.start()
        with connected(node.url, "ann") as again:
            assert "publish" in again.publish("room", f"m{6 + taken}", WHOLE_PAGE)
            assert again.history("room") == [*kept, (6 + taken, f"m{6 + taken}")]


@pytest.mark.slow
def test_a_log_that_passes_its_bound_forgets_its_oldest_messages(tmp_path: Path) -> None:
    bound = 2 << 20
    node = NodeProcess(tmp_path, environment={"CHAT_NODE_LOG__RETENTION_BYTES": str(bound)})
    with node, connected(node.url, "ann") as client:
        for number in range(1, MANY + 1):
            assert "publish" in client.publish("room", f"m{number}", WHOLE_PAGE * 2)
        assert MANY * 2 * len(WHOLE_PAGE) > 2 * bound

        def shrunk() -> list[tuple[int, str]] | None:
            history = client.history("room")  # it comes in pages, between which more may be forgotten
            whole = [(number, f"m{number}") for number in range(history[0][0], MANY + 1)]
            return history if history == whole and len(history) * 2 * len(WHOLE_PAGE) < bound else None

        kept = wait_for("the oldest messages are forgotten, and only they", shrunk)
        node.restart()
        with connected(node.url, "bob") as other:
            assert other.history("room")[-len(kept) // 2 :] == kept[-len(kept) // 2 :]
            assert other.publish("room", "more")["publish"] is not None
            assert other.history("room")[-1] == (MANY + 1, "more")


@pytest.fixture(scope="session")
def failing_disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that makes fsync fail while the file exists that `FAILING_DISK` names."""
    folder = tmp_path_factory.mktemp("shim")
    source, library = folder / "failing_disk.c", folder / "failing_disk.so"
    source.write_text(FAILING_DISK)
    subprocess.run(("gcc", "-Wall", "-Werror", "-shared", "-fPIC", "-o", library, source), check=True)
    return library


@pytest.mark.slow
def test_a_failing_fsync_halts_the_log_and_nothing_is_acknowledged_after_it(tmp_path: Path, failing_disk: Path) -> None:
    broken = tmp_path / "broken"
    node = NodeProcess(tmp_path, environment={"LD_PRELOAD": str(failing_disk), "FAILING_DISK": str(broken)})
    with node, connected(node.url, "ann") as client:
        kept = acknowledged(client, 1, 5)
        broken.touch()
        assert is_temporary(client.publish("room", "m6"))
        assert wait_status(node, "log halted").code == 503
        verdict, text = node.verdict()
        assert verdict == 2
        assert "can't be written or read" in text
        assert "Look at the disk (`dmesg`), then restart the node." in text
        broken.unlink()
        assert is_temporary(client.publish("room", "m7"))
        assert client.history("room") == kept

        node.restart()
        with connected(node.url, "ann") as again:
            assert "publish" in again.publish("room", "m6")
            assert again.history("room")[: len(kept)] == kept
            assert [name for _, name in again.history("room")].count("m6") == 1
