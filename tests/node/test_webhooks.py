"""All webhooks of a node, over a log and receivers in memory, in a time that an hour of passes in a moment."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Final

import pytest
import trio
from trio.testing import MockClock

from edge_config.secret import Secret
from edge_config.webhooks import EVENTS, WebhookTarget
from node import webhook_receiver, webhooks
from node.metrics import Metrics
from node.sites import Site, Sites, Webhook
from node.webhook_attendance import Subject
from node.webhook_files import Progress, TargetFiles
from node.webhook_post import Answer, Trouble, Unanswered
from node.webhook_signature import HEADER, verify
from node.webhook_target import TargetId
from node.webhooks import Webhooks
from router.entry import GENESIS, SALT_BYTES, Entry, Kind, make
from router.events import Away, Recovered, ShardTail
from router.ids import RoomId
from router.removal import Removal, hide
from router.tail import Lost, Tail

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from pathlib import Path

    from router.tail import Hold, TailQuery

KEY: Final = Secret("k" * 32)
BEGIN_MS: Final = 1_795_528_800_000
HOUR: Final = 3600.0
MAIN: Final = TargetId("default", "main")
URL: Final = "https://main.example/"


def wall_ms() -> int:
    return BEGIN_MS + int(trio.current_time() * 1000)


class FakeLog:
    """A log of four shards in memory, as followers see it."""

    def __init__(self) -> None:
        self.shards: dict[int, list[Entry]] = {shard: [] for shard in range(4)}
        self.removed: set[tuple[int, int]] = set()
        self.floors: dict[int, int] = {}
        self.held: Hold | None = None
        self.away = 0  # so many questions are not answered
        self.asked = 0
        self.followers: list[Callable[[], None]] = []

    def write(self, channel: str, text: str = "Hello", site: str = "default", kind: Kind = Kind.MESSAGE) -> Entry:
        shard = sum(channel.encode()) % 4
        lsn = len(self.shards[shard]) + 1
        data = json.dumps({"id": f"{channel}-{lsn}", "content": text, "type": "text"}).encode()
        entry = make(
            shard, lsn, 1, RoomId(site, channel), lsn, 0, kind, b"s" * 12, f"c{lsn}", wall_ms(),
            lsn.to_bytes(SALT_BYTES, "big"), data, b'"ann"', GENESIS,
        )  # fmt: skip
        self.shards[shard].append(entry)
        for wake in self.followers:
            wake()
        return entry

    def remove(self, entry: Entry) -> None:
        self.removed.add((entry.shard, entry.lsn))

    def recovered(self) -> Recovered:
        tails = {
            shard: ShardTail(shard, len(entries), GENESIS, 1, len(entries)) for shard, entries in self.shards.items()
        }
        return Recovered(tails, {}, ())

    def tail(self, query: TailQuery, done: Callable[[Tail | Away], None]) -> None:
        self.asked += 1
        if self.away:
            self.away -= 1
            done(Away.STORAGE_FAULT)
            return
        heads = {shard: len(entries) for shard, entries in self.shards.items()}
        cursor, found, lost = dict.fromkeys(heads, 0) | dict(query.cursor), list[Entry](), list[Lost]()
        for shard in sorted(heads, key=lambda shard: (shard < query.start, shard)):
            floor = self.floors.get(shard, 0)
            if cursor[shard] < floor and query.limit:
                lost.append(Lost(shard, cursor[shard] + 1, floor))
                cursor[shard] = floor
            while cursor[shard] < heads[shard] and len(found) < query.limit:
                entry = self.shards[shard][cursor[shard]]
                is_removed = (shard, entry.lsn) in self.removed
                found.append(hide(entry, Removal(99, 0, "spam")) if is_removed else entry)
                cursor[shard] += 1
        done(Tail(found, cursor, lost, heads, 0))

    def follow(self, wake: Callable[[], None]) -> None:
        self.followers.append(wake)

    def unfollow(self, wake: Callable[[], None]) -> None:
        self.followers.remove(wake)

    def hold(self, hold: Hold | None) -> None:
        self.held = hold


class Receivers:
    """Receivers by URL, which take everything unless they are told otherwise.

    Attributes:
        taken: Events that were taken, by URL, with repetitions.
        answers: How each answers, by URL: a status, a wait for ever (None), or an exception.
        requests: Every body that came, taken or not, by URL.
        order: Of all, URL and id of each event that was taken.
    """

    def __init__(self) -> None:
        self.taken: dict[str, list[dict[str, Any]]] = {}
        self.answers: dict[str, int | Exception | None] = {}
        self.requests: dict[str, list[bytes]] = {}
        self.order: list[tuple[str, str]] = []

    async def post(
        self, url: str, body: bytes, headers: Mapping[str, str], timeout_seconds: float, *, allow_private: bool
    ) -> Answer:
        assert verify(headers[HEADER], body, KEY, wall_ms() / 1000)
        assert not allow_private
        self.requests.setdefault(url, []).append(body)
        answer = self.answers.get(url, 200)
        if answer is None:
            await trio.sleep(timeout_seconds)
            raise Unanswered(Trouble.TIMEOUT, "no answer")
        await trio.lowlevel.checkpoint()
        if isinstance(answer, Exception):
            raise answer
        if answer == 200:
            events = json.loads(body)["events"]
            self.taken.setdefault(url, []).extend(events)
            self.order += [(url, event["id"]) for event in events]
        return Answer(answer, 0.0, "", "127.0.0.1", 0.0)

    def ids(self, url: str = URL) -> list[str]:
        return [event["id"] for event in self.taken.get(url, ())]

    def rooms(self, url: str = URL) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for event in self.taken.get(url, ()):
            found.setdefault(event["room"], []).append(event["sequence"])
        return found


class Stage:
    """What outlives a node: its log, its data directory, and the receivers."""

    def __init__(self, folder: Path, receivers: Receivers) -> None:
        self.folder, self.receivers = folder, receivers
        self.log = FakeLog()
        self.metrics = Metrics()
        self.watched = False
        self.configured = {"main": target("main")}
        self.sites = Sites([Site("default")])

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Webhooks]:
        """A life of the node, which ends as hard as it can."""
        async with trio.open_nursery() as nursery:
            self.metrics = Metrics()
            hooks = Webhooks(
                self.folder, self.configured, "node-1", "birth", self.log, self.log, lambda _: True, self.metrics,
                lambda watched: setattr(self, "watched", watched), wall_ms,
            )  # fmt: skip
            await hooks.open(self.sites, self.log.recovered())
            nursery.start_soon(hooks.run)
            yield hooks
            nursery.cancel_scope.cancel()

    async def until(self, what: Callable[[], bool], hours: float = 1.0) -> None:
        """Wait until something holds, for so long at most."""
        with trio.fail_after(hours * HOUR):
            while not what():  # noqa: ASYNC110 - what is waited for tells nobody
                await trio.sleep(1.0)


def target(name: str, **fields: Any) -> WebhookTarget:  # noqa: ANN401 - of the section
    return WebhookTarget(name=name, url=f"https://{name}.example/", secret=KEY, **fields)


def fails_for(hooks: Webhooks, seconds: float) -> bool:
    return any(trouble.seconds > seconds for trouble in hooks.troubles)


def in_mock_time(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run a test where time goes to the next deadline as soon as nothing else is to be done."""

    @wraps(test)
    def run(**arguments: object) -> None:
        clock = MockClock(autojump_threshold=0.02)  # threads that write files take their time
        trio.run(partial(test, **arguments), clock=clock)

    return run


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    receivers = Receivers()
    monkeypatch.setattr(webhook_receiver, "post", receivers.post)
    monkeypatch.setattr(webhooks, "LOOK_SECONDS", 300.0)  # each costs the test a moment
    monkeypatch.setattr(webhooks, "FINISH_SECONDS", HOUR)  # for threads are slower here than the clock
    monkeypatch.setattr("os.fsync", lambda _: None)
    return Stage(tmp_path, receivers)


