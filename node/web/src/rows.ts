/** The lines of the message list: what stands in a room, as it is laid out. */

import { isRemoved, type Entry } from "./message.ts";
import type { Draft, DraftState } from "./outbox.ts";
import { isNotice, type Item } from "./timeline.ts";

/** Where a message stands for a person: `sent` is in the room for everybody, the others are drafts. */
export type MessageState = "sent" | Exclude<DraftState, "accepted">;

export interface MessageRow {
  readonly kind: "message";
  readonly key: string;
  /** The message's own id. */
  readonly id: string;
  /** The position in the room, or 0 for a draft. */
  readonly sequence: number;
  readonly author: string;
  readonly content: string;
  /** Milliseconds since 1970. */
  readonly time: number;
  /** Whether it was written in this tab. */
  readonly mine: boolean;
  /** Whether it begins a run of messages of one author, and so shows who that is. */
  readonly head: boolean;
  /** Which of the avatars' colours the author has, from 0 to HUES - 1. */
  readonly hue: number;
  readonly removed: boolean;
  /** Whether its author changed the text later. */
  readonly edited: boolean;
  readonly state: MessageState;
  /** Why an attempt to send it failed; empty if none did. */
  readonly reason: string;
}

/** The first message of another day follows. */
export interface DayRow {
  readonly kind: "day";
  readonly key: string;
  /** A moment of that day, in milliseconds since 1970. */
  readonly time: number;
}

/** A line of the page's own. */
export interface NoticeRow {
  readonly kind: "notice";
  readonly key: string;
  readonly text: string;
}

export type Row = MessageRow | DayRow | NoticeRow;

/** Colours of avatars. */
export const HUES = 8;

/** Messages of one author within this many milliseconds form a run. */
const RUN = 5 * 60_000;

/** Lay out what is in a room, in order, drafts last. Every row has a key of its own. */
export function layOut(items: readonly Item[], drafts: readonly Draft[], ownIds: ReadonlySet<string>): Row[] {
  const layout = new Layout(ownIds);
  for (const item of items) {
    if (isNotice(item)) {
      layout.addNotice(item.after, item.text);
    } else {
      layout.addEntry(item);
    }
  }
  for (const draft of drafts) {
    layout.addDraft(draft);
  }
  return layout.rows;
}

class Layout {
  readonly rows: Row[] = [];
  readonly #ownIds: ReadonlySet<string>;
  readonly #keys = new Set<string>();
  #day = "";
  /** Who wrote the row before, and when; a run goes on only with the same. */
  #run = { by: "", time: 0 };

  constructor(ownIds: ReadonlySet<string>) {
    this.#ownIds = ownIds;
  }

  addNotice(after: number, text: string): void {
    this.#add({ kind: "notice", key: `notice after ${after}`, text });
    this.#run.by = "";
  }

  addEntry(entry: Entry): void {
    // Ids are unique for one sender only: whoever repeats an id of mine later is not me.
    const mine = this.#ownIds.has(entry.id) && !this.#keys.has(entry.id);
    this.#addMessage(entry.time, {
      key: mine ? entry.id : `#${entry.sequence}`,
      id: entry.id,
      sequence: entry.sequence,
      author: entry.author,
      content: entry.content,
      mine,
      hue: hueOf(entry.userId),
      removed: isRemoved(entry),
      edited: entry.edited,
      state: "sent",
      reason: "",
    });
  }

  addDraft(draft: Draft): void {
    this.#addMessage(draft.time, {
      key: draft.id,
      id: draft.id,
      sequence: 0,
      author: draft.author,
      content: draft.content,
      mine: true,
      hue: 0,
      removed: false,
      edited: false,
      state: draft.state === "accepted" ? "sent" : draft.state,
      reason: draft.reason,
    });
  }

  #addMessage(time: number, message: Omit<MessageRow, "kind" | "head" | "time">): void {
    const day = new Date(time).toDateString();
    if (day !== this.#day) {
      this.#day = day;
      this.#add({ kind: "day", key: `day of ${message.key}`, time });
      this.#run.by = "";
    }
    const by = JSON.stringify([message.mine, message.hue, message.author]);
    const head = by !== this.#run.by || time - this.#run.time > RUN;
    this.#run = { by, time };
    this.#add({ kind: "message", ...message, time, head });
  }

  #add(row: Row): void {
    this.#keys.add(row.key);
    this.rows.push(row);
  }
}

/** The same colour for the same person wherever they write: FNV-1a, reduced. */
function hueOf(userId: string): number {
  let hash = 0x811c9dc5;
  for (let index = 0; index < userId.length; index += 1) {
    hash = Math.imul(hash ^ userId.charCodeAt(index), 0x01000193);
  }
  return (hash >>> 0) % HUES;
}
