import assert from "node:assert/strict";
import { test } from "node:test";

import { isNotice, Timeline, type Item } from "../src/timeline.ts";
import { entries, entry } from "./entries.ts";

function read(timeline: Timeline): (number | string)[] {
  return timeline.items().map((item: Item) => (isNotice(item) ? item.text : item.sequence));
}

/** A generator of pseudo-random numbers in [0, 1): mulberry32. */
function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

test("entries stand in order and once, in whatever order and however often they arrive", () => {
  for (let seed = 1; seed <= 50; seed += 1) {
    const random = generator(seed);
    const arrivals = [...entries(1, 40), ...entries(1, 40)].sort(() => random() - 0.5);
    const timeline = new Timeline();
    while (arrivals.length > 0) {
      timeline.merge(arrivals.splice(0, 1 + Math.floor(random() * 5)));
    }
    assert.deepEqual(read(timeline), entries(1, 40).map(({ sequence }) => sequence), `seed ${seed}`);
    assert.ok(timeline.isDense);
  }
});

test("merging tells which entries are new, ascending", () => {
  const timeline = new Timeline();
  timeline.merge(entries(3, 5));
  const added = timeline.merge([entry(6), entry(4), entry(2)]);
  assert.deepEqual(added.map(({ sequence }) => sequence), [2, 6]);
});

test("a missing sequence is a hole until it arrives", () => {
  const timeline = new Timeline();
  timeline.merge([entry(7), entry(9)]);
  assert.equal(timeline.isDense, false);
  timeline.merge([entry(8)]);
  assert.equal(timeline.isDense, true);
});

test("entries that are not shown fill their place in the sequence", () => {
  const timeline = new Timeline();
  timeline.merge([entry(1), entry(2, { type: "reaction" }), entry(3)]);
  assert.ok(timeline.isDense);
  assert.deepEqual(read(timeline), [1, 3]);
});

test("a message that one sender sent twice is shown where it stood first", () => {
  const timeline = new Timeline();
  timeline.merge([entry(5, { id: "same" })]);
  timeline.merge([entry(3), entry(4, { id: "same" })]);
  assert.deepEqual(read(timeline), [3, 4]);
  assert.ok(timeline.isDense);
});

test("messages of two senders may have the same id", () => {
  const timeline = new Timeline();
  timeline.merge([entry(1, { id: "same" }), entry(2, { id: "same", userId: "u2" })]);
  assert.deepEqual(read(timeline), [1, 2]);
});

test("a notice stays where it was put", () => {
  const timeline = new Timeline();
  timeline.merge(entries(4, 5));
  timeline.note("look");
  timeline.merge([entry(6), entry(3)]);
  assert.deepEqual(read(timeline), [3, 4, 5, "look", 6]);
});

test("a notice can stand in an empty list", () => {
  const timeline = new Timeline();
  timeline.note("look");
  timeline.merge(entries(1, 1));
  assert.deepEqual(read(timeline), ["look", 1]);
});

test("the first entry of a room is the beginning", () => {
  const timeline = new Timeline();
  timeline.merge(entries(2, 3));
  assert.equal(timeline.startReached, false);
  timeline.merge([entry(1)]);
  assert.equal(timeline.startReached, true);
});

test("trimming drops the oldest, and the beginning with them", () => {
  const timeline = new Timeline();
  timeline.merge(entries(1, 4));
  timeline.note("early");
  timeline.merge(entries(5, 10));
  timeline.trim(3);
  assert.deepEqual(read(timeline), [8, 9, 10]);
  assert.equal(timeline.startReached, false);
  timeline.merge(entries(1, 7));
  assert.deepEqual(read(timeline), entries(1, 10).map(({ sequence }) => sequence));
});

test("after a reset nothing is left", () => {
  const timeline = new Timeline();
  timeline.merge(entries(1, 4));
  timeline.note("look");
  timeline.reset();
  assert.deepEqual([read(timeline), timeline.first, timeline.last, timeline.startReached], [[], 0, 0, false]);
});

test("edits, removals and restorations change what is shown, in whatever order they arrive", () => {
  const said = [
    ...entries(1, 3),
    entry(4, { type: "edit", target: 1, content: "first edit" }),
    entry(5, { type: "edit", target: 1, content: "second edit" }),
    entry(6, { type: "removed", target: 2, content: "" }),
    entry(7, { type: "removed", target: 3, content: "" }),
    entry(8, { type: "restored", target: 3, content: "" }),
  ];
  for (let seed = 1; seed <= 50; seed += 1) {
    const random = generator(seed);
    const timeline = new Timeline();
    for (const arrived of [...said].sort(() => random() - 0.5)) {
      timeline.merge([arrived]);
    }
    const shown = timeline.items().map((item) => (isNotice(item) ? item : [item.type, item.content, item.edited]));
    const expected = [["text", "second edit", true], ["placeholder", "", false], ["text", "text 3", false]];
    assert.deepEqual(shown, expected, `seed ${seed}`);
  }
});

test("an edited message that is removed keeps none of its texts, nor does a placeholder get them", () => {
  const timeline = new Timeline();
  timeline.merge([
    entry(1),
    entry(2, { type: "placeholder", content: "" }),
    entry(3, { type: "edit", target: 1, content: "secret" }),
    entry(4, { type: "edit", target: 2, content: "secret" }),
    entry(5, { type: "removed", target: 1, content: "" }),
  ]);
  const texts = timeline.items().map((item) => (isNotice(item) ? item.text : item.content));
  assert.deepEqual(texts, ["", ""]);
});

test("what is restored is shown again, once it was read from the server anew", () => {
  const timeline = new Timeline();
  timeline.merge([
    entry(1, { type: "placeholder", content: "" }),
    entry(2, { type: "placeholder", content: "", target: 1 }),
    entry(3, { type: "removed", target: 1, content: "" }),
    entry(4, { type: "restored", target: 1, content: "" }),
  ]);
  assert.deepEqual(timeline.hidden(1), [1, 2]);
  timeline.restore([entry(1, { content: "first" }), entry(2, { type: "edit", target: 1, content: "second" }), entry(9)]);
  const shown = timeline.items().map((item) => (isNotice(item) ? item : [item.sequence, item.content]));
  assert.deepEqual(shown, [[1, "second"]]);
});
