/** Which stretch of a long list stands in the document: so many rows as are read, however many there are. */

/** Rows that stand there for who is at the end: a few screens. */
const SPAN = 120;

/** Rows that come when the reader gets near an end of the stretch. */
const STEP = 80;

/** Rows that stand there at most: then those at the other end go. */
export const MOST_ROWS = 320;

/** Rows are known by their keys; a row without one (an empty text) may stand anywhere and is never a hold. */
export class RowWindow {
  /** Index of the first row, and of the first after the last. */
  from = 0;
  to = 0;
  #size = 0;
  /** The first row in the stretch that has a key, and how many stand before it there. */
  #anchor = { key: "", offset: 0 };

  get isAtEnd(): boolean {
    return this.to === this.#size;
  }

  /** Stand at the end of a list. */
  follow(keys: readonly string[]): void {
    this.#put(keys, keys.length - SPAN, keys.length);
  }

  /** Stay where the reader is, though rows have come or gone before, between and after. */
  keep(keys: readonly string[]): void {
    const anchor = this.#anchor.key ? keys.indexOf(this.#anchor.key) : -1;
    if (anchor < 0) {
      this.follow(keys);
      return;
    }
    const from = Math.max(0, anchor - this.#anchor.offset);
    const span = this.isAtEnd ? Math.min(keys.length - from, MOST_ROWS) : this.to - this.from;
    this.#put(keys, from, from + span);
  }

  /** Take in rows before the stretch. */
  up(keys: readonly string[]): void {
    const from = Math.max(0, this.from - STEP);
    this.#put(keys, from, Math.min(this.to, from + MOST_ROWS));
  }

  /** Take in rows after the stretch. */
  down(keys: readonly string[]): void {
    const to = Math.min(keys.length, this.to + STEP);
    this.#put(keys, Math.max(this.from, to - MOST_ROWS), to);
  }

  /** Stand around a row, unless it stands there already. */
  around(keys: readonly string[], index: number): void {
    if (index < this.from || index >= this.to) {
      this.#put(keys, index - SPAN / 2, index + SPAN / 2);
    }
  }

  #put(keys: readonly string[], from: number, to: number): void {
    this.from = Math.max(0, from);
    this.to = Math.min(keys.length, to);
    this.#size = keys.length;
    const offset = keys.slice(this.from, this.to).findIndex((key) => key !== "");
    this.#anchor = { key: keys[this.from + offset] ?? "", offset };
  }
}
