/** What a room's later entries have made of its messages. */

import { isRemoved, placeholderOf, type Entry } from "./message.ts";

/** Who has reacted to a message with one emoji. */
export interface Reaction {
  readonly emoji: string;
  /** In the order in which they did. */
  readonly users: readonly string[];
}

/** An entry as it is shown now. */
export interface Shown extends Entry {
  /** Whether its author changed the text later. */
  readonly edited: boolean;
  /** In the order in which they first came. */
  readonly reactions: readonly Reaction[];
  readonly pinned: boolean;
}

/** The newest word about whether a message is removed. */
interface Verdict {
  readonly sequence: number;
  readonly removed: boolean;
  readonly reason: string;
}

const NO_REACTIONS: readonly Reaction[] = [];

/** Of any two entries that contradict each other the later one counts. */
export class Fold {
  readonly #edits = new Map<number, string>();
  readonly #verdicts = new Map<number, Verdict>();
  /** Removals of all that somebody wrote, by user, oldest first. */
  readonly #cleared = new Map<string, Entry[]>();
  readonly #reactions = new Map<number, Map<string, Set<string>>>();
  /** Sequences of messages, in the order in which they were pinned. */
  readonly #pinned = new Set<number>();

  /**
   * @param entries ascending by sequence
   */
  constructor(entries: readonly Entry[]) {
    for (const entry of entries) {
      this.#take(entry);
    }
  }

  /** Sequence of the message that was pinned last, or 0 if none is. */
  get newestPin(): number {
    return [...this.#pinned].at(-1) ?? 0;
  }

  /** An entry as it is shown now. */
  show(entry: Entry): Shown {
    const { sequence } = entry;
    const verdict = this.#verdict(entry);
    if (verdict?.removed || isRemoved(entry)) {
      const placeholder = placeholderOf(entry, verdict?.reason || entry.reason);
      return { ...placeholder, edited: false, reactions: NO_REACTIONS, pinned: false };
    }
    const content = this.#edits.get(sequence);
    return {
      ...entry,
      content: content ?? entry.content,
      edited: content !== undefined,
      reactions: this.#reactionsTo(sequence),
      pinned: this.#pinned.has(sequence),
    };
  }

  #take(entry: Entry): void {
    const { type, target, sequence } = entry;
    switch (type) {
      case "edit":
        this.#edits.set(target, entry.content);
        break;
      case "removed":
        if (entry.cleared) {
          this.#cleared.set(entry.cleared.user, [...(this.#cleared.get(entry.cleared.user) ?? []), entry]);
        } else {
          this.#verdicts.set(target, { sequence, removed: true, reason: entry.reason });
          this.#pinned.delete(target);
        }
        break;
      case "restored":
        this.#verdicts.set(target, { sequence, removed: false, reason: "" });
        break;
      case "reaction":
        this.#react(entry);
        break;
      case "unreaction":
        this.#unreact(entry);
        break;
      case "pin":
        this.#pinned.delete(target);
        this.#pinned.add(target);
        break;
      case "unpin":
        this.#pinned.delete(target);
        break;
    }
  }

  #verdict(entry: Entry): Verdict | undefined {
    const own = this.#verdicts.get(entry.sequence);
    const clear = this.#cleared.get(entry.userId)?.findLast(
      ({ sequence, cleared }) => entry.sequence < sequence && entry.sequence >= (cleared?.since ?? 0),
    );
    if (!clear || (own && own.sequence > clear.sequence)) {
      return own;
    }
    return { sequence: clear.sequence, removed: true, reason: clear.reason };
  }

  #react({ target, emoji, userId }: Entry): void {
    const emojis = this.#reactions.get(target) ?? new Map<string, Set<string>>();
    this.#reactions.set(target, emojis);
    const users = emojis.get(emoji) ?? new Set();
    emojis.set(emoji, users);
    users.add(userId);
  }

  #unreact({ target, emoji, userId }: Entry): void {
    const emojis = this.#reactions.get(target);
    const users = emojis?.get(emoji);
    users?.delete(userId);
    if (users?.size === 0) {
      emojis?.delete(emoji);
    }
  }

  #reactionsTo(sequence: number): readonly Reaction[] {
    const emojis = this.#reactions.get(sequence);
    return emojis ? Array.from(emojis, ([emoji, users]) => ({ emoji, users: [...users] })) : NO_REACTIONS;
  }
}
