/** What the people of a room are called. */

import { anonymous, type Entry } from "./message.ts";

/** Names that are remembered: many more than are on the screen. */
const MAX_NAMES = 5_000;

export class People {
  /** This page's own user id; empty until the server has told it. */
  me = "";
  /** By user: the name, and the sequence of the message that it was taken from. */
  readonly #names = new Map<string, { name: string; sequence: number }>();

  /** Learn names from entries; the newest that a user gave counts. */
  learn(entries: readonly Entry[]): void {
    for (const { userId, author, sequence } of entries) {
      const known = this.#names.get(userId);
      if (author !== anonymous(userId) && sequence > (known?.sequence ?? -1)) {
        this.#set(userId, author, sequence);
      }
    }
  }

  /** A name that a site vouches for; a name that the user gave later goes before. */
  introduce(userId: string, name: string): void {
    if (name && !this.#names.has(userId)) {
      this.#set(userId, name, 0);
    }
  }

  nameOf(userId: string): string {
    return this.#names.get(userId)?.name ?? anonymous(userId);
  }

  #set(userId: string, name: string, sequence: number): void {
    this.#names.delete(userId);
    this.#names.set(userId, { name, sequence });
    const [oldest] = this.#names.keys();
    if (this.#names.size > MAX_NAMES && oldest !== undefined) {
      this.#names.delete(oldest);
    }
  }
}

/** Names in a sentence: `Ann`, `Ann and Bo`, `Ann, Bo and 3 others`. */
export function enumerate(names: readonly string[], most: number): string {
  const named = names.length > most ? names.slice(0, most - 1) : names;
  const rest = names.length - named.length;
  const parts = rest > 0 ? [...named, `${rest} others`] : [...named];
  const last = parts.pop() ?? "";
  return parts.length > 0 ? `${parts.join(", ")} and ${last}` : last;
}
