"""The composition of a node, and the order in which its parts start and end.

Storage is opened first and closed last; then router and gateway, then the hub, then HTTP. SIGTERM and SIGINT drain:
clients are sent away in groups, what was accepted is answered, and the log is closed; the second one stops at once.
"""

from __future__ import annotations

import gc
import os
import secrets
import signal
import socket
import sys
import time
import uuid
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from edge_config.api import read_api_keys
from edge_config.kinds import RoomKind, Schema
from edge_config.schema import Durability
from node import descriptors, endpoints, http, site_watch
from node.admission import Admission
from node.api import Api
from node.api_desk import Desk
from node.api_document import document
from node.api_keys import SiteKeys, configured
from node.api_methods import Methods, World
from node.attending import Attending
from node.auth import Authenticator
from node.codes import DisconnectCode
from node.endpoints import Endpoints
from node.fallbacks import Fallbacks
from node.faults import NodeFault
from node.framing import WEB_SOCKET_BINARY, WEB_SOCKET_TEXT, Wire
from node.gateway import Gateway
from node.http_server import HttpServer
from node.hub import Hub, HubOptions
from node.jwks import KeySets
from node.listening import open_listeners
from node.logs import events
from node.meeting import met
from node.mesh_view import MeshView
from node.metrics import Build, Metrics, scraper
from node.neighbours import Neighbours
from node.origins import Pages
from node.protobuf import ProtobufCodec
from node.protocol import JsonCodec
from node.ratelimit import Throttle
from node.session import Session
from node.session_options import SessionOptions
from node.site_watch import SiteWatch
from node.status import LogState, State
from node.tls import Certificates
from node.upgrade import PROTOBUF
from node.version import VERSION
from node.vitals import Condition, Vitals, watched_gc
from node.webhooks import Webhooks
from router.effects import ClusterOptions
from router.errors import StorageFault
from router.log import Log, LogOptions
from router.mesh import MeshRouter
from router.retention import Keep
from router.runtime import Router
from router.shard import ShardOptions

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge_config.schema import Config
    from node.connection import Connection
    from node.connection import Session as AnySession
    from node.meeting import Met
    from node.origins import Arrival
    from router.ids import RoomId

SWITCH_SECONDS: Final = 1e-4  # the log's thread would starve beside a busy loop with the default of 5 ms
HOUSEKEEPING_SECONDS: Final = 1.0
RETENTION_SECONDS: Final = 60.0
DAY_SECONDS: Final = 86_400

log = events(__name__)


