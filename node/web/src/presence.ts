/** Who is in the room: how many, and, while somebody wants to know, who. */

import { PERMISSION_DENIED, UNAVAILABLE, readFault } from "./fault.ts";

/** Somebody who is in the room. */
export interface Person {
  readonly userId: string;
  /** The name that the site vouches for, or empty. */
  readonly name: string;
}

/** What presence asks of a connection. */
export interface PresenceSource {
  count(): Promise<number>;
  roster(): Promise<Person[]>;
}

/** How often people are counted even if nobody is seen to come or go, in milliseconds. */
const INTERVAL = 30_000;

/** Comings and goings within this many milliseconds are counted once. */
const QUIET = 400;

const FORBIDDEN: ReadonlySet<number> = new Set([PERMISSION_DENIED, UNAVAILABLE]);

export class Presence {
  /** How many people are here, or null if the server doesn't say. */
  count: number | null = null;
  /** Who they are, or null if that is not known. */
  roster: readonly Person[] | null = null;
  /** Whether the server may tell who is here. */
  canList = true;

  readonly #source: PresenceSource;
  readonly #changed: () => void;
  #isOpen = false;
  #isListing = false;
  #canCount = true;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(source: PresenceSource, changed: () => void) {
    this.#source = source;
    this.#changed = changed;
  }

  /** The room was entered. */
  open(): void {
    this.#isOpen = true;
    this.#soon(0);
  }

  /** The room is out of reach. */
  close(): void {
    this.#isOpen = false;
    clearTimeout(this.#timer);
    this.count = null;
    this.roster = null;
  }

  /** Somebody came or went. */
  stir(): void {
    this.#soon(QUIET);
  }

  /** The server has told how many are here. */
  heed(count: number): void {
    this.count = count;
    this.#changed();
  }

  /** Whether somebody wants to know who is here. */
  list(wanted: boolean): void {
    this.#isListing = wanted;
    if (wanted) {
      this.#soon(0);
    }
  }

  #soon(delay: number): void {
    clearTimeout(this.#timer);
    if (this.#isOpen && (this.#canCount || (this.#isListing && this.canList))) {
      this.#timer = setTimeout(() => void this.#read(), delay);
    }
  }

  async #read(): Promise<void> {
    try {
      if (this.#isListing && this.canList) {
        await this.#readRoster();
      } else {
        this.count = await this.#source.count();
      }
    } catch (error) {
      this.#canCount = !FORBIDDEN.has(readFault(error).code);
      this.count = null;
    }
    if (this.#isOpen) {
      this.#changed();
      this.#soon(INTERVAL);
    }
  }

  async #readRoster(): Promise<void> {
    try {
      this.roster = await this.#source.roster();
      this.count = this.roster.length;
    } catch (error) {
      if (!FORBIDDEN.has(readFault(error).code)) {
        throw error;
      }
      this.canList = false;
      this.roster = null;
    }
  }
}
