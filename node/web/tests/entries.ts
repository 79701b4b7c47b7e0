/** Entries for tests. */

import type { Entry } from "../src/message.ts";

/** An entry with this sequence; everything else follows from it unless it is given. */
export function entry(sequence: number, given: Partial<Entry> = {}): Entry {
  return {
    id: `m${sequence}`,
    sequence,
    userId: "u1",
    type: "text",
    content: `text ${sequence}`,
    author: "Ada",
    time: sequence * 1000,
    target: 0,
    replyTo: 0,
    emoji: "",
    reason: "",
    cleared: null,
    event: "",
    detail: {},
    ...given,
  };
}

/** Entries from one sequence to another, both included. */
export function entries(first: number, last: number): Entry[] {
  return Array.from({ length: last - first + 1 }, (_, index) => entry(first + index));
}

/** Let everything that is settled take its course. */
export async function turn(): Promise<void> {
  for (let step = 0; step < 10; step += 1) {
    await Promise.resolve();
  }
}
