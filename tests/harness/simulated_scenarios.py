"""The failure cases of replication, each a script with noise around it; what must hold is compared all the time.

A script gets a mesh whose shard 0 is served and written to, and does to it what its name says.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypeAlias

from router.shard import ShardOptions
from tests.harness.simulated_mesh import Mesh
from tests.harness.simulated_storage import Violation
from tests.harness.simulated_weather import NOISE

if TYPE_CHECKING:
    from collections.abc import Callable

    from router.entry import Entry
    from tests.harness.simulated_member import Node
    from tests.harness.simulated_weather import Weather

Script: TypeAlias = "Callable[[Mesh], None]"

FAILOVER: Final = 8_000  # milliseconds in which a shard must be served again, with noise
CALM: Final = 8  # seconds after which all must be as it was
SCENARIOS: Final[dict[str, Scenario]] = {}


@dataclass(slots=True, frozen=True)
class Scenario:
    """A script, and what it is played on."""

    script: Script
    nodes: int
    copies: int
    writers: int
    weather: Weather

    def play(self, seed: int) -> Mesh:
        """Play it, and wait until all is calm.

        Raises:
            Violation: Something did not hold.
        """
        mesh = self.mesh(seed)
        self.run(mesh)
        return mesh

    def mesh(self, seed: int) -> Mesh:
        """The nodes and their surroundings, at the beginning."""
        options = ShardOptions(copies=self.copies, min_sync=2)
        return Mesh(random.Random(seed), nodes=self.nodes, options=options, weather=self.weather, writers=self.writers)

    def run(self, mesh: Mesh) -> None:
        """The script, and calm."""
        mesh.wait(lambda: len(mesh.ledger.rooms) > 0, 60_000, "a message is accepted")
        mesh.run_for(int(mesh.random.random() * 1000))
        self.script(mesh)
        mesh.calm(CALM)


def scenario(
    *, nodes: int = 3, copies: int = 2, writers: int = 2, weather: Weather = NOISE
) -> Callable[[Script], Script]:
    """What this function does is a scenario of its name."""

    def keep(script: Script) -> Script:
        SCENARIOS[script.__name__] = Scenario(script, nodes, copies, writers, weather)
        return script

    return keep


# -- what scripts are made of ------------------------------------------------------------------------------------


def primary_of(mesh: Mesh) -> Node:
    """Who serves now; time passes until somebody does."""
    mesh.wait(mesh.primary, FAILOVER, "somebody serves")
    node = mesh.primary()
    assert node is not None
    return node


def backup_of(mesh: Mesh) -> Node:
    """A member that is not primary."""
    mesh.wait(mesh.backups, FAILOVER, "there is a backup")
    return mesh.backups()[0]


def writes_go_on(mesh: Mesh, within: int = FAILOVER) -> int:
    """Messages are accepted again; gives after how long."""
    before = mesh.tally.acked
    return mesh.wait(lambda: mesh.tally.acked > before, within, "a message is accepted")


def nothing_is_accepted(mesh: Mesh, time: int) -> None:
    """Whoever answers now lies."""
    before = mesh.tally.acked
    mesh.run_for(time)
    if mesh.tally.acked > before:
        raise Violation(f"at {mesh.now}: a message was accepted by who can't know that it is committed")


def uncommitted_of(mesh: Mesh, node: Node) -> list[Entry]:
    """What is on a disk above all that is committed."""
    return node.disk.logs[0][len(mesh.ledger.truth[0]) :]


# -- nodes that end ----------------------------------------------------------------------------------------------


@scenario()
def primary_dies_before_the_backup_has_the_entry(mesh: Mesh) -> None:
    primary, backup = primary_of(mesh), backup_of(mesh)
    mesh.lose_register(60_000)
    mesh.network.cut(primary, backup, one_way=True)
    mesh.wait(lambda: uncommitted_of(mesh, primary), FAILOVER, "the primary alone has an entry")
    mesh.crash(primary)
    mesh.heal()
    writes_go_on(mesh)
    mesh.restart(primary)


@scenario(copies=3, weather=replace(NOISE, drop=0))
def primary_dies_after_the_backup_has_the_entry(mesh: Mesh) -> None:
    primary, backup = primary_of(mesh), mesh.backups()[-1]
    mesh.lose_register(60_000)  # so that the backup stays one
    mesh.network.cut(backup, primary, one_way=True)  # what is acknowledged never arrives
    mesh.wait(lambda: uncommitted_of(mesh, backup), FAILOVER, "the backup has an entry that is not committed")
    mesh.crash(primary)
    mesh.heal()
    writes_go_on(mesh)
    mesh.restart(primary)


@scenario()
def primary_dies_after_the_acknowledgement(mesh: Mesh) -> None:
    primary = primary_of(mesh)
    before = mesh.tally.acked
    mesh.wait(lambda: mesh.tally.acked > before, FAILOVER, "a message is acknowledged")
    mesh.crash(primary)
    writes_go_on(mesh)
    mesh.run_for(int(mesh.random.random() * 4000))
    mesh.restart(primary)


@scenario(weather=replace(NOISE, drop=0))
def a_message_is_sent_again_across_a_fail_over(mesh: Mesh) -> None:
    primary, backup = primary_of(mesh), backup_of(mesh)
    mesh.lose_register(60_000)
    mesh.network.cut(backup, primary, one_way=True)
    mesh.wait(lambda: uncommitted_of(mesh, backup), FAILOVER, "the backup has an entry that is not committed")
    entry = uncommitted_of(mesh, backup)[0]
    mesh.crash(primary)
    mesh.heal()
    writes_go_on(mesh)
    mesh.wait(lambda: all(writer.message.cmid != entry.cmid for writer in mesh.writers), FAILOVER, "it is accepted")
    places = [e.sequence for e in mesh.ledger.rooms[entry.room] if (e.sender, e.cmid) == (entry.sender, entry.cmid)]
    if places != [entry.sequence]:
        raise Violation(f"the message of {entry} has the places {places}")
    mesh.restart(primary)


@scenario()
def backup_dies(mesh: Mesh) -> None:
    backup = backup_of(mesh)
    mesh.crash(backup)
    writes_go_on(mesh)
    mesh.run_for(2000)
    mesh.restart(backup)


@scenario()
def all_nodes_die_at_once(mesh: Mesh) -> None:
    for node in mesh.nodes:
        mesh.crash(node)
    mesh.run_for(500)
    for node in mesh.nodes:
        mesh.restart(node)
    writes_go_on(mesh)


@scenario(weather=replace(NOISE, sync=200))
def the_power_goes_within_a_write(mesh: Mesh) -> None:
    for node in mesh.nodes:
        mesh.doom(node)
    mesh.wait(lambda: mesh.tally.counts["crashed"] >= 2, FAILOVER, "nodes crash within a write")
    writes_go_on(mesh, 15_000)


@scenario()
def a_wiped_disk_comes_back(mesh: Mesh) -> None:
    node = backup_of(mesh) if mesh.random.random() < 0.5 else primary_of(mesh)
    mesh.wait(lambda: mesh.may_wipe(node), FAILOVER, "there are copies enough")
    mesh.wipe(node)
    mesh.run_for(int(mesh.random.random() * 3000))
    mesh.restart(node)
    writes_go_on(mesh)


@scenario()
def nodes_are_restarted_one_after_the_other(mesh: Mesh) -> None:
    for node in list(mesh.nodes):
        mesh.crash(node)
        mesh.run_for(300 + int(mesh.random.random() * 700))
        mesh.restart(node)
        writes_go_on(mesh)
        mesh.run_for(1500)


@scenario(nodes=4, copies=3)
def a_shard_moves_to_other_nodes_under_load(mesh: Mesh) -> None:
    primary = primary_of(mesh)
    spare = next(node for node in mesh.nodes if node.member not in mesh.register.rows[0].members)
    leaver = backup_of(mesh)
    mesh.crash(leaver)
    writes_go_on(mesh)
    mesh.wait(lambda: spare in mesh.backups(), 2 * FAILOVER, "the learner is a member")
    mesh.crash(primary)
    writes_go_on(mesh)
    mesh.restart(leaver)
    mesh.restart(primary)


# -- the network -------------------------------------------------------------------------------------------------


@scenario()
def primary_and_backup_are_cut_and_both_reach_the_register(mesh: Mesh) -> None:
    primary, backup = primary_of(mesh), backup_of(mesh)
    mesh.network.cut(primary, backup)
    writes_go_on(mesh)
    mesh.run_for(3000)
    mesh.heal()


@scenario()
def the_primary_is_isolated_with_clients_attached(mesh: Mesh) -> None:
    primary = primary_of(mesh)
    mesh.isolate(primary)
    mesh.wait(lambda: mesh.primary() not in {None, primary}, FAILOVER, "another node serves")
    writes_go_on(mesh)
    mesh.run_for(2000)
    mesh.heal()
    writes_go_on(mesh)


@scenario()
def the_primary_is_not_heard(mesh: Mesh) -> None:
    primary = primary_of(mesh)
    for other in mesh.peers_of(primary):
        mesh.network.cut(primary, other, one_way=True)
    mesh.run_for(int(mesh.random.random() * 6000))
    writes_go_on(mesh)
    mesh.heal()


@scenario()
def the_primary_does_not_hear(mesh: Mesh) -> None:
    primary = primary_of(mesh)
    for other in mesh.peers_of(primary):
        mesh.network.cut(other, primary, one_way=True)
    mesh.run_for(int(mesh.random.random() * 6000))
    mesh.heal()
    writes_go_on(mesh)


@scenario(nodes=4, copies=3)
def every_link_fails_one_way_for_a_while(mesh: Mesh) -> None:
    for _ in range(12):
        one, other = mesh.random.sample(mesh.nodes, 2)
        mesh.network.cut(one, other, 200 + int(mesh.random.random() * 4000), one_way=True)
        mesh.run_for(500)
    mesh.heal()
    writes_go_on(mesh)


# -- time --------------------------------------------------------------------------------------------------------


@scenario()
def the_primary_sleeps(mesh: Mesh) -> None:
    primary = primary_of(mesh)
    time = 500 + int(mesh.random.random() ** 2 * 29_500)
    mesh.stop(primary, time)
    mesh.run_for(time)
    writes_go_on(mesh)


@scenario()
def clocks_jump(mesh: Mesh) -> None:
    for _ in range(4):
        for node in mesh.nodes:
            node.clock = int((mesh.random.random() - 0.5) * 10_000_000)
        writes_go_on(mesh)
        mesh.crash(primary_of(mesh))
        writes_go_on(mesh)
        for node in mesh.nodes:
            mesh.restart(node)


# -- disks -------------------------------------------------------------------------------------------------------


@scenario()
def the_primarys_disk_is_full(mesh: Mesh) -> None:
    primary = primary_of(mesh)
    mesh.fill(primary, int(mesh.random.random() * 3))
    mesh.wait(lambda: mesh.tally.counts["storage_full"], FAILOVER, "a submit is refused")
    mesh.run_for(2000)
    mesh.mend(primary)
    writes_go_on(mesh)


@scenario()
def a_backups_disk_is_full(mesh: Mesh) -> None:
    backup = backup_of(mesh)
    mesh.fill(backup, int(mesh.random.random() * 5))
    mesh.wait(lambda: backup.halted, FAILOVER, "the backup halts")
    writes_go_on(mesh)
    mesh.run_for(1000)
    if not backup.halted:
        raise Violation(f"{backup.name} goes on with a full disk")
    mesh.mend(backup)


@scenario()
def a_disk_is_slow(mesh: Mesh) -> None:
    node = backup_of(mesh) if mesh.random.random() < 0.5 else primary_of(mesh)
    mesh.slow(node, 6000)
    mesh.run_for(6000)
    writes_go_on(mesh)


@scenario()
def an_fsync_of_the_primary_fails(mesh: Mesh) -> None:
    primary = primary_of(mesh)
    mesh.fail(primary)
    mesh.wait(lambda: primary.halted, FAILOVER, "the primary halts")
    writes_go_on(mesh)
    if not primary.halted:
        raise Violation(f"{primary.name} goes on after an fsync failed")
    mesh.mend(primary)


@scenario()
def an_fsync_of_a_backup_fails(mesh: Mesh) -> None:
    backup = backup_of(mesh)
    mesh.fail(backup)
    mesh.wait(lambda: backup.halted, FAILOVER, "the backup halts")
    writes_go_on(mesh)
    mesh.mend(backup)


# -- the register ------------------------------------------------------------------------------------------------


@scenario()
def the_register_is_away_while_a_primary_dies(mesh: Mesh) -> None:
    primary = primary_of(mesh)
    mesh.lose_register(60_000)
    writes_go_on(mesh)  # it is off the path of messages
    mesh.crash(primary)
    mesh.run_for(500)
    nothing_is_accepted(mesh, 5000)
    mesh.heal()
    writes_go_on(mesh)
    mesh.restart(primary)


@scenario(weather=replace(NOISE, register_delay=700, register_drop=0.25, register_repeat=0.5))
def the_register_is_slow_and_does_not_answer(mesh: Mesh) -> None:
    primary = primary_of(mesh)
    mesh.crash(primary)
    writes_go_on(mesh, 30_000)
    mesh.restart(primary)
    mesh.run_for(3000)
    backups = mesh.backups()
    if backups:
        mesh.crash(backups[0])
    writes_go_on(mesh, 30_000)


@scenario(copies=3)
def the_register_is_restored_from_an_old_backup(mesh: Mesh) -> None:
    mesh.wait(lambda: len(mesh.backups()) == 2, FAILOVER, "there are three members")
    backup = dict(mesh.register.rows)
    lagging = mesh.random.choice(mesh.backups())  # this one will know nothing of what comes now
    mesh.crash(lagging)
    writes_go_on(mesh)
    mesh.run_for(1000 + int(mesh.random.random() * 3000))
    mesh.restore_register(backup)
    mesh.restart(lagging)
    lagging.learn(list(backup.values()))
    if mesh.random.random() < 0.5:
        mesh.crash(primary_of(mesh))
    mesh.run_for(8000)
    mesh.rebuild_register()
    for node in mesh.nodes:
        mesh.crash(node)
        mesh.restart(node)
    writes_go_on(mesh)


# -- what was said long ago --------------------------------------------------------------------------------------


@scenario(copies=3, writers=12)
def acknowledgements_arrive_in_a_later_tenure(mesh: Mesh) -> None:
    """Of what the second has acknowledged to the first, it gives a part up to the third, before it arrives."""
    mesh.wait(lambda: len(mesh.backups()) == 2, FAILOVER, "there are three members")
    first, (second, third) = primary_of(mesh), mesh.backups()
    network = mesh.network
    mesh.register_cuts.add(second.name)  # so that it does not promote itself
    network.record(second, first)
    network.cut(first, third)
    network.cut(second, third)
    mesh.run_for(300)
    for writer in mesh.writers:
        writer.leave()
    mesh.stop(first, 6000)
    network.heal()
    mesh.wait(lambda: mesh.primary() is third, 2 * FAILOVER, "the third serves")
    mesh.wait(lambda: len(mesh.backups()) == 2, 2 * FAILOVER, "the first is a member again")
    mesh.crash(third)
    mesh.wait(lambda: first.shards[0].sequencer is not None, 20_000, "the first takes over again")
    network.cut(first, second, one_way=True)
    network.replay()
    for writer in mesh.writers:
        writer.come()
    mesh.run_for(1000)
    mesh.heal()
    mesh.restart(third)
