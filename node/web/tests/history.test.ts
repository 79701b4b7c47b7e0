import assert from "node:assert/strict";
import { mock, test, type TestContext } from "node:test";

import { RESEND } from "../src/backoff.ts";
import { MISSED, MISSED_UNREAD, RoomHistory } from "../src/history.ts";
import type { Entry } from "../src/message.ts";
import { isNotice, Timeline } from "../src/timeline.ts";
import { entries, entry, turn } from "./entries.ts";

const AWAY = { code: 100, message: "the archive is away" };
const DENIED = { code: 103, message: "permission denied" };

/** A room whose server answers when the test says so. */
class Server {
  /** The sequences before which pages were asked for. */
  readonly asked: number[] = [];
  readonly timeline = new Timeline();
  reloads = 0;
  readonly history = new RoomHistory(this.timeline, (before) => this.#read(before), {
    entriesSeen: () => {},
    reloaded: () => (this.reloads += 1),
    earlierChanged: () => {},
  });
  readonly #answers: { resolve: (page: Entry[]) => void; reject: (error: object) => void }[] = [];

  async answer(page: Entry[]): Promise<void> {
    this.#next().resolve(page);
    await turn();
  }

  async refuse(error: object): Promise<void> {
    this.#next().reject(error);
    await turn();
  }

  list(): (number | string)[] {
    return this.timeline.items().map((item) => (isNotice(item) ? item.text : item.sequence));
  }

  #next(): { resolve: (page: Entry[]) => void; reject: (error: object) => void } {
    return this.#answers.shift() ?? assert.fail("nothing was asked");
  }

  #read(before: number): Promise<Entry[]> {
    this.asked.push(before);
    return new Promise((resolve, reject) => this.#answers.push({ resolve, reject }));
  }
}

async function entered(first: number, last: number): Promise<Server> {
  const server = new Server();
  server.history.arrived("first");
  await server.answer(entries(first, last));
  return server;
}

function withClock(context: TestContext): void {
  mock.timers.enable({ apis: ["setTimeout"] });
  context.after(() => mock.timers.reset());
}

test("on the first arrival the newest page is read, and what is published meanwhile stands behind it", async () => {
  const server = new Server();
  server.history.arrived("first");
  server.history.published(entry(8));
  await server.answer(entries(5, 7));
  assert.deepEqual([server.list(), server.history.earlier, server.reloads], [[5, 6, 7, 8], "some", 0]);
});

test("who resumes reads nothing, since the server gives what was missed", async () => {
  const server = await entered(1, 3);
  server.history.left();
  server.history.arrived("resumed");
  server.history.published(entry(4));
  assert.deepEqual([server.list(), server.asked], [[1, 2, 3, 4], [0]]);
});

test("messages that were missed are never passed over: the list is read anew, with a line that says so", async () => {
  const server = await entered(1, 3);
  server.history.left();
  server.history.arrived("missed");
  server.history.published(entry(903));
  assert.deepEqual(server.list(), [1, 2, 3]);
  await server.answer(entries(901, 902));
  assert.deepEqual([server.list(), server.history.earlier, server.reloads], [[901, 902, MISSED, 903], "some", 1]);
});

test("a room that has begun anew replaces the old one, although its sequences are lower", async () => {
  const server = await entered(100, 103);
  server.history.arrived("missed");
  server.history.published(entry(2));
  await server.answer(entries(1, 1));
  assert.deepEqual([server.list(), server.history.earlier], [[1, MISSED, 2], "none"]);
});

test("a hole in what is published is treated as messages that were missed", async () => {
  const server = await entered(1, 3);
  server.history.published(entry(6));
  assert.deepEqual(server.asked, [0, 0]);
  server.history.published(entry(7));
  await server.answer(entries(2, 6));
  assert.deepEqual(server.list(), [2, 3, 4, 5, 6, MISSED, 7]);
});

test("a reading that the connection's loss has ended is begun again on return", async () => {
  const server = new Server();
  server.history.arrived("first");
  server.history.left();
  server.history.arrived("resumed");
  await server.refuse({ code: 11, message: "connection closed" });
  await server.answer(entries(1, 2));
  assert.deepEqual([server.list(), server.asked], [[1, 2], [0, 0]]);
});

test("a loss during the reading after a loss is still told", async () => {
  const server = await entered(1, 3);
  server.history.arrived("missed");
  server.history.left();
  server.history.arrived("resumed");
  server.history.published(entry(10));
  await server.answer(entries(4, 4));
  await server.answer(entries(8, 9));
  assert.deepEqual(server.list(), [8, 9, MISSED, 10]);
});

test("a temporary fault is tried again", async (context) => {
  withClock(context);
  const server = new Server();
  server.history.arrived("first");
  await server.refuse(AWAY);
  assert.equal(server.history.earlier, "loading");
  mock.timers.tick(RESEND.most);
  await server.answer(entries(1, 2));
  assert.deepEqual([server.list(), server.history.earlier], [[1, 2], "none"]);
});

test("where the missed messages can't be read, a line says so, and what is published goes on", async () => {
  const server = await entered(1, 3);
  server.history.arrived("missed");
  server.history.published(entry(8));
  await server.refuse(DENIED);
  server.history.published(entry(9));
  assert.deepEqual([server.list(), server.history.earlier], [[MISSED_UNREAD, 8, 9], "none"]);
});

test("a history that stays away leaves a button", async (context) => {
  withClock(context);
  const server = new Server();
  server.history.arrived("first");
  while (server.history.earlier === "loading") {
    await server.refuse(AWAY);
    mock.timers.tick(RESEND.most);
  }
  assert.equal(server.history.earlier, "unread");
  server.history.published(entry(5));
  void server.history.readEarlier();
  await server.answer(entries(3, 4));
  assert.deepEqual([server.list(), server.asked.at(-1)], [[3, 4, 5], 5]);
});

test("earlier messages are read page by page, up to an empty one", async () => {
  const server = await entered(7, 9);
  void server.history.readEarlier();
  void server.history.readEarlier();
  await server.answer(entries(4, 6));
  assert.deepEqual([server.asked, server.history.earlier], [[0, 7], "some"]);
  void server.history.readEarlier();
  await server.answer([]);
  assert.deepEqual([server.list(), server.history.earlier], [[4, 5, 6, 7, 8, 9], "none"]);
});

test("reading earlier messages that a lost connection has ended can be asked for again", async () => {
  const server = await entered(7, 9);
  void server.history.readEarlier();
  server.history.left();
  server.history.arrived("resumed");
  assert.equal(server.history.earlier, "some");
});

test("a list that has grown long is trimmed to what can be read again", async () => {
  const server = await entered(1, 2_001);
  server.history.trim();
  assert.deepEqual([server.timeline.size, server.timeline.first, server.history.earlier], [1_000, 1_002, "some"]);
});
