/** What the page remembers: over a reload in this tab's session storage, over visits in the browser's local storage. */

import { isRecord } from "./message.ts";
import type { Draft } from "./outbox.ts";

/** Who is chatting where. */
export interface Seat {
  readonly name: string;
  readonly room: string;
}

/** Ids of one's own messages that are remembered over a reload: more than are on the screen. */
const MAX_OWN_IDS = 500;

const SEAT = "chat-node.seat";
const TOKEN = "chat-node.token";
const GUEST = "chat-node.guest";
const OWN_IDS = "chat-node.own-ids";
const DRAFTS = "chat-node.drafts.";

/** A storage that the browser may refuse (privacy settings, full): the page then forgets, and works. */
class Shelf {
  readonly #storage: () => Storage;

  constructor(storage: () => Storage) {
    this.#storage = storage;
  }

  get(key: string): unknown {
    try {
      return JSON.parse(this.#storage().getItem(key) ?? "null");
    } catch {
      return null;
    }
  }

  /** Keep a value; null takes it away. */
  set(key: string, value: unknown): void {
    try {
      if (value === null) {
        this.#storage().removeItem(key);
      } else {
        this.#storage().setItem(key, JSON.stringify(value));
      }
    } catch {
      // Nothing to mend: see above.
    }
  }
}

export class Memory {
  readonly #tab = new Shelf(() => sessionStorage);
  readonly #browser = new Shelf(() => localStorage);
  readonly #ownIds: Set<string> = new Set(stringsOf(this.#tab.get(OWN_IDS)));
  #guest: unknown = this.#tab.get(GUEST);

  /** Where this tab was before it was loaded again, or null. */
  get seat(): Seat | null {
    return seatOf(this.#tab.get(SEAT));
  }

  /** Where this browser chatted last, in whichever tab, or null. */
  get lastSeat(): Seat | null {
    return seatOf(this.#browser.get(SEAT));
  }

  /** Remember a seat, or that this tab has left it. */
  takeSeat(seat: Seat | null): void {
    this.#tab.set(SEAT, seat);
    if (seat) {
      this.#browser.set(SEAT, seat);
    }
  }

  get token(): string {
    const token = this.#tab.get(TOKEN);
    return typeof token === "string" ? token : "";
  }

  set token(token: string) {
    this.#tab.set(TOKEN, token);
  }

  /** What the server gave this tab to prove that it is the same guest, or null. */
  get guest(): unknown {
    return this.#guest;
  }

  set guest(guest: unknown) {
    this.#guest = guest;
    this.#tab.set(GUEST, guest);
  }

  /** Ids of messages that were written in this tab. */
  get ownIds(): ReadonlySet<string> {
    return this.#ownIds;
  }

  addOwnId(id: string): void {
    this.#ownIds.add(id);
    const kept = [...this.#ownIds].slice(-MAX_OWN_IDS);
    this.#tab.set(OWN_IDS, kept);
  }

  /** What this tab had written for a room and not seen there when it was left or loaded again. */
  drafts(room: string): Draft[] {
    const saved = this.#tab.get(DRAFTS + room);
    return Array.isArray(saved) ? saved.filter(isDraft) : [];
  }

  saveDrafts(room: string, drafts: readonly Draft[]): void {
    this.#tab.set(DRAFTS + room, drafts.length > 0 ? drafts : null);
  }
}

function seatOf(value: unknown): Seat | null {
  if (!isRecord(value) || typeof value["name"] !== "string" || typeof value["room"] !== "string") {
    return null;
  }
  return { name: value["name"], room: value["room"] };
}

function stringsOf(value: unknown): string[] {
  return Array.isArray(value) ? value.filter((item) => typeof item === "string") : [];
}

function isDraft(value: unknown): value is Draft {
  return (
    isRecord(value) &&
    typeof value["id"] === "string" &&
    typeof value["content"] === "string" &&
    typeof value["author"] === "string" &&
    typeof value["time"] === "number" &&
    typeof value["replyTo"] === "number" &&
    typeof value["state"] === "string" &&
    typeof value["reason"] === "string"
  );
}