@in_mock_time
async def test_a_receiver_that_is_down_for_an_hour_misses_nothing_and_gets_nothing_twice(stage: Stage) -> None:
    stage.receivers.answers[URL] = Unanswered(Trouble.CONNECTION, "Connection refused")
    for _ in range(3):  # the node is killed twice meanwhile
        async with stage.running() as hooks:
            for number in range(40):
                stage.log.write(f"room{number % 7}")
                await trio.sleep(HOUR / 120)
            await stage.until(partial(fails_for, hooks, 600.0))
            (trouble,) = hooks.troubles
            assert (trouble.webhook, trouble.error) == ("default/main", "Connection refused")
            assert stage.log.held is not None
            assert stage.log.held.cursor == dict.fromkeys(range(4), 0)
            assert stage.log.held.from_ms < BEGIN_MS
    assert stage.receivers.taken == {}
    async with stage.running() as hooks:
        await trio.sleep(10.0)
        stage.receivers.answers[URL] = 200
        await stage.until(lambda: len(stage.receivers.ids()) >= 120)
        await trio.sleep(HOUR)
        assert hooks.troubles == ()
    ids = stage.receivers.ids()
    assert len(set(ids)) == len(ids) == 120
    for sequences in stage.receivers.rooms().values():
        assert sequences == sorted(sequences)
    async with stage.running():
        await trio.sleep(HOUR)
    assert len(stage.receivers.ids()) == 120, "what was taken is not sent again after a start"


