/** The ordered list of a room's entries, each exactly once, however often and in whatever order they arrive. */

import { Fold, type Shown } from "./fold.ts";
import { isRemoved, isShown, type Entry } from "./message.ts";

/** A line of the page's own between two entries. */
export interface Notice {
  /** The notice stands after this sequence. */
  readonly after: number;
  readonly text: string;
}

/** What stands in the list, in order. */
export type Item = Shown | Notice;

export function isNotice(item: Item): item is Notice {
  return "after" in item;
}

/**
 * A contiguous stretch of a room's log that ends at its head.
 *
 * Entries that are never shown are kept too: only so a hole can be told from an entry without text.
 */
export class Timeline {
  /** Ascending by sequence, no sequence twice. */
  #entries: Entry[] = [];
  #notices: Notice[] = [];
  /** The lowest sequence under which each (sender, message id) stands. */
  #sequences = new Map<string, number>();

  /** Whether the first entry is the oldest that the server has. */
  startReached = false;

  /** The lowest sequence, or 0 if there is none. */
  get first(): number {
    return this.#entries[0]?.sequence ?? 0;
  }

  /** The highest sequence, or 0 if there is none. */
  get last(): number {
    return this.#entries.at(-1)?.sequence ?? 0;
  }

  get size(): number {
    return this.#entries.length;
  }

  /** Whether no sequence is missing between the first and the last. */
  get isDense(): boolean {
    return this.size === 0 || this.last - this.first + 1 === this.size;
  }

  /** Take entries in any order; those already here are left out. Returns those that are new, ascending. */
  merge(entries: readonly Entry[]): Entry[] {
    const added: Entry[] = [];
    for (const entry of [...entries].sort((a, b) => a.sequence - b.sequence)) {
      const index = this.#indexOf(entry.sequence);
      if (this.#entries[index]?.sequence === entry.sequence) {
        continue;
      }
      this.#entries.splice(index, 0, entry);
      const key = keyOf(entry);
      this.#sequences.set(key, Math.min(entry.sequence, this.#sequences.get(key) ?? entry.sequence));
      added.push(entry);
    }
    if (this.first === 1) {
      this.startReached = true;
    }
    return added;
  }

  /** Put a line after the last entry. */
  note(text: string): void {
    this.#notices.push({ after: this.last, text });
  }

  /** Forget all entries and notices, for a room that is read from the server anew. */
  reset(): void {
    this.#entries = [];
    this.#notices = [];
    this.#sequences.clear();
    this.startReached = false;
  }

  /** Keep at most `limit` entries, the newest; what is dropped can be read from the server again. */
  trim(limit: number): void {
    const dropped = this.#entries.splice(0, Math.max(0, this.size - limit));
    if (dropped.length === 0) {
      return;
    }
    this.startReached = false;
    this.#notices = this.#notices.filter((notice) => notice.after >= this.first);
    for (const entry of dropped) {
      this.#sequences.delete(keyOf(entry));
    }
  }

  /** The entry with a sequence, as the server gave it, or null if it is not here. */
  at(sequence: number): Entry | null {
    const entry = this.#entries[this.#indexOf(sequence)];
    return entry?.sequence === sequence ? entry : null;
  }

  /** Put what the server shows again in the place of placeholders; what is not here is left out. */
  restore(entries: readonly Entry[]): void {
    for (const entry of entries) {
      const index = this.#indexOf(entry.sequence);
      if (this.#entries[index]?.sequence === entry.sequence) {
        this.#entries[index] = entry;
      }
    }
  }

  /**
   * What the entries make of each other.
   *
   * @param expected what this page has asked for and the room does not show yet: counts as the newest entries
   */
  fold(expected: readonly Entry[] = []): Fold {
    return new Fold([...this.#entries, ...expected]);
  }

  /** Sequences of what is hidden of a message: its own, and those of its edits. */
  hidden(target: number): number[] {
    return this.#entries
      .filter((entry) => isRemoved(entry) && (entry.sequence === target || entry.target === target))
      .map(({ sequence }) => sequence);
  }

  /**
   * Everything that is shown, in order, as later entries have changed it: edited, removed, restored, reacted to, pinned.
   *
   * A message that was sent twice is shown where it stood first.
   */
  items(fold: Fold = this.fold()): Item[] {
    const items: Item[] = [];
    let next = 0;
    const notices = this.#notices;
    const noticesBefore = (sequence: number): void => {
      for (let notice = notices[next]; notice && notice.after < sequence; notice = notices[++next]) {
        items.push(notice);
      }
    };
    for (const entry of this.#entries) {
      noticesBefore(entry.sequence);
      if (isShown(entry) && this.#sequences.get(keyOf(entry)) === entry.sequence) {
        items.push(fold.show(entry));
      }
    }
    noticesBefore(Number.POSITIVE_INFINITY);
    return items;
  }

  /** The index at which a sequence stands or would stand. Nearly always the end, so that is tried first. */
  #indexOf(sequence: number): number {
    if (sequence > this.last) {
      return this.size;
    }
    let low = 0;
    let high = this.size;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#entries[middle]?.sequence ?? 0) < sequence) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  }
}

function keyOf(entry: Entry): string {
  return JSON.stringify([entry.userId, entry.id]);
}
