/** The lines of the message list: what stands in a room, as it is laid out. */

import type { Reaction, Shown } from "./fold.ts";
import { isRemoved, type Entry } from "./message.ts";
import type { Draft, DraftState } from "./outbox.ts";
import type { People } from "./people.ts";
import { describeSystem } from "./system.ts";
import { isNotice, type Item } from "./timeline.ts";

/** Where a message stands for a person: `sent` is in the room for everybody, the others are drafts. */
export type MessageState = "sent" | Exclude<DraftState, "accepted">;

/** The message that another answers, in short. */
export interface Quote {
  readonly sequence: number;
  readonly author: string;
  /** Its text, or what stands for it. */
  readonly text: string;
}

/** Those who reacted to a message with one emoji. */
export interface Chip {
  readonly emoji: string;
  readonly count: number;
  /** Whether this page's person is one of them. */
  readonly mine: boolean;
  /** Who they are, in words. */
  readonly names: string;
}

export interface MessageRow {
  readonly kind: "message";
  readonly key: string;
  /** The message's own id. */
  readonly id: string;
  /** The position in the room, or 0 for a draft. */
  readonly sequence: number;
  readonly type: string;
  readonly author: string;
  readonly content: string;
  /** Milliseconds since 1970. */
  readonly time: number;
  /** Whether this page's person wrote it. */
  readonly mine: boolean;
  /** Whether it begins a run of messages of one author, and so shows who that is. */
  readonly head: boolean;
  /** Which of the avatars' colours the author has, from 0 to HUES - 1. */
  readonly hue: number;
  readonly removed: boolean;
  /** Whether its author changed the text later. */
  readonly edited: boolean;
  readonly pinned: boolean;
  readonly quote: Quote | null;
  readonly chips: readonly Chip[];
  /** Who has seen it, if it is the newest of one's own that anybody has; else empty. */
  readonly seenBy: readonly string[];
  readonly state: MessageState;
  /** Why it was removed, or why an attempt to send it failed; empty if that is not known or did not happen. */
  readonly reason: string;
}

/** The first message of another day follows. */
export interface DayRow {
  readonly kind: "day";
  readonly key: string;
  /** A moment of that day, in milliseconds since 1970. */
  readonly time: number;
}

/** What follows was not read yet. */
export interface UnreadRow {
  readonly kind: "unread";
  readonly key: string;
}

/** A line of the page's own (`notice`), or of the server's (`event`). */
export interface LineRow {
  readonly kind: "notice" | "event";
  readonly key: string;
  readonly text: string;
}

export type Row = MessageRow | DayRow | UnreadRow | LineRow;

/** What a layout depends on beside the messages. */
export interface Viewpoint {
  /** Ids of messages that were written in this tab. */
  readonly ownIds: ReadonlySet<string>;
  readonly people: People;
  /** The line that parts what was read from what was not stands after this sequence; null: nowhere. */
  readonly readUpTo: number | null;
  /** A message before the first that is in the list, or null if it is not known (yet). */
  distant(sequence: number): Entry | null;
  /** Users who have read a message. */
  readersOf(sequence: number): readonly string[];
}

/** Colours of avatars. */
export const HUES = 8;

/** Messages of one author within this many milliseconds form a run. */
const RUN = 5 * 60_000;

/** Names that a chip tells before it counts the rest. */
const CHIP_NAMES = 12;

/** Reasons that the server gives where nobody has given one. */
const NO_REASON: ReadonlySet<string> = new Set(["removed", "erased"]);

/** Lay out what is in a room, in order, drafts last. Every row has a key of its own. */
export function layOut(items: readonly Item[], drafts: readonly Draft[], viewpoint: Viewpoint): Row[] {
  const layout = new Layout(viewpoint);
  for (const item of items) {
    if (isNotice(item)) {
      layout.addLine("notice", `notice after ${item.after}`, item.text);
    } else if (item.type === "system") {
      layout.addLine("event", `#${item.sequence}`, describeSystem(item, viewpoint.people));
    } else {
      layout.addEntry(item);
    }
  }
  for (const draft of drafts) {
    layout.addDraft(draft);
  }
  layout.addReceipt();
  return layout.rows;
}

/** The same colour for the same person wherever they write: FNV-1a, reduced. */
export function hueOf(userId: string): number {
  let hash = 0x811c9dc5;
  for (let index = 0; index < userId.length; index += 1) {
    hash = Math.imul(hash ^ userId.charCodeAt(index), 0x01000193);
  }
  return (hash >>> 0) % HUES;
}

