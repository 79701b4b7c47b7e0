import assert from "node:assert/strict";
import { test } from "node:test";

import { MOST_ROWS, RowWindow } from "../src/row_window.ts";

/** Keys of rows from one number to another, both included; each tenth row is a line without a key. */
function keysOf(first: number, last: number): string[] {
  return Array.from({ length: last - first + 1 }, (_, index) => {
    const number = first + index;
    return number % 10 === 0 ? "" : `row ${number}`;
  });
}

test("at the end of a long list stand its last rows", () => {
  const window = new RowWindow();
  window.follow(keysOf(1, 1000));
  assert.equal(window.to, 1000);
  assert.ok(window.isAtEnd);
  assert.ok(window.to - window.from < MOST_ROWS);
});

test("going up and down, every row comes by, and never too many stand there", () => {
  const keys = keysOf(1, 1000);
  const window = new RowWindow();
  window.follow(keys);
  const stretches: [number, number][] = [[window.from, window.to]];
  while (window.from > 0) {
    window.up(keys);
    stretches.push([window.from, window.to]);
  }
  while (!window.isAtEnd) {
    window.down(keys);
    stretches.push([window.from, window.to]);
  }
  stretches.reduce((before, next) => {
    assert.ok(next[0] <= before[1] && before[0] <= next[1], "a stretch goes on where the one before was");
    assert.ok(next[1] - next[0] <= MOST_ROWS);
    return next;
  });
});

test("who reads stays at the same rows when others come before and after", () => {
  const window = new RowWindow();
  window.follow(keysOf(500, 700));
  window.up(keysOf(500, 700));
  const first = keysOf(500, 700).slice(window.from).find((key) => key !== "");
  window.keep(keysOf(450, 702));
  assert.equal(keysOf(450, 702).slice(window.from).find((key) => key !== ""), first);
  assert.ok(window.isAtEnd);
});

test("a row that is not there is gone to, and one that is stays where it is", () => {
  const keys = keysOf(1, 1000);
  const window = new RowWindow();
  window.follow(keys);
  const { from, to } = window;
  window.around(keys, from + 1);
  assert.deepEqual([window.from, window.to], [from, to]);
  window.around(keys, 100);
  assert.ok(window.from <= 100 && 100 < window.to);
  assert.equal(window.isAtEnd, false);
});

test("a reader whose rows are all gone is at the end of the new list", () => {
  const window = new RowWindow();
  window.follow(keysOf(1, 50));
  window.keep(keysOf(200, 250));
  assert.ok(window.isAtEnd);
});
