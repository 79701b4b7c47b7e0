import assert from "node:assert/strict";
import { mock, test, type TestContext } from "node:test";

import { RESEND } from "../src/backoff.ts";
import { Delivery } from "../src/delivery.ts";
import type { Message } from "../src/message.ts";
import { MAX_ATTEMPTS, Outbox } from "../src/outbox.ts";
import { turn } from "./entries.ts";

const BUSY = { code: 100, message: "internal server error" };
const TIMEOUT = { code: 1, message: "timeout" };
const LIMITED = { code: 111, message: "wait 3 seconds" };
const DENIED = { code: 103, message: "permission denied" };

/** A server that answers when the test says so. */
class Server {
  readonly received: string[] = [];
  readonly outbox = new Outbox<Message>();
  /** What will not be sent again by itself, with the code of the last answer. */
  readonly failed: [string, number][] = [];
  readonly delivery = new Delivery(
    this.outbox,
    (message) => this.#publish(message),
    () => {},
    ({ id }, { code }) => this.failed.push([id, code]),
  );
  readonly #answers: { resolve: () => void; reject: (error: object) => void }[] = [];

  write(...ids: string[]): void {
    for (const id of ids) {
      this.outbox.add({ id, content: id, author: "Ada", time: 0, replyTo: 0 });
    }
    this.delivery.nudge();
  }

  /** Answer the oldest request that has no answer yet. */
  async answer(error?: object): Promise<void> {
    const { resolve, reject } = this.#answers.shift() ?? assert.fail("nothing was asked");
    if (error) {
      reject(error);
    } else {
      resolve();
    }
    await turn();
  }

  states(): string[] {
    return this.outbox.drafts.map(({ id, state }) => `${id} ${state}`);
  }

  #publish({ id }: Message): Promise<void> {
    this.received.push(id);
    return new Promise((resolve, reject) => this.#answers.push({ resolve, reject }));
  }
}

function withClock(context: TestContext): void {
  mock.timers.enable({ apis: ["setTimeout"] });
  context.after(() => mock.timers.reset());
}

test("nothing goes out before the room can be reached, then all in order", async () => {
  const server = new Server();
  server.write("a", "b", "c");
  assert.deepEqual(server.received, []);
  server.delivery.open();
  await server.answer();
  await server.answer();
  assert.deepEqual(server.received, ["a", "b", "c"]);
});

test("after a lost connection the same message goes out again, and its late answer counts for nothing", async () => {
  const server = new Server();
  server.delivery.open();
  server.write("a", "b");
  server.delivery.close();
  server.delivery.open();
  assert.deepEqual(server.received, ["a", "a"]);
  await server.answer({ code: 11, message: "connection closed" });
  assert.deepEqual(server.states(), ["a sending", "b waiting"]);
  await server.answer();
  assert.deepEqual(server.received, ["a", "a", "b"]);
});

for (const fault of [BUSY, TIMEOUT, LIMITED]) {
  test(`code ${fault.code} is temporary: the same message goes out again before the next`, async (context) => {
    withClock(context);
    const server = new Server();
    server.delivery.open();
    server.write("a", "b");
    await server.answer(fault);
    assert.deepEqual(server.states(), ["a waiting", "b waiting"]);
    assert.notEqual(server.outbox.drafts[0]?.reason, "");
    mock.timers.tick(RESEND.most);
    await server.answer();
    assert.deepEqual(server.received, ["a", "a", "b"]);
  });
}

test("a message fails after the last attempt, and the next goes on", async (context) => {
  withClock(context);
  const server = new Server();
  server.delivery.open();
  server.write("a", "b");
  for (let attempt = 1; attempt <= MAX_ATTEMPTS; attempt += 1) {
    await server.answer(BUSY);
    mock.timers.tick(RESEND.most);
  }
  assert.deepEqual(server.states(), ["a failed", "b sending"]);
  assert.deepEqual(server.failed, [["a", BUSY.code]]);
});

test("a refused message fails at once, with the reason", async () => {
  const server = new Server();
  server.delivery.open();
  server.write("a", "b");
  await server.answer(DENIED);
  assert.deepEqual(server.states(), ["a failed", "b sending"]);
  assert.equal(server.outbox.drafts[0]?.reason, "you may not do this here");
  assert.deepEqual(server.failed, [["a", DENIED.code]]);
});

test("a lost connection ends a back-off", async (context) => {
  withClock(context);
  const server = new Server();
  server.delivery.open();
  server.write("a");
  await server.answer(BUSY);
  server.delivery.close();
  mock.timers.tick(RESEND.most);
  assert.deepEqual(server.received, ["a"]);
  server.delivery.open();
  assert.deepEqual(server.received, ["a", "a"]);
});
