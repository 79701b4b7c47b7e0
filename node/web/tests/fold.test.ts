import assert from "node:assert/strict";
import { test } from "node:test";

import { expectedOf } from "../src/act.ts";
import { Fold } from "../src/fold.ts";
import type { Entry } from "../src/message.ts";
import { entry } from "./entries.ts";

function react(sequence: number, userId: string, emoji: string, type = "reaction"): Entry {
  return entry(sequence, { type, userId, emoji, target: 1, content: "" });
}

test("somebody who reacts twice counts once, and the last word counts", () => {
  const fold = new Fold([
    react(2, "u1", "👍"),
    react(3, "u2", "👍"),
    react(4, "u2", "👍"),
    react(5, "u1", "👍", "unreaction"),
    react(6, "u3", "🎉"),
    react(7, "u3", "🎉", "unreaction"),
    react(8, "u4", "🌱", "unreaction"),
  ]);
  assert.deepEqual(fold.show(entry(1)).reactions, [{ emoji: "👍", users: ["u2"] }]);
});

test("what was pinned last and is still pinned is the newest pin", () => {
  const pins = (...words: [string, number][]): number =>
    new Fold(words.map(([type, target], index) => entry(10 + index, { type, target }))).newestPin;
  assert.equal(pins(["pin", 1], ["pin", 2]), 2);
  assert.equal(pins(["pin", 1], ["pin", 2], ["pin", 1]), 1);
  assert.equal(pins(["pin", 1], ["pin", 2], ["unpin", 2]), 1);
  assert.equal(pins(["pin", 1], ["removed", 1]), 0);
});

test("a removed message keeps neither text nor reactions nor pin, but the reason", () => {
  const fold = new Fold([
    react(2, "u1", "👍"),
    entry(3, { type: "pin", target: 1 }),
    entry(4, { type: "removed", target: 1, content: "", reason: "off topic" }),
  ]);
  const { type, content, reactions, pinned, reason } = fold.show(entry(1));
  assert.deepEqual([type, content, reactions, pinned, reason], ["placeholder", "", [], false, "off topic"]);
});

test("all messages of a user are removed at once, from a sequence to the removal", () => {
  const clear = entry(5, { type: "removed", content: "", reason: "flood", cleared: { user: "u1", since: 2 } });
  const fold = new Fold([clear]);
  const types = [entry(1), entry(2), entry(3, { userId: "u2" }), entry(4), entry(6)].map((one) => fold.show(one).type);
  assert.deepEqual(types, ["text", "placeholder", "text", "placeholder", "text"]);
  assert.equal(fold.show(entry(2)).reason, "flood");
});

test("of removals and restorations of one message the newest counts", () => {
  const clear = (sequence: number): Entry => entry(sequence, { type: "removed", cleared: { user: "u1", since: 0 } });
  const restored = (sequence: number): Entry => entry(sequence, { type: "restored", target: 1, content: "" });
  assert.equal(new Fold([clear(5), restored(6)]).show(entry(1)).type, "text");
  assert.equal(new Fold([restored(5), clear(6)]).show(entry(1)).type, "placeholder");
  assert.equal(new Fold([clear(5), restored(6), clear(7)]).show(entry(1)).type, "placeholder");
});

test("what was asked for counts before it has come", () => {
  const expected = expectedOf({ id: "a", kind: "react", target: 1, emoji: "👍" }, "me", 0);
  assert.deepEqual(new Fold([entry(1), expected]).show(entry(1)).reactions, [{ emoji: "👍", users: ["me"] }]);
});