async def run(config: Config, *, task_status: trio.TaskStatus[Endpoints]) -> None:
    """Run a node until it is told to stop.

    Raises:
        NodeFault, RouterError: It can't start.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    enough = descriptors.connections_within(descriptors.raise_limit())
    most = config.limits.connections or enough
    wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    node = _node_name(config)
    async with met(config, node) as others:
        await _run(config, node, wake, most, others, task_status)


async def _run(  # noqa: PLR0913, PLR0917 - what is known before the log is opened
    config: Config, node: str, wake: int, most: int, others: Met | None, task_status: trio.TaskStatus[Endpoints]
) -> None:
    data_dir = config.node.data_dir
    store = await trio.to_thread.run_sync(
        partial(Log.open, data_dir, _log_options(config, others), partial(os.eventfd_write, wake, 1))
    )
    try:
        metrics = Metrics()
        with watched_gc(metrics.gc_pause_seconds):
            await _serve(config, node, store, wake, metrics, most, others, task_status)
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(store.close)
        os.close(wake)


async def _serve(  # noqa: PLR0913, PLR0915, PLR0917 - the composition: every part of a node is named here once
    config: Config, node: str, store: Log, wake: int, metrics: Metrics, most: int, others: Met | None,
    task_status: trio.TaskStatus[Endpoints],
) -> None:  # fmt: skip
    listen, limits, hub_config = config.listen, config.limits, config.hub
    condition = Condition()
    wire = Wire(JsonCodec(limits.commands_per_frame), WEB_SOCKET_TEXT)
    protobuf = ProtobufCodec(limits.commands_per_frame)
    rates = config.rates
    slow = any(kind.slow_mode_seconds for kind in config.kinds.values())
    across = (rates.user_publishes, rates.user_reports, rates.room_publishes, rates.site_publishes, slow)
    throttle = Throttle(rates) if any(across) else None
    ring = partial(os.eventfd_write, wake, 1)
    gateway = Gateway(node, VERSION, config, metrics, condition, wire, throttle, ring)
    router = _router(config, node, store, gateway, others, ring)
    gateway.attach(router)
    if any(kind.presence_seconds or kind.tells_arrivals for kind in config.kinds.values()):
        gateway.attending = Attending(gateway, ring)
    api_keys = configured(read_api_keys(config.api.keys))
    sites, revoked = await trio.to_thread.run_sync(site_watch.read, config.node.data_dir, config.auth, api_keys)
    key_sets = KeySets(lambda: [site.jwks for site in authenticator.sites if site.jwks], config.auth)
    authenticator = Authenticator(
        sites, store.meta.guest_key, pages=Pages(sites, dev=config.node.dev), revocations=revoked, key_sets=key_sets
    )
    options = SessionOptions(config)

    def open_session(connection: Connection, came: Arrival) -> Session:
        session = Session(connection, gateway, authenticator, options, str(uuid.uuid4()), time.monotonic())
        session.arrival = came
        return session

    build = Build(VERSION, sys.version.split()[0], node, config.node.region)
    vitals = Vitals(build, metrics, condition, config.node.data_dir)
    metrics.refreshers.append(partial(_measure_log, store, metrics))
    desk = Desk(gateway, config.api.waiting_operations, ring)
    world = World(lambda: str(uuid.uuid4()), authenticator.session_id, time.monotonic, time.time, desk.go_through)
    methods = Methods(gateway, options, wire.codec, world)
    if isinstance(router, MeshRouter):
        gateway.neighbours = Neighbours(router, gateway, methods, limits.presence_roster)
    api = Api(methods, desk, SiteKeys(lambda: authenticator.sites), config.api, metrics)
    bounds = partial(
        HttpServer, metrics=metrics, header_bytes=limits.header_bytes, head_seconds=limits.upgrade_seconds,
        body_bytes=config.api.body_bytes, most=limits.http_connections, seconds=limits.http_seconds,
    )  # fmt: skip
    public_http = bounds(http.public_app(vitals, metrics, api=api if listen.api_on_public_port else None))
    internal_http = bounds(
        http.internal_app(vitals, metrics, scraper(metrics, build), listen.internal_token, api, document(VERSION))
    )
    certificates = (
        Certificates(listen.tls_certificate, listen.tls_key) if listen.tls_certificate and listen.tls_key else None
    )
    scheme = "https" if certificates else "http"

    def watch_attendance(is_watched: bool) -> None:  # noqa: FBT001 - a callback's only argument
        gateway.watcher = webhooks if is_watched else None

    webhooks = Webhooks(
        config.node.data_dir, config.webhooks, node, store.meta.birth, router, store,
        partial(_is_chat, config), metrics, watch_attendance,
    )  # fmt: skip
    await webhooks.open(sites, store.recovered)
    condition.webhooks = lambda: webhooks.troubles
    public = open_listeners(listen.host, listen.port, listen.backlog, "listen.port")
    internal = open_listeners(listen.internal_host, listen.internal_port, 128, "listen.internal_port")
    hub = Hub(
        public,
        HubOptions(
            header_bytes=limits.header_bytes, message_bytes=limits.message_bytes, output_bytes=limits.output_bytes,
            upgrade_seconds=limits.upgrade_seconds, flush_window=hub_config.flush_window_ms / 1000,
            events_per_turn=hub_config.events_per_turn, turn_warn_seconds=hub_config.loop_lag_warn_ms / 1000,
        ),
        metrics=metrics, admission=Admission(most, limits.connections_per_ip), pages=authenticator.pages,
        wire=wire, open_session=open_session, work=desk, wake=wake, certificates=certificates,
        subprotocols={PROTOBUF: Wire(protobuf, WEB_SOCKET_BINARY)}, serve_http=public_http.serve_socket,
        fallbacks=Fallbacks(
            wire.codec, protobuf, partial(_secret_of, authenticator), http_stream=listen.http_stream, sse=listen.sse
        ),
    )  # fmt: skip
    watch = SiteWatch(config.node.data_dir, config.auth, authenticator, gateway.everybody, hub.ring, api_keys)
    watch.changed.append(webhooks.replace)
    where = Endpoints(
        node=node, pid=os.getpid(),
        public=endpoints.url(scheme, listen.host, public[0].getsockname()[1]),
        internal=endpoints.url("http", listen.internal_host, internal[0].getsockname()[1]),
    )  # fmt: skip
    endpoints.write(config.node.data_dir, where)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hub.run)
        nursery.start_soon(gateway.time_periods)
        nursery.start_soon(
            internal_http.listen, [trio.SocketListener(trio.socket.from_stdlib_socket(sock)) for sock in internal]
        )
        if gateway.attending is not None:
            nursery.start_soon(gateway.attending.run)
        nursery.start_soon(vitals.run)
        nursery.start_soon(_keep_house, config, store, condition)
        nursery.start_soon(watch.run)
        nursery.start_soon(key_sets.run)
        nursery.start_soon(webhooks.run)
        if isinstance(router, MeshRouter) and others is not None:
            view = MeshView(router, vitals.status, others.certificate.copies)
            condition.mesh, condition.cut_off, router.operations = view.now, False, view
            nursery.start_soon(router.run)
            nursery.start_soon(_watch_mesh, router, hub, condition, config)
            nursery.start_soon(others.watch_keys, router)
        condition.state = State.READY
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)
        task_status.started(where)
        await _until_told(hub, gateway, condition, config, certificates, watch, webhooks)
        nursery.cancel_scope.cancel()


async def _watch_mesh(router: MeshRouter, hub: Hub, condition: Condition, config: Config) -> None:
    """Send clients elsewhere when the node is cut off from its cluster."""
    while True:
        await trio.sleep(HOUSEKEEPING_SECONDS)
        if router.is_cut_off == condition.cut_off:
            continue
        condition.cut_off = router.is_cut_off
        if condition.cut_off:
            log.error("cut off from the cluster", connections=hub.connections)
            reconnect = (int(DisconnectCode.FORCE_RECONNECT), DisconnectCode.FORCE_RECONNECT.text)
            await hub.send_away(reconnect, config.hub.drain_seconds, config.hub.drain_cohort)
        else:
            log.info("back in the cluster")


def _router(  # noqa: PLR0913, PLR0917 - what it is made of
    config: Config, node: str, store: Log, gateway: Gateway, others: Met | None, ring: Callable[[], object]
) -> Router | MeshRouter:
    if others is None:
        return Router(store, node, ClusterOptions(config.log.shards, cache_bytes=config.log.cache_bytes), gateway)
    certificate = others.certificate
    kept = ShardOptions(copies=certificate.copies, min_sync=certificate.min_sync)
    options = ClusterOptions(certificate.shards, cache_bytes=config.log.cache_bytes, shard=kept)
    mesh = others.options(config, node, store.meta.disk_id)
    return MeshRouter(store, certificate, mesh, options, others.transport, gateway, ring)


def _secret_of(authenticator: Authenticator, session: AnySession) -> str:
    if not isinstance(session, Session):
        raise TypeError(f"{session!r} is not made by this node")
    return authenticator.session_id(session.client)


async def _until_told(  # noqa: PLR0913, PLR0917 - what signals act upon
    hub: Hub, gateway: Gateway, condition: Condition, config: Config, certificates: Certificates | None,
    watch: SiteWatch, webhooks: Webhooks,
) -> None:  # fmt: skip
    """Serve until a signal, then drain; a second signal ends the draining."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async with trio.open_nursery() as nursery:
            async for signum in signals:
                if signum == signal.SIGHUP:
                    _reload(certificates)
                    watch.poke()
                elif condition.state is State.DRAINING:
                    log.warning("stopped at once", signal=signal.Signals(signum).name)
                    nursery.cancel_scope.cancel()
                    return
                else:
                    condition.state = State.DRAINING
                    log.info("draining", signal=signal.Signals(signum).name, connections=hub.connections)
                    nursery.start_soon(_drain, hub, gateway, config, webhooks, nursery.cancel_scope)