class Layout {
  readonly rows: Row[] = [];
  readonly #viewpoint: Viewpoint;
  readonly #keys = new Set<string>();
  /** Messages so far, by sequence: what is answered stands before the answer. */
  readonly #shown = new Map<number, Entry>();
  #day = "";
  /** Who wrote the row before, and when; a run goes on only with the same. */
  #run = { by: "", time: 0 };
  #isParted = false;

  constructor(viewpoint: Viewpoint) {
    this.#viewpoint = viewpoint;
  }

  addLine(kind: LineRow["kind"], key: string, text: string): void {
    this.#add({ kind, key, text });
    this.#run.by = "";
  }

  addEntry(entry: Shown): void {
    const { ownIds, people } = this.#viewpoint;
    // Ids are unique for one sender only: whoever repeats an id of mine later is not me.
    const fromHere = ownIds.has(entry.id) && !this.#keys.has(entry.id);
    const mine = fromHere || (people.me !== "" && entry.userId === people.me);
    const removed = isRemoved(entry);
    this.#shown.set(entry.sequence, entry);
    this.#addMessage(entry.time, {
      key: fromHere ? entry.id : `#${entry.sequence}`,
      id: entry.id,
      sequence: entry.sequence,
      type: entry.type,
      author: removed ? people.nameOf(entry.userId) : entry.author,
      content: entry.content,
      mine,
      hue: hueOf(entry.userId),
      removed,
      edited: entry.edited,
      pinned: entry.pinned,
      quote: removed ? null : this.#quote(entry.replyTo),
      chips: entry.reactions.map((reaction) => this.#chip(reaction)),
      seenBy: [],
      state: "sent",
      reason: NO_REASON.has(entry.reason) ? "" : entry.reason,
    });
  }

  addDraft(draft: Draft): void {
    this.#addMessage(draft.time, {
      key: draft.id,
      id: draft.id,
      sequence: 0,
      type: "text",
      author: draft.author,
      content: draft.content,
      mine: true,
      hue: 0,
      removed: false,
      edited: false,
      pinned: false,
      quote: this.#quote(draft.replyTo),
      chips: [],
      seenBy: [],
      state: draft.state === "accepted" ? "sent" : draft.state,
      reason: draft.reason,
    });
  }

  /** Say under the newest message of one's own that anybody has seen, who has. */
  addReceipt(): void {
    for (let index = this.rows.length - 1; index >= 0; index -= 1) {
      const row = this.rows[index];
      if (row?.kind === "message" && row.mine && row.sequence > 0) {
        const seenBy = this.#viewpoint.readersOf(row.sequence).map((user) => this.#viewpoint.people.nameOf(user));
        if (seenBy.length > 0) {
          this.rows[index] = { ...row, seenBy };
          return;
        }
      }
    }
  }

  #quote(sequence: number): Quote | null {
    if (sequence === 0) {
      return null;
    }
    const { people } = this.#viewpoint;
    const entry = this.#shown.get(sequence) ?? this.#viewpoint.distant(sequence);
    if (!entry) {
      return { sequence, author: "", text: "An earlier message" };
    }
    const author = entry.userId === people.me ? "You" : people.nameOf(entry.userId);
    return { sequence, author, text: isRemoved(entry) ? "Message removed" : entry.content };
  }

  #chip({ emoji, users }: Reaction): Chip {
    const { people } = this.#viewpoint;
    const mine = users.includes(people.me);
    const others = users.filter((user) => user !== people.me);
    const names = others.slice(0, CHIP_NAMES).map((user) => people.nameOf(user));
    const rest = others.length - names.length;
    const all = [...(mine ? ["You"] : []), ...names, ...(rest > 0 ? [`${rest} more`] : [])];
    return { emoji, count: users.length, mine, names: all.join(", ") };
  }

  #addMessage(time: number, message: Omit<MessageRow, "kind" | "head" | "time">): void {
    const day = new Date(time).toDateString();
    if (day !== this.#day) {
      this.#day = day;
      this.#add({ kind: "day", key: `day of ${message.key}`, time });
      this.#run.by = "";
    }
    this.#part(message.sequence, message.mine);
    const by = JSON.stringify([message.mine, message.hue, message.author]);
    const head = by !== this.#run.by || time - this.#run.time > RUN || message.quote !== null;
    this.#run = { by, time };
    this.#add({ kind: "message", ...message, time, head });
  }

  /** Before the first message of another that was not read yet stands a line. */
  #part(sequence: number, mine: boolean): void {
    const { readUpTo } = this.#viewpoint;
    if (readUpTo !== null && !this.#isParted && sequence > readUpTo && !mine) {
      this.#isParted = true;
      this.#add({ kind: "unread", key: "unread" });
      this.#run.by = "";
    }
  }

  #add(row: Row): void {
    this.#keys.add(row.key);
    this.rows.push(row);
  }
}
