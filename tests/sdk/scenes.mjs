// Scenes that the JavaScript SDK plays against a real node. Called as `node scenes.mjs SCENE`, with the scene's
// arguments as JSON in CHAT_SCENE; the status is 0 if all went as it must. "kill" asks the caller, by a line on
// standard output, to kill the node and start it again, and waits for a line on standard input.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { Centrifuge } from "centrifuge";
import { Centrifuge as BinaryCentrifuge } from "centrifuge/build/protobuf";
import WebSocket from "ws";

const { url, room, tokens, transport } = JSON.parse(process.env.CHAT_SCENE);
const SCENE_MILLISECONDS = 25_000; // never reached; less than the caller's patience, so that the reason is told
const message = (content) => ({ id: randomUUID(), content });
// The SDK takes and gives data as bytes in Protobuf. The indentation brings newlines, which JSON clients must not get.
const pack = (data) => new TextEncoder().encode(JSON.stringify(data, null, 1));
const unpack = (data) => (data instanceof Uint8Array ? JSON.parse(new TextDecoder().decode(data)) : data);

/** Events of one name, to be awaited one by one in the order in which they came. */
function events(emitter, name) {
  const arrived = [];
  const waiting = [];
  emitter.on(name, (context) => (waiting.length ? waiting.shift()(context) : arrived.push(context)));
  return {
    next: () =>
      arrived.length ? Promise.resolve(arrived.shift()) : new Promise((resolve) => waiting.push(resolve)),
    count: () => arrived.length,
  };
}

/** What browsers have and Node.js has not: reads a stream of events by fetch, and never connects again by itself. */
class EventSource {
  constructor(address) {
    this.ending = new AbortController();
    this.read(address).catch((error) => this.ending.signal.aborted || this.onerror(error));
  }

  async read(address) {
    const response = await fetch(address, { signal: this.ending.signal });
    assert.equal(response.headers.get("content-type"), "text/event-stream");
    this.onopen();
    let text = "";
    for await (const part of response.body.pipeThrough(new TextDecoderStream())) {
      const events = (text + part).split("\n\n");
      text = events.pop();
      for (const event of events) this.onmessage({ data: event.slice("data: ".length) });
    }
    this.onerror(new Error("the stream ended"));
  }

  close() {
    this.ending.abort();
  }
}

/** Where clients of a transport connect. */
function endpoint(name) {
  const path = (end) => url.replace(/^ws/, "http").replace("/connection/websocket", end);
  const endpoint = path(`/connection/${name}`);
  return [[{ transport: name, endpoint }], { emulationEndpoint: path("/emulation"), eventsource: EventSource }];
}

/** Whether a client speaks Protobuf; over http_stream it is called `protobuf_http_stream` here. */
const isBinary = (over) => over.startsWith("protobuf");

/** A client that connects, over a transport or in Protobuf over WebSocket; without options, a guest. */
function client({ over = transport, ...options } = {}) {
  const socket = over === "websocket" || over === "protobuf";
  const [address, means] = socket ? [url, { websocket: WebSocket }] : endpoint(over.replace("protobuf_", ""));
  const made = new (isBinary(over) ? BinaryCentrifuge : Centrifuge)(address, { maxReconnectDelay: 200, ...means, ...options });
  made.connect();
  return made;
}

/** A subscription that is made, with the events it will emit. */
function member(of, channel, options = {}) {
  const subscription = of.newSubscription(channel, { maxResubscribeDelay: 200, ...options });
  const heard = Object.fromEntries(
    ["subscribed", "unsubscribed", "publication", "join", "leave"].map((name) => [name, events(subscription, name)]),
  );
  if (of instanceof BinaryCentrifuge) {
    const publish = subscription.publish.bind(subscription);
    subscription.publish = (data) => publish(pack(data));
  }
  subscription.subscribe();
  return { subscription, heard };
}