@in_mock_time
async def test_a_slow_receiver_holds_up_nobody(stage: Stage) -> None:
    stage.configured["slow"] = target("slow", timeout_seconds=300.0)
    stage.receivers.answers["https://slow.example/"] = None
    async with stage.running():
        for number in range(1000):
            stage.log.write("room", f"{number}")
        await stage.until(lambda: len(stage.receivers.ids()) == 1000)
        assert stage.receivers.ids("https://slow.example/") == []
        stage.receivers.answers["https://slow.example/"] = 200
        await stage.until(lambda: len(stage.receivers.ids("https://slow.example/")) == 1000)
    assert stage.receivers.rooms("https://slow.example/") == stage.receivers.rooms()


@in_mock_time
async def test_one_that_is_far_behind_is_read_for_beside_the_others(stage: Stage) -> None:
    async with stage.running():
        await trio.sleep(5.0)
    late = {"main": stage.configured.pop("main")}
    stage.configured["other"] = target("other")
    async with stage.running():
        for number in range(8000):
            stage.log.write(f"room{number % 3}", "x")
        await stage.until(lambda: len(stage.receivers.ids("https://other.example/")) == 8000)
    stage.configured |= late
    async with stage.running():
        stage.log.write("new")
        await stage.until(lambda: len(stage.receivers.ids()) == 8001)
        newest = next(event["id"] for event in stage.receivers.taken[URL] if event["room"] == "new")
        near = stage.receivers.order.index(("https://other.example/", newest))
        far = [url for url, _ in stage.receivers.order[:near] if url == URL]
        assert len(far) < 4000, "the one that is near is not kept waiting"
        asked = stage.log.asked
        stage.log.write("new")
        await stage.until(lambda: len(stage.receivers.ids()) == 8002)
        assert stage.log.asked <= asked + 8, "now both share a read: one to see it, and two to send it, for each"


@in_mock_time
async def test_what_was_removed_before_it_got_through_is_sent_as_a_placeholder(stage: Stage) -> None:
    stage.receivers.answers[URL] = 500
    async with stage.running():
        entry = stage.log.write("room", "a secret")
        await stage.until(lambda: URL in stage.receivers.requests)
        stage.log.remove(entry)
        stage.log.write("room", kind=Kind.REMOVED)
        sent = len(stage.receivers.requests[URL])
        stage.receivers.answers[URL] = 200
        await stage.until(lambda: len(stage.receivers.ids()) == 2)
    first, second = stage.receivers.taken[URL]
    assert (first["message"]["type"], second["type"]) == ("placeholder", "removed")
    assert b"a secret" in stage.receivers.requests[URL][0]
    assert not any(b"a secret" in body for body in stage.receivers.requests[URL][sent:])


