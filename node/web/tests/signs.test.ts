import assert from "node:assert/strict";
import { mock, test, type TestContext } from "node:test";

import { emojiIn } from "../src/emoji_picker.ts";
import { enumerate, People } from "../src/people.ts";
import { Reading } from "../src/reading.ts";
import { Standing } from "../src/rights.ts";
import { readNotice, readRoomState, readSignal } from "../src/signal.ts";
import { describeSystem } from "../src/system.ts";
import { describeTyping, TypingTeller, Typists } from "../src/typing.ts";
import { entry } from "./entries.ts";

function withClock(context: TestContext): void {
  mock.timers.enable({ apis: ["setTimeout", "Date"], now: 1_000_000 });
  context.after(() => mock.timers.reset());
}

test("signals are told from everything else", () => {
  assert.deepEqual(readSignal({ type: "typing", userId: "u1", typing: true }), { kind: "typing", userId: "u1", typing: true });
  assert.deepEqual(readSignal({ type: "read", userId: "u1", sequence: 7 }), { kind: "read", userId: "u1", sequence: 7 });
  assert.deepEqual(readSignal({ type: "presence", count: 3 }), { kind: "presence", count: 3 });
  for (const data of [null, 5, { type: "typing", userId: "u1" }, { type: "read", userId: 5, sequence: 7 }, { type: "x" }]) {
    assert.equal(readSignal(data), null);
  }
});

test("typing is told when it begins, now and then while it goes on, and when it ends", (context) => {
  withClock(context);
  const told: boolean[] = [];
  const teller = new TypingTeller((typing) => told.push(typing));
  for (let second = 0; second < 6; second += 1) {
    teller.typed();
    mock.timers.tick(1_000);
  }
  assert.deepEqual(told, [true, true]);
  teller.stop();
  teller.stop();
  assert.deepEqual(told, [true, true, false]);
});

test("who stops without a word has stopped after a while, for this page and for the others", (context) => {
  withClock(context);
  const told: boolean[] = [];
  const teller = new TypingTeller((typing) => told.push(typing));
  teller.typed();
  let changes = 0;
  const typists = new Typists(() => (changes += 1));
  typists.heed("u1", true);
  mock.timers.tick(3_000);
  typists.heed("u2", true);
  assert.deepEqual(typists.users, ["u1", "u2"]);
  mock.timers.tick(4_000);
  assert.deepEqual([told, typists.users], [[true, false], ["u2"]]);
  mock.timers.tick(4_000);
  assert.deepEqual([typists.users, changes > 2], [[], true]);
  typists.heed("u3", false);
  assert.deepEqual(typists.users, []);
});

test("typing and lists of names are said as people say them", () => {
  assert.equal(describeTyping([]), "");
  assert.equal(describeTyping(["Ann"]), "Ann is typing…");
  assert.equal(describeTyping(["Ann", "Bo"]), "Ann and Bo are typing…");
  assert.equal(describeTyping(["Ann", "Bo", "Cy", "Di"]), "Several people are typing…");
  assert.equal(enumerate(["Ann", "Bo", "Cy", "Di"], 3), "Ann, Bo and 2 others");
});

test("the newest name that a user gave counts, then the site's, then what the id says", () => {
  const people = new People();
  assert.deepEqual([people.nameOf("u1"), people.nameOf("guest:123abc")], ["u1", "Guest 3abc"]);
  people.introduce("u1", "Ada L.");
  people.learn([entry(5, { author: "Ada" }), entry(3, { author: "Countess" }), entry(7, { author: "u1" })]);
  people.introduce("u1", "Ada L.");
  assert.equal(people.nameOf("u1"), "Ada");
});

test("what is on the screen is told to be read, at most once in a while", (context) => {
  withClock(context);
  const told: number[] = [];
  const reading = new Reading((sequence) => told.push(sequence));
  reading.look(true, true);
  reading.seen(3);
  assert.deepEqual(told, []);
  reading.begin(1);
  reading.seen(4);
  reading.seen(5);
  assert.deepEqual(told, [3]);
  mock.timers.tick(1_000);
  assert.deepEqual([told, reading.line], [[3, 5], 1]);
});

