/** Single messages from far up a room, which others answer or which are pinned. */

import type { Entry } from "./message.ts";

/** Reads one entry; null if the room does not show it. */
export type ReadEntry = (sequence: number) => Promise<Entry | null>;

/** Entries that are kept: more than there are answers on a few screens. */
const MOST = 200;

export class Distant {
  readonly #read: ReadEntry;
  readonly #changed: () => void;
  /** What was read; null for what could not be. */
  readonly #entries = new Map<number, Entry | null>();
  readonly #wanted = new Set<number>();
  #isReading = false;

  constructor(read: ReadEntry, changed: () => void) {
    this.#read = read;
    this.#changed = changed;
  }

  /** An entry if it is known; else it is read, one after the other, and `changed` follows. */
  get(sequence: number): Entry | null {
    const entry = this.#entries.get(sequence);
    if (entry === undefined && this.#wanted.size < MOST) {
      this.#wanted.add(sequence);
      void this.#readNext();
    }
    return entry ?? null;
  }

  /** Forget everything, for a connection that is another. */
  clear(): void {
    this.#entries.clear();
    this.#wanted.clear();
  }

  async #readNext(): Promise<void> {
    const [sequence] = this.#wanted;
    if (this.#isReading || sequence === undefined) {
      return;
    }
    this.#isReading = true;
    const entry = await this.#read(sequence).catch(() => null);
    this.#isReading = false;
    this.#wanted.delete(sequence);
    if (this.#entries.size >= MOST) {
      this.#entries.clear();
    }
    this.#entries.set(sequence, entry);
    this.#changed();
    void this.#readNext();
  }
}
