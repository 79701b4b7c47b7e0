/** What this page's person may do in a room, as far as it is known. */

import type { Notice, RoomState } from "./signal.ts";

/** Which controls are of use. */
export interface Rights {
  /** Whether the room has messages that can be changed, reacted to and answered at all. */
  readonly act: boolean;
  readonly pin: boolean;
  /** Whether others' messages can be removed, and removed ones restored. */
  readonly moderate: boolean;
}

const MODERATING: ReadonlySet<string> = new Set(["moderator", "owner"]);

const CLOCK = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

export class Standing {
  #role = "";
  #guest = true;
  /** Until when the person may not write, in milliseconds since 1970; 0: until it is undone; null: they may. */
  #mutedUntil: number | null = null;
  #locked = false;
  #slowSeconds = 0;
  #title = "";
  #act = true;
  /** Whether the room has said what the person may do, so that nothing has to be tried out. */
  #isTold = false;
  #pin = true;

  /** What the room is called beside its channel; empty: nothing. */
  get title(): string {
    return this.#title;
  }

  get rights(): Rights {
    const moderate = MODERATING.has(this.#role);
    const mayTry = this.#pin && !this.#isTold && !this.#guest;
    return { act: this.#act, pin: this.#act && (moderate || mayTry), moderate: this.#act && moderate };
  }

  /** The server has told who this is. */
  identify(role: string, guest: boolean): void {
    this.#role = role || this.#role;
    this.#guest = guest;
  }

  /** The room has told how it is. */
  learn({ title, role, slowSeconds, locked, mutedUntil }: RoomState): void {
    this.#isTold = true;
    this.#title = title;
    this.#role = role;
    this.#slowSeconds = slowSeconds;
    this.#locked = locked;
    this.#mutedUntil = mutedUntil;
  }

  /** A moderator has laid something down. */
  heed({ event, until, seconds, role, title }: Notice): void {
    switch (event) {
      case "muted":
        this.#mutedUntil = until;
        break;
      case "unmuted":
        this.#mutedUntil = null;
        break;
      case "locked":
      case "unlocked":
        this.#locked = event === "locked";
        break;
      case "slowmode":
        this.#slowSeconds = seconds;
        break;
      case "renamed":
        this.#title = title;
        break;
      case "role":
        this.#role = role;
        this.#pin = true;
        break;
    }
  }

  /** The room has no messages of this kind, so nothing can be done to them. */
  forbidActs(): void {
    this.#act = false;
  }

  forbidPins(): void {
    this.#pin = false;
  }

  /** What keeps the person from writing as they like, as a sentence; empty if nothing does. */
  restriction(now: number): string {
    if (this.#mutedUntil !== null && (this.#mutedUntil === 0 || this.#mutedUntil > now)) {
      return this.#mutedUntil === 0
        ? "A moderator has muted you: you can read, but not write."
        : `A moderator has muted you until ${CLOCK.format(this.#mutedUntil)}: you can read, but not write.`;
    }
    if (MODERATING.has(this.#role)) {
      return "";
    }
    if (this.#locked) {
      return "The room is locked: only moderators can write.";
    }
    return this.#slowSeconds > 0 ? `Slow mode: one message in ${this.#slowSeconds} seconds.` : "";
  }
}
