import assert from "node:assert/strict";
import { test } from "node:test";

import { MAX_ATTEMPTS, MAX_DRAFTS, Outbox } from "../src/outbox.ts";

function outboxOf(...ids: string[]): Outbox {
  const outbox = new Outbox();
  for (const id of ids) {
    outbox.add({ id, content: `text of ${id}`, author: "Ada", time: 0, replyTo: 0 });
  }
  return outbox;
}

function read(outbox: Outbox): string[] {
  return outbox.drafts.map(({ id, state }) => `${id} ${state}`);
}

test("messages go out in the order in which they were written, one at a time", () => {
  const outbox = outboxOf("a", "b");
  assert.equal(outbox.take()?.id, "a");
  assert.equal(outbox.take(), null);
  outbox.accept("a");
  assert.equal(outbox.take()?.id, "b");
  assert.deepEqual(read(outbox), ["a accepted", "b sending"]);
});

test("what the room shows is no draft any more, whatever its state", () => {
  const outbox = outboxOf("a", "b", "c");
  outbox.refuse("a", "no");
  outbox.take();
  assert.equal(outbox.confirm("a"), true);
  assert.equal(outbox.confirm("b"), true);
  assert.equal(outbox.confirm("unknown"), false);
  assert.deepEqual(read(outbox), ["c waiting"]);
});

test("an interrupted message waits in its place, and the attempt does not count", () => {
  const outbox = outboxOf("a", "b");
  outbox.take();
  outbox.interrupt();
  assert.deepEqual(read(outbox), ["a waiting", "b waiting"]);
  assert.deepEqual([outbox.take()?.id, outbox.drafts[0]?.attempts], ["a", 1]);
});

test("a postponed message is the next again, until its attempts are used up", () => {
  const outbox = outboxOf("a", "b");
  for (let attempt = 1; attempt < MAX_ATTEMPTS; attempt += 1) {
    assert.equal(outbox.take()?.id, "a");
    assert.equal(outbox.postpone("a", "busy")?.state, "waiting");
  }
  outbox.take();
  assert.equal(outbox.postpone("a", "busy")?.state, "failed");
  assert.equal(outbox.take()?.id, "b");
  assert.equal(outbox.drafts[0]?.reason, "busy");
});

test("a refused message lets the next go on", () => {
  const outbox = outboxOf("a", "b");
  outbox.take();
  outbox.refuse("a", "no");
  assert.equal(outbox.take()?.id, "b");
});

test("a retried message goes to the end with the same id and new attempts", () => {
  const outbox = outboxOf("a", "b");
  outbox.take();
  outbox.refuse("a", "no");
  outbox.retry("a");
  assert.deepEqual(read(outbox), ["b waiting", "a waiting"]);
  assert.deepEqual([outbox.drafts[1]?.attempts, outbox.drafts[1]?.reason], [0, ""]);
});

test("only failed messages can be retried or discarded", () => {
  const outbox = outboxOf("a", "b");
  outbox.take();
  outbox.retry("a");
  outbox.discard("a");
  outbox.discard("b");
  assert.deepEqual(read(outbox), ["a sending", "b waiting"]);
  outbox.refuse("a", "no");
  outbox.discard("a");
  assert.deepEqual(read(outbox), ["b waiting"]);
});

test("a full outbox refuses more, and says so", () => {
  const ids = Array.from({ length: MAX_DRAFTS }, (_, index) => `m${index}`);
  const outbox = outboxOf(...ids);
  const message = { id: "one more", content: "", author: "", time: 0, replyTo: 0 };
  assert.throws(() => outbox.add(message), RangeError);
  outbox.confirm("m0");
  outbox.add(message);
});

test("an id stands in the outbox once", () => {
  assert.throws(() => outboxOf("a", "a"), RangeError);
});

test("when the room was read anew, what the server has acknowledged is settled", () => {
  const outbox = outboxOf("a", "b");
  outbox.take();
  outbox.accept("a");
  outbox.settle();
  assert.deepEqual(read(outbox), ["b waiting"]);
});

test("restored drafts go out again before new ones, but those that failed only by hand", () => {
  const before = outboxOf("a", "b", "c");
  before.refuse("a", "no");
  before.take();
  const outbox = outboxOf("d");
  outbox.restore(before.drafts);
  assert.deepEqual(read(outbox), ["a failed", "b waiting", "c waiting", "d waiting"]);
});