async def _drain(hub: Hub, gateway: Gateway, config: Config, webhooks: Webhooks, done: trio.CancelScope) -> None:
    if gateway.attending is not None:
        gateway.attending.silence()
    await hub.drain(config.hub.drain_seconds, config.hub.drain_cohort)
    await webhooks.finish()
    gateway.close()
    log.info("drained")
    done.cancel()


def _is_chat(config: Config, channel: str) -> bool:
    """Whether a room has chat messages; so had one of a kind that is not configured any more, most likely."""
    kind = config.kind_of(channel)
    return kind is None or kind.schema is Schema.CHAT


def _reload(certificates: Certificates | None) -> None:
    if certificates is None:
        return
    try:
        certificates.reload()
    except NodeFault as fault:
        log.error("certificate not reloaded", reason=str(fault))  # noqa: TRY400 - no bug, and the fault names its mend
    else:
        log.info("certificate reloaded")


async def _keep_house(config: Config, store: Log, condition: Condition) -> None:
    """Watch the log's space, and drop what retention lets go."""
    kinds = {name: _keep(config, kind) for name, kind in config.kinds.items()}
    otherwise = _keep(config, RoomKind())

    def rule(room: RoomId) -> Keep:
        kind = config.kind_of(room.channel)
        return otherwise if kind is None else kinds.get(kind.name, otherwise)

    keeps = any((keep.seconds or keep.bytes) for keep in (*kinds.values(), otherwise))
    next_sweep = trio.current_time()
    while True:
        if condition.log is not LogState.HALTED:
            condition.log = LogState.FULL if store.full else LogState.OK
            condition.log_reason = "the disk is nearly full: free space, or lower retention" if store.full else ""
        if trio.current_time() >= next_sweep:
            next_sweep += RETENTION_SECONDS if keeps else RETENTION_SECONDS * 60
            store.retain(rule, config.log.dedupe_days * DAY_SECONDS, config.log.undo_days * DAY_SECONDS)
        await trio.sleep(HOUSEKEEPING_SECONDS)


