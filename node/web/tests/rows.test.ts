import assert from "node:assert/strict";
import { test } from "node:test";

import { Outbox } from "../src/outbox.ts";
import { Fold, type Shown } from "../src/fold.ts";
import { People } from "../src/people.ts";
import { layOut as layOutFrom, type MessageRow, type Row, type Viewpoint } from "../src/rows.ts";
import type { Entry } from "../src/message.ts";
import type { Draft } from "../src/outbox.ts";
import { entry } from "./entries.ts";

const MINUTE = 60_000;
const NOBODY: ReadonlySet<string> = new Set();

function layOut(
  entries: readonly Entry[],
  drafts: readonly Draft[],
  ownIds: ReadonlySet<string>,
  given: Partial<Viewpoint> = {},
): Row[] {
  const fold = new Fold(entries);
  const items: Shown[] = entries.filter(({ target }) => target === 0).map((item) => fold.show(item));
  const viewpoint = { ownIds, people: new People(), readUpTo: null, distant: () => null, readersOf: () => [] };
  return layOutFrom(items, drafts, { ...viewpoint, ...given });
}

function messages(rows: readonly Row[]): MessageRow[] {
  return rows.filter((row) => row.kind === "message");
}

test("each day begins with a line", () => {
  const noon = new Date(2026, 10, 24, 12).getTime();
  const items = [entry(1, { time: noon }), entry(2, { time: noon + MINUTE }), entry(3, { time: noon + 24 * 60 * MINUTE })];
  assert.deepEqual(
    layOut(items, [], NOBODY).map(({ kind }) => kind),
    ["day", "message", "message", "day", "message"],
  );
});

test("a run of one author's messages shows the author once, until somebody else or a pause ends it", () => {
  const items = [
    entry(1, { time: 0 }),
    entry(2, { time: MINUTE }),
    entry(3, { time: 2 * MINUTE, userId: "u2", author: "Grace" }),
    entry(4, { time: 3 * MINUTE }),
    entry(5, { time: 9 * MINUTE }),
  ];
  assert.deepEqual(
    messages(layOut(items, [], NOBODY)).map(({ head }) => head),
    [true, false, true, true, true],
  );
});

test("a draft keeps its row when it becomes an entry", () => {
  const outbox = new Outbox();
  outbox.add({ id: "mine", content: "Hello", author: "Ada", time: 0, replyTo: 0 });
  const [draft] = messages(layOut([], outbox.drafts, new Set(["mine"])));
  const [sent] = messages(layOut([entry(1, { id: "mine" })], [], new Set(["mine"])));
  assert.equal(draft?.key, sent?.key);
  assert.deepEqual([draft?.state, draft?.mine, sent?.state, sent?.mine], ["waiting", true, "sent", true]);
});

test("who repeats the id of a message of mine is not me", () => {
  const items = [entry(1, { id: "mine" }), entry(2, { id: "mine", userId: "u2" })];
  const rows = messages(layOut(items, [], new Set(["mine"])));
  assert.deepEqual(rows.map(({ mine }) => mine), [true, false]);
  assert.notEqual(rows[0]?.key, rows[1]?.key);
});

test("drafts stand last, and one that the server has acknowledged counts as sent", () => {
  const outbox = new Outbox();
  outbox.add({ id: "a", content: "", author: "Ada", time: 0, replyTo: 0 });
  outbox.add({ id: "b", content: "", author: "Ada", time: 0, replyTo: 0 });
  outbox.take();
  outbox.accept("a");
  const rows = messages(layOut([entry(1)], outbox.drafts, NOBODY));
  assert.deepEqual(
    rows.map(({ id, state }) => [id, state]),
    [["m1", "sent"], ["a", "sent"], ["b", "waiting"]],
  );
});

test("a removed message has no text but stands in its place", () => {
  const [row] = messages(layOut([entry(1, { type: "placeholder", content: "" })], [], NOBODY));
  assert.deepEqual([row?.removed, row?.sequence], [true, 1]);
});

test("the account's messages are mine wherever they were written", () => {
  const people = new People();
  people.me = "u1";
  const rows = messages(layOut([entry(1), entry(2, { userId: "u2" })], [], NOBODY, { people }));
  assert.deepEqual(rows.map(({ mine }) => mine), [true, false]);
});

test("a line parts what was read from the first message of another that was not", () => {
  const people = new People();
  people.me = "u2";
  const entries = [entry(1), entry(2, { userId: "u2" }), entry(3), entry(4)];
  const kinds = (readUpTo: number | null): string[] =>
    layOut(entries, [], NOBODY, { people, readUpTo }).map(({ kind }) => (kind === "message" ? "" : kind));
  assert.deepEqual(kinds(1), ["day", "", "", "unread", "", ""]);
  assert.deepEqual(kinds(4), ["day", "", "", "", ""]);
  assert.deepEqual(kinds(null), ["day", "", "", "", ""]);
});

test("an answer quotes its message as it is now, and one that is not loaded from where it is known", () => {
  const entries = [
    entry(5),
    entry(6, { type: "edit", target: 5, content: "better" }),
    entry(7, { replyTo: 5 }),
    entry(8, { replyTo: 2 }),
    entry(9, { replyTo: 3 }),
  ];
  const distant = (sequence: number): Entry | null => (sequence === 2 ? entry(2, { userId: "u2" }) : null);
  const rows = messages(layOut(entries, [], NOBODY, { distant }));
  assert.deepEqual(rows.map(({ quote }) => quote && [quote.author, quote.text]), [
    null,
    ["u1", "better"],
    ["u2", "text 2"],
    ["", "An earlier message"],
  ]);
});

test("the newest message of mine that anybody has seen says who", () => {
  const people = new People();
  people.me = "u1";
  people.introduce("u2", "Grace");
  const readersOf = (sequence: number): string[] => (sequence <= 2 ? ["u2"] : []);
  const rows = messages(layOut([entry(1), entry(2), entry(3)], [], NOBODY, { people, readersOf }));
  assert.deepEqual(rows.map(({ seenBy }) => seenBy), [[], ["Grace"], []]);
});
