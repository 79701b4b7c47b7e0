/** What was written or done here and the room does not show yet, in the order in which it goes out. */

import type { Message } from "./message.ts";

/**
 * Where a draft stands:
 *
 * - `waiting`: for its turn, for the connection, or for another attempt;
 * - `sending`: on its way, the server has not answered;
 * - `accepted`: acknowledged by the server, not seen in the room yet;
 * - `failed`: will not be sent again unless the person says so.
 */
export type DraftState = "waiting" | "sending" | "accepted" | "failed";

/** What can be sent: known by its id, which stays the same in all attempts. */
export interface Sendable {
  readonly id: string;
}

/** Something to be sent, and how far it is. */
export type Queued<T extends Sendable> = T & {
  readonly state: DraftState;
  /** How often it was sent since it was written or retried by hand. */
  readonly attempts: number;
  /** Why the last attempt did not succeed; empty if none failed. */
  readonly reason: string;
};

/** A message that was written here. */
export type Draft = Queued<Message>;

/** Attempts before a draft counts as failed: with the back-off of delivery about half a minute. */
export const MAX_ATTEMPTS = 6;

/** Drafts kept while they cannot be sent: more than a person writes during an outage, little to keep. */
export const MAX_DRAFTS = 100;

type Progress = Omit<Queued<Sendable>, keyof Sendable>;

const FRESH: Progress = { state: "waiting", attempts: 0, reason: "" };

/**
 * A queue that sends one message at a time.
 *
 * One at a time is what keeps the order: with several on their way, a refusal in the middle would let the later ones
 * overtake it.
 */
export class Outbox<T extends Sendable = Message> {
  #drafts: Queued<T>[] = [];

  /** All drafts, in order. */
  get drafts(): readonly Queued<T>[] {
    return this.#drafts;
  }

  get isFull(): boolean {
    return this.#drafts.length >= MAX_DRAFTS;
  }

  has(id: string): boolean {
    return this.#drafts.some((draft) => draft.id === id);
  }

  /**
   * Queue a message at the end.
   *
   * @throws RangeError if the outbox is full, or has this id already.
   */
  add(message: T): void {
    if (this.isFull) {
      throw new RangeError(`the outbox is full: ${MAX_DRAFTS} messages wait; send or discard some first`);
    }
    if (this.has(message.id)) {
      throw new RangeError(`message ${message.id} is in the outbox already; use retry`);
    }
    this.#drafts.push({ ...message, ...FRESH });
  }

  /** Take over what an outbox held before the page was loaded again, in front of what is here. */
  restore(drafts: readonly Queued<T>[]): void {
    const restored = drafts.map((draft): Queued<T> => (draft.state === "failed" ? draft : { ...draft, ...FRESH }));
    this.#drafts = [...restored.filter((draft) => !this.has(draft.id)), ...this.#drafts];
  }

  /** Start sending the first that waits. Returns null if there is none, or one is on its way. */
  take(): Queued<T> | null {
    if (this.#drafts.some((draft) => draft.state === "sending")) {
      return null;
    }
    const next = this.#drafts.find((draft) => draft.state === "waiting");
    return next ? this.#change(next.id, { state: "sending", attempts: next.attempts + 1 }) : null;
  }

  /** The server has acknowledged it. */
  accept(id: string): void {
    this.#change(id, { state: "accepted", reason: "" });
  }

  /** An attempt had no success, but another may. Returns the draft, which has failed once the attempts are used up. */
  postpone(id: string, reason: string): Queued<T> | null {
    const draft = this.#find(id);
    const state = draft && draft.attempts < MAX_ATTEMPTS ? "waiting" : "failed";
    return this.#change(id, { state, reason });
  }

  /** The server will never take it as it is. */
  refuse(id: string, reason: string): void {
    this.#change(id, { state: "failed", reason });
  }

  /** The connection is gone: what was on its way waits again, as if it had not been sent. */
  interrupt(): void {
    for (const draft of this.#drafts) {
      if (draft.state === "sending") {
        this.#change(draft.id, { state: "waiting", attempts: draft.attempts - 1 });
      }
    }
  }

  /** Queue a failed draft again, with the same id, behind those that wait. */
  retry(id: string): void {
    const draft = this.#find(id);
    if (draft?.state === "failed") {
      this.#remove(id);
      this.#drafts.push({ ...draft, ...FRESH });
    }
  }

  /** Give up a failed draft. */
  discard(id: string): void {
    if (this.#find(id)?.state === "failed") {
      this.#remove(id);
    }
  }

  /** The room shows it, so it is no draft any more, whatever became of the attempts. Returns whether it was one. */
  confirm(id: string): boolean {
    return this.#remove(id);
  }

  /** The room was read anew: what the server has acknowledged stands there, or before what was read. */
  settle(): void {
    this.#drafts = this.#drafts.filter((draft) => draft.state !== "accepted");
  }

  #find(id: string): Queued<T> | undefined {
    return this.#drafts.find((draft) => draft.id === id);
  }

  #change(id: string, change: Partial<Progress>): Queued<T> | null {
    const index = this.#drafts.findIndex((draft) => draft.id === id);
    const draft = this.#drafts[index];
    if (!draft) {
      return null;
    }
    const changed = { ...draft, ...change };
    this.#drafts[index] = changed;
    return changed;
  }

  #remove(id: string): boolean {
    const before = this.#drafts.length;
    this.#drafts = this.#drafts.filter((draft) => draft.id !== id);
    return this.#drafts.length < before;
  }
}