@in_mock_time
async def test_what_the_log_has_lost_is_told_once_and_in_its_place(stage: Stage) -> None:
    async with stage.running():
        await trio.sleep(1.0)
    for _ in range(10):
        stage.log.write("room")
    shard = sum(b"room") % 4
    stage.log.floors[shard] = 7
    async with stage.running():
        await stage.until(lambda: len(stage.receivers.ids()) == 4)
        await trio.sleep(600.0)
    assert [event["type"] for event in stage.receivers.taken[URL]] == ["gap", "message", "message", "message"]
    assert stage.metrics.webhook_events["default", "main", "gap"] == 1


@in_mock_time
async def test_entries_that_go_between_reading_and_sending_are_said_to_be_gone(stage: Stage) -> None:
    stage.receivers.answers[URL] = 500
    async with stage.running():
        entry = stage.log.write("room")
        await stage.until(lambda: URL in stage.receivers.requests)
        stage.log.floors[entry.shard] = entry.lsn
        stage.receivers.answers[URL] = 200
        await stage.until(lambda: len(stage.receivers.ids()) == 1)
    assert stage.receivers.taken[URL][0]["gone"] is True


@in_mock_time
async def test_each_site_gets_its_own_events_and_no_others(stage: Stage) -> None:
    hooks = {name: Webhook("h", f"https://{name}.example/", KEY) for name in ("a", "b")}
    stage.sites = Sites([Site("default"), *(Site(name, webhooks=(hook,)) for name, hook in hooks.items())])
    async with stage.running() as all_hooks:
        for site in ("a", "b", "default"):
            stage.log.write("room", f"of {site}", site=site)
            all_hooks.note(Subject(site, "", f"user of {site}"), here=True)
        await stage.until(lambda: len(stage.receivers.taken) == 3 and len(stage.receivers.ids()) == 2)
        await trio.sleep(60.0)
    for site, url in (("a", "https://a.example/"), ("b", "https://b.example/"), ("default", URL)):
        for body in map(json.loads, stage.receivers.requests[url]):
            assert body["site"] == site
            for event in body["events"]:
                said = event.get("user") or event["message"]["content"]
                assert said.endswith(f"of {site}")
        assert len(stage.receivers.ids(url)) == 2


@in_mock_time
async def test_a_receiver_is_sent_what_it_wants(stage: Stage) -> None:
    stage.configured = {"main": target("main", events=("edited", "connected"))}
    async with stage.running() as hooks:
        assert stage.watched
        for kind in (Kind.MESSAGE, Kind.EDIT, Kind.REMOVED):
            stage.log.write("room", kind=kind)
        hooks.note(Subject("default", "", "ann"), here=True)
        hooks.note(Subject.room(RoomId("default", "room")), here=True)
        await stage.until(lambda: len(stage.receivers.ids()) == 2)
        await trio.sleep(60.0)
        assert sorted(event["type"] for event in stage.receivers.taken[URL]) == ["connected", "edited"]
    stage.configured = {"main": target("main", events=("message",))}
    async with stage.running():
        assert not stage.watched, "nobody is told who comes and goes, so the hub is not to say so"


@in_mock_time
async def test_without_anybody_to_read_for_the_log_is_left_alone(stage: Stage) -> None:
    hooks = [Webhook("h", "https://a.example/", KEY, frozenset(events)) for events in ({"connected"}, {"message"})]
    who = TargetId("a", "h")
    stage.configured = {}
    async with stage.running() as running:
        stage.log.write("room", site="a")
        running.replace(Sites([Site("default"), Site("a", webhooks=(hooks[0],))]))
        await stage.until(lambda: who in running._receivers)
        before = stage.log.asked
        stage.log.write("room", "before", site="a")
        await trio.sleep(60.0)
        assert (stage.log.asked, stage.log.held, stage.log.followers) == (before, None, [])
        running.replace(Sites([Site("default"), Site("a", webhooks=(hooks[1],))]))
        await stage.until(lambda: bool(stage.log.followers))
        stage.log.write("room", "after", site="a")
        await stage.until(lambda: bool(stage.receivers.taken))
        running.replace(stage.sites)
        await stage.until(lambda: not stage.log.followers)
        assert stage.log.held is None
    (event,) = stage.receivers.taken["https://a.example/"]
    assert event["message"]["content"] == "after", "it begins when it begins to want something of the log"