test("what comes while the person looks away, or is scrolled up, is not read", (context) => {
  withClock(context);
  const told: number[] = [];
  const reading = new Reading((sequence) => told.push(sequence));
  reading.begin(0);
  reading.seen(3);
  reading.look(true, true);
  mock.timers.tick(1_000);
  reading.look(false, true);
  reading.seen(5);
  assert.deepEqual([told, reading.upTo, reading.line], [[3], 3, 3]);
  reading.look(true, false);
  mock.timers.tick(1_000);
  assert.deepEqual([told, reading.upTo], [[3], 3]);
  reading.look(true, true);
  assert.deepEqual([told, reading.upTo, reading.line], [[3, 5], 5, 3]);
  reading.wrote();
  assert.equal(reading.line, null);
});

test("after a lost connection it is told again, and what another window read counts", (context) => {
  withClock(context);
  const told: number[] = [];
  const reading = new Reading((sequence) => told.push(sequence));
  reading.begin(0);
  reading.look(true, true);
  reading.seen(3);
  reading.close();
  reading.seen(4);
  assert.deepEqual([told, reading.upTo], [[3], 4]);
  reading.open();
  assert.deepEqual(told, [3, 4]);
  reading.look(false, true);
  reading.seen(9);
  reading.readElsewhere(8);
  assert.equal(reading.upTo, 8);
});

test("a mark of another never goes back", () => {
  const reading = new Reading(() => {});
  assert.deepEqual([reading.heed("u2", 5), reading.heed("u2", 4), reading.heed("u3", 2)], [true, false, true]);
  assert.deepEqual(reading.readersOf(2, "me"), ["u2", "u3"]);
  assert.deepEqual(reading.readersOf(3, "u2"), []);
});

test("moderators' words say what may be written and done", () => {
  const standing = new Standing();
  const heed = (given: object): void => {
    const notice = readNotice({ type: "notice", channel: "r", ...given });
    assert.ok(notice);
    standing.heed(notice);
  };
  standing.identify("", true);
  assert.deepEqual(standing.rights, { act: true, pin: false, moderate: false });
  heed({ event: "slowmode", seconds: 10 });
  assert.match(standing.restriction(0), /10 seconds/u);
  heed({ event: "locked" });
  assert.match(standing.restriction(0), /locked/u);
  heed({ event: "muted", until: "1970-01-01T00:00:10.000Z" });
  assert.match(standing.restriction(9_000), /muted/u);
  assert.match(standing.restriction(11_000), /locked/u);
  heed({ event: "role", role: "moderator" });
  assert.equal(standing.restriction(11_000), "");
  assert.deepEqual(standing.rights, { act: true, pin: true, moderate: true });
});

test("what the room says of itself goes before what is guessed", () => {
  const standing = new Standing();
  standing.identify("", false);
  assert.equal(standing.rights.pin, true);
  const state = readRoomState({ title: "Garden", role: "member", slow: 0, locked: false, muted: true });
  assert.ok(state);
  standing.learn(state);
  assert.deepEqual([standing.title, standing.rights.pin], ["Garden", false]);
  assert.match(standing.restriction(0), /muted/u);
  assert.equal(readRoomState({}), null);
});

test("events of a room are said in sentences", () => {
  const people = new People();
  people.me = "me";
  people.introduce("u1", "Ada");
  const say = (event: string, detail: Record<string, unknown>): string =>
    describeSystem(entry(1, { type: "system", userId: "system", event, detail }), people);
  assert.equal(say("joined", { user: "u1" }), "Ada joined");
  assert.equal(say("renamed", { by: "me", title: "Kitchen" }), "You renamed the room to “Kitchen”");
  assert.equal(say("muted", { by: "u1", user: "u2" }), "Ada muted u2");
  assert.equal(say("something new", {}), "The room has changed (something new)");
});

test("one emoji is a reaction, and words or several are not", () => {
  for (const emoji of ["👍", "❤️", "👩‍🚀", "🇫🇷", "1️⃣", ":wave:", " 🌻 "]) {
    assert.equal(emojiIn(emoji), emoji.trim());
  }
  for (const text of ["", "lol", "👍👍", "a", "1", ": :", "👍 x"]) {
    assert.equal(emojiIn(text), null, text);
  }
});