const scenes = {
  async publish() {
    const ann = member(client({ token: tokens.ann }), room);
    const bob = member(client({ token: tokens.bob }), room);
    await Promise.all([ann.subscription.ready(), bob.subscription.ready()]);
    const sent = message("Hello");
    await ann.subscription.publish(sent);
    await ann.subscription.publish(sent);
    const { offset, data: given } = await bob.heard.publication.next();
    const data = unpack(given);
    assert.equal(offset, 1);
    assert.deepEqual(data, { ...data, ...sent, userId: "ann", sequence: 1, chatRoom: room, type: "text" });
    assert.equal((await ann.subscription.history({ limit: 0 })).offset, 1);
  },

  async order() {
    const readers = ["websocket", "protobuf", "http_stream", "protobuf_http_stream", "sse", "sse"].map((over) => member(client({ over }), room));
    await Promise.all(readers.map(({ subscription }) => subscription.ready()));
    const writers = ["http_stream", "websocket", "protobuf", "protobuf_http_stream", "sse"].map((over) => client({ over, token: tokens.ann }));
    const numbers = [...Array(10).keys()];
    const writing = writers.map(async (writer, of) => {
      const { subscription } = member(writer, room);
      await subscription.ready();
      for (const number of numbers) await subscription.publish(message(`${of}:${number}`));
    });
    await Promise.all(writing);
    const total = writers.length * numbers.length;
    const heard = await Promise.all(
      readers.map(async ({ heard: { publication } }) => {
        const got = [];
        while (got.length < total) got.push(await publication.next());
        return got.map(({ offset, data }) => `${offset} ${unpack(data).content}`);
      }),
    );
    assert.deepEqual(heard[0].map((line) => Number(line.split(" ")[0])), [...Array(total).keys()].map((at) => at + 1));
    for (const other of heard.slice(1)) assert.deepEqual(other, heard[0]);
  },

  async history() {
    const { subscription } = member(client(), room);
    await subscription.ready();
    for (let number = 1; number <= 5; number++) await subscription.publish(message(`m${number}`));
    const { epoch } = await subscription.history({ limit: 0 });
    const page = await subscription.history({ limit: 2, since: { epoch, offset: 1 } });
    assert.deepEqual(page.publications.map(({ offset, data }) => [offset, unpack(data).content]), [[2, "m2"], [3, "m3"]]);
  },

  async delta() {
    const ann = member(client({ token: tokens.ann }), room);
    const listening = client({ token: tokens.bob });
    const bob = member(listening, room, { delta: "fossil" });
    await Promise.all([ann.subscription.ready(), bob.subscription.ready()]);
    const text = 'ü "quoted" '.repeat(20);
    const same = async () => {
      await ann.subscription.publish(message(text));
      const [whole, applied] = [await ann.heard.publication.next(), await bob.heard.publication.next()];
      assert.deepEqual([applied.offset, unpack(applied.data)], [whole.offset, unpack(whole.data)]);
      assert.equal(unpack(applied.data).content, text);
    };
    const deltas = () => bob.subscription.deltaStats().numDeltaPayloads;
    for (let number = 0; number < 4; number++) await same();
    assert.equal(deltas(), 3);
    listening.disconnect();
    await ann.subscription.publish(message("missed"));
    listening.connect();
    assert.equal(unpack((await bob.heard.publication.next()).data).content, "missed");
    await ann.heard.publication.next();
    for (let number = 0; number < 3; number++) await same();
    assert.equal(deltas(), 5);
  },

  async read() {
    const ann = member(client({ token: tokens.ann }), room);
    const reading = client({ token: tokens.bob });
    const bob = member(reading, room);
    await Promise.all([ann.subscription.ready(), bob.subscription.ready()]);
    const ask = async (method, given = {}) => {
      const data = { channel: room, ...given };
      return unpack((await reading.rpc(method, isBinary(transport) ? pack(data) : data)).data);
    };
    for (const mentions of [[], ["cat"], ["bob"]]) await ann.subscription.publish({ ...message("Hello"), mentions });
    assert.deepEqual(await ask("unread"), { unread: 3, mentions: 1, read: 0 });
    assert.deepEqual(await ask("read", { sequence: 2 }), { read: 2 });
    assert.deepEqual(await ask("read", { sequence: 1 }), { read: 2 });
    assert.deepEqual(await ask("unread"), { unread: 1, mentions: 1, read: 2 });
    await assert.rejects(ask("read", { sequence: 9 }), { code: 107 });
    for (const { heard } of [ann, bob]) {
      for (let number = 0; number < 3; number++) await heard.publication.next();
      const { offset, data } = await heard.publication.next();
      assert.deepEqual([offset ?? 0, unpack(data)], [0, { type: "read", userId: "bob", sequence: 2 }]);
    }
    reading.disconnect();
    await ann.subscription.publish(message("missed"));
    reading.connect();
    const { offset, data } = await bob.heard.publication.next();
    assert.deepEqual([offset, unpack(data).content], [4, "missed"]);
  },

  async presence() {
    const ann = member(client({ token: tokens.ann }), room, { joinLeave: true });
    await ann.subscription.ready();
    const leaving = client({ token: tokens.bob });
    await member(leaving, room).subscription.ready();
    while ((await ann.heard.join.next()).info.user !== "bob");
    const { clients } = await ann.subscription.presence();
    assert.deepEqual(Object.values(clients).map(({ user }) => user).sort(), ["ann", "bob"]);
    assert.deepEqual(await ann.subscription.presenceStats(), { numClients: 2, numUsers: 2 });
    leaving.disconnect();
    assert.equal((await ann.heard.leave.next()).info.user, "bob");
  },

  async private() {
    const refused = member(client({ token: tokens.ann }), `$${room}`);
    assert.equal((await refused.heard.unsubscribed.next()).code, 103);
    await member(client({ token: tokens.bob }), `$${room}`, { token: tokens.room }).subscription.ready();
  },

  async badToken() {
    const refused = client({ token: `${tokens.ann}x` });
    assert.equal((await events(refused, "disconnected").next()).code, 3500);
  },

  async refresh() {
    const shown = [...tokens.brief];
    const asked = new Promise((resolve) => {
      const getToken = async () => {
        if (shown.length === 1) resolve(ann);
        return shown.length > 1 ? shown.shift() : shown[0];
      };
      const ann = client({ getToken });
      ann.connections = events(ann, "connected");
    });
    const ann = await asked;
    const { subscription } = member(ann, room);
    await subscription.ready();
    await subscription.publish(message("still here"));
    assert.equal(ann.connections.count(), 1);
  },

  async kill() {
    const ann = member(client({ token: tokens.ann }), room);
    const listening = client({ token: tokens.bob });
    const bob = member(listening, room);
    await Promise.all([ann.subscription.ready(), bob.subscription.ready()]);
    const before = await bob.heard.subscribed.next();
    await ann.subscription.publish(message("before"));
    assert.equal((await bob.heard.publication.next()).offset, 1);
    listening.disconnect();
    await ann.subscription.publish(message("missed"));
    console.log("kill");
    await once(createInterface({ input: process.stdin }), "line");
    await ann.heard.subscribed.next();
    await ann.heard.subscribed.next();
    await ann.subscription.publish(message("after"));
    listening.connect();
    const again = await bob.heard.subscribed.next();
    assert.deepEqual([again.wasRecovering, again.recovered], [true, true]);
    assert.equal(again.streamPosition.epoch, before.streamPosition.epoch);
    for (const expected of [[2, "missed"], [3, "after"]]) {
      const { offset, data } = await bob.heard.publication.next();
      assert.deepEqual([offset, unpack(data).content], expected);
    }
  },
};

setTimeout(() => {
  console.error(`the scene was not over after ${SCENE_MILLISECONDS} ms: something it waits for never came`);
  process.exit(1);
}, SCENE_MILLISECONDS);
await scenes[process.argv[2]]();
process.exit(0);