@in_mock_time
async def test_comings_and_goings_are_told_when_they_have_settled(stage: Stage) -> None:
    room, ann = Subject.room(RoomId("default", "room")), Subject("default", "", "ann")
    async with stage.running() as hooks:
        hooks.note(ann, here=True)
        hooks.note(room, here=True)
        await trio.sleep(1.0)
        hooks.note(room, here=False)
        await stage.until(lambda: URL in stage.receivers.taken)
        await trio.sleep(60.0)
        assert [(event["type"], event.get("user")) for event in stage.receivers.taken[URL]] == [("connected", "ann")]
        hooks.note(ann, here=False)
        await hooks.finish()
        assert stage.receivers.taken[URL][-1]["type"] == "disconnected", "when the node ends, nothing is waited for"
    assert len(set(stage.receivers.ids())) == 2


@in_mock_time
async def test_a_flood_of_comings_and_goings_is_dropped_and_counted(stage: Stage) -> None:
    stage.configured = {"main": target("main", waiting_events=10, settle_seconds=0.0)}
    stage.receivers.answers[URL] = 500
    async with stage.running() as hooks:
        for number in range(25):
            hooks.note(Subject("default", "", f"u{number}"), here=True)
            await trio.sleep(0.1)
        stage.receivers.answers[URL] = 200
        await stage.until(lambda: len(stage.receivers.ids()) == 10)
    assert json.loads(stage.receivers.requests[URL][-1])["dropped"] == 15
    assert stage.metrics.webhook_events["default", "main", "dropped"] == 15


@in_mock_time
async def test_what_is_refused_becomes_dead_letters_that_can_be_sent_again(stage: Stage) -> None:
    files = TargetFiles(stage.folder, MAIN)
    stage.receivers.answers[URL] = 422
    async with stage.running() as hooks:
        refused = stage.log.write("room", "refused")
        hooks.note(Subject("default", "", "ann"), here=True)
        await stage.until(lambda: len(files.dead()) == 2)
        stage.receivers.answers[URL] = 200
        stage.log.write("room", "taken")
        await stage.until(lambda: len(stage.receivers.ids()) == 1)
        assert b"refused" not in files.dead_path.read_bytes().replace(b"the receiver refused it", b"")
        assert "refused it: it answered 422" in files.dead()[0].why
        hooks._measure()
        assert stage.metrics.webhook_dead == {("default", "main"): 2}

        stage.receivers.answers[URL] = 500
        files.wish()
        await stage.until(lambda: files.answer() is not None)
        answer = files.answer()
        assert answer is not None
        assert (answer.sent, answer.left, answer.error) == (0, 2, "it answered 500")

        stage.receivers.answers[URL] = 200
        stage.log.remove(refused)
        files.wish()
        await stage.until(lambda: files.answer() is not None)
        answer = files.answer()
        assert answer is not None
        assert (answer.sent, answer.left) == (2, 0)
        assert files.dead() == []
    again = {event["type"]: event for event in stage.receivers.taken[URL][1:]}
    assert again["message"]["message"]["type"] == "placeholder", "it was removed meanwhile"
    assert again["connected"]["user"] == "ann"
    assert len(set(stage.receivers.ids())) == 3


@in_mock_time
async def test_a_receiver_that_fails_for_too_long_is_given_up_from_the_oldest_on(stage: Stage) -> None:
    stage.configured = {"main": target("main", give_up_hours=2.0)}
    stage.receivers.answers[URL] = 503
    files = TargetFiles(stage.folder, MAIN)
    async with stage.running():
        for _ in range(15):
            stage.log.write("room")
            await trio.sleep(HOUR / 6)
        await stage.until(lambda: len(files.dead()) >= 2)
        stage.receivers.answers[URL] = 200
        await stage.until(lambda: len(stage.receivers.ids()) + len(files.dead()) == 15)
        dead = [letter.id for letter in files.dead()]
        assert not {*stage.receivers.ids()} & {*dead}
        assert "failed for too long: it answered 503" in files.dead()[0].why
    assert stage.receivers.rooms()["room"] == list(range(len(dead) + 1, 16))


