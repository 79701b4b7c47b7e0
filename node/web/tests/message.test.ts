import assert from "node:assert/strict";
import { test } from "node:test";

import { backoff, RECONNECT } from "../src/backoff.ts";
import { explain, isTemporary, readFault } from "../src/fault.ts";
import { MAX_NAME_LENGTH, newMessageId, publicationOf, readEntry } from "../src/message.ts";

const DATA = {
  id: "m1",
  chatRoom: "r",
  userId: "u1",
  content: "Hello",
  timestamp: "2026-11-24T10:30:00.123Z",
  sequence: 7,
  type: "text",
  meta: { name: " Ada " },
};

test("the data of a publication is read as an entry", () => {
  assert.deepEqual(readEntry(DATA), {
    id: "m1",
    sequence: 7,
    userId: "u1",
    type: "text",
    content: "Hello",
    author: "Ada",
    time: Date.UTC(2026, 10, 24, 10, 30, 0, 123),
    target: 0,
    replyTo: 0,
    emoji: "",
    reason: "",
    cleared: null,
    event: "",
    detail: {},
  });
});

for (const data of [
  null,
  "text",
  [DATA],
  { type: "typing", userId: "u1", typing: true },
  { ...DATA, sequence: undefined },
  { ...DATA, sequence: 0 },
  { ...DATA, sequence: 1.5 },
  { ...DATA, sequence: "7" },
  { ...DATA, id: 7 },
]) {
  test(`${JSON.stringify(data)} is no entry`, () => assert.equal(readEntry(data), null));
}

test("the author is the user id where no name is given, and a guest has none", () => {
  assert.equal(readEntry({ ...DATA, meta: undefined })?.author, "u1");
  assert.equal(readEntry({ ...DATA, meta: { name: 7 } })?.author, "u1");
  assert.equal(readEntry({ ...DATA, meta: "Ada", userId: "guest:12ab9f" })?.author, "Guest ab9f");
  assert.equal(readEntry({ ...DATA, meta: { name: "x".repeat(1000) } })?.author.length, MAX_NAME_LENGTH);
});

test("a message is published with what the client gives, and nothing that the server owns", () => {
  assert.deepEqual(publicationOf({ id: "m1", content: "Hello", author: "Ada", time: 5, replyTo: 0 }), {
    id: "m1",
    content: "Hello",
    type: "text",
    meta: { name: "Ada" },
  });
  assert.deepEqual(publicationOf({ id: "m2", content: "Yes", author: "Ada", time: 5, replyTo: 7 }), {
    id: "m2",
    content: "Yes",
    type: "text",
    replyTo: 7,
    meta: { name: "Ada" },
  });
});

test("message ids are random UUIDs", () => {
  assert.match(newMessageId(), /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  assert.notEqual(newMessageId(), newMessageId());
});

test("faults are told apart by their code, and whatever was thrown can be read", () => {
  assert.deepEqual(
    [1, 11, 100, 103, 107, 111].map((code) => isTemporary({ code, message: "" })),
    [true, true, true, false, false, true],
  );
  assert.equal(explain(readFault({ code: 107, message: "content is 9000 bytes long" })),
    "the server does not accept it: content is 9000 bytes long");
  assert.equal(explain({ code: 102, message: "add [kinds.support]" }), "there is no such room: add [kinds.support]");
  assert.equal(explain({ code: 103, message: "'a' is for subscribers" }), "you may not do this here");
  assert.equal(explain(readFault({ code: 4711, message: "odd" })), "odd");
  assert.equal(explain(readFault(new Error("x"))), "the server did not answer");
  assert.equal(explain(readFault("thrown")), "the server did not answer");
});

test("a back-off grows to its bound, and half of it is random", () => {
  const least = [1, 2, 3, 10, 1000].map((attempt) => backoff(attempt, RECONNECT, 0));
  const most = [1, 2, 3, 10, 1000].map((attempt) => backoff(attempt, RECONNECT, 1));
  assert.deepEqual(least, [500, 1000, 2000, 7500, 7500]);
  assert.deepEqual(most, [1000, 2000, 4000, 15_000, 15_000]);
});