def _keep(config: Config, kind: RoomKind) -> Keep:
    days = kind.retention_days or config.log.retention_days
    return Keep(days * DAY_SECONDS, kind.retention_bytes, kind.read_marks)


def _measure_log(store: Log, metrics: Metrics) -> None:
    statistics = store.statistics()
    metrics.log_bytes, metrics.wal_bytes = statistics.bytes, statistics.wal_bytes
    metrics.log_queue_entries, metrics.unfiled_entries = statistics.queued, statistics.unfiled


def _log_options(config: Config, others: Met | None) -> LogOptions:
    settings = config.log
    shards = settings.shards if others is None else others.certificate.shards
    return LogOptions(
        settings.commit_window_ms / 1000, settings.commit_entries, settings.durability is Durability.FSYNC,
        settings.quota_bytes, settings.retention_bytes, shards, settings.quarantine_bytes,
    )  # fmt: skip


def _node_name(config: Config) -> str:
    """The configured name, or one made once and kept in the data directory, which is made if need be.

    Raises:
        StorageFault: The directory can't be used.
    """
    if config.node.name:
        return config.node.name
    folder = Path(config.node.data_dir)
    path = folder / "node-name"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if path.exists():
            return path.read_text().strip()
        name = f"{socket.gethostname().split('.')[0]}-{secrets.token_hex(3)}"
        path.write_text(name + "\n")
    except OSError as error:
        raise StorageFault("io", f"The data directory {folder} can't be used: {error}.") from error
    return name