@in_mock_time
async def test_receivers_come_change_and_go_while_the_node_runs(stage: Stage) -> None:
    hook, made = Webhook("h", "https://a.example/", KEY), TargetId("a", "h")
    async with stage.running() as hooks:
        stage.log.write("room", "before", site="a")
        hooks.replace(Sites([Site("default"), Site("a", webhooks=(hook,))]))
        await stage.until(lambda: made in hooks._receivers)
        stage.log.write("room", "while", site="a")
        await stage.until(lambda: len(stage.receivers.ids("https://a.example/")) == 1)
        moved = Webhook("h", "https://moved.example/", KEY)
        hooks.replace(Sites([Site("default"), Site("a", webhooks=(moved,))]))
        await stage.until(lambda: hooks._receivers[made].target.url == moved.url)
        stage.log.write("room", "moved", site="a")
        await stage.until(lambda: len(stage.receivers.ids("https://moved.example/")) == 1)
        hooks.replace(stage.sites)
        await stage.until(lambda: made not in hooks._receivers)
        stage.log.write("room", "after", site="a")
        await trio.sleep(60.0)
    contents = [event["message"]["content"] for taken in stage.receivers.taken.values() for event in taken]
    assert contents == ["while", "moved"]


@in_mock_time
async def test_a_file_that_can_not_be_used_keeps_only_its_own_webhook_from_beginning(stage: Stage) -> None:
    stage.configured["other"] = target("other")
    files = TargetFiles(stage.folder, MAIN)
    files.begin(Progress(birth="birth", cursor={}))
    files.progress_path.write_text("{")
    async with stage.running() as hooks:
        (trouble,) = hooks.troubles
        assert trouble.webhook == "default/main"
        assert "take it away" in trouble.error
        stage.log.write("room")
        await stage.until(lambda: len(stage.receivers.ids("https://other.example/")) == 1)
    assert stage.receivers.ids() == []


@pytest.mark.parametrize("birth", ["birth", "another log's"])
@in_mock_time
async def test_a_cursor_that_is_not_of_this_log_begins_at_its_end(stage: Stage, birth: str) -> None:
    stage.log.write("room")
    TargetFiles(stage.folder, MAIN).begin(Progress(birth=birth, cursor=dict.fromkeys(range(4), 1000)))
    async with stage.running():
        stage.log.write("room")
        await stage.until(lambda: len(stage.receivers.ids()) == 1)
    assert stage.receivers.rooms() == {"room": [2]}


@in_mock_time
async def test_a_log_that_does_not_answer_is_asked_again(stage: Stage) -> None:
    async with stage.running():
        await trio.sleep(5.0)
        stage.log.away = 5
        stage.log.write("room")
        await stage.until(lambda: len(stage.receivers.ids()) == 1)


@in_mock_time
async def test_what_goes_wrong_with_one_receiver_ends_neither_it_nor_the_others(stage: Stage) -> None:
    stage.configured["other"] = target("other")
    stage.receivers.answers[URL] = RuntimeError("a bug")
    async with stage.running():
        stage.log.write("room")
        await stage.until(lambda: len(stage.receivers.ids("https://other.example/")) == 1)
        stage.receivers.answers[URL] = 200
        await stage.until(lambda: len(stage.receivers.ids()) == 1)


@in_mock_time
async def test_a_disk_that_takes_nothing_loses_no_event(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.receivers.answers[URL] = 422
    files = TargetFiles(stage.folder, MAIN)
    async with stage.running():
        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "no space")))
            stage.log.write("room")
            await trio.sleep(60.0)
            assert files.dead() == []
        await stage.until(lambda: len(files.dead()) == 1)


def test_every_event_has_a_name_that_the_configuration_knows() -> None:
    assert len(set(EVENTS)) == len(EVENTS) == 9
