/** Fills a timeline from the server's history and from what is published, without ever hiding a gap. */

import { backoff, RESEND } from "./backoff.ts";
import type { Arrival } from "./connection.ts";
import { isTemporary, readFault } from "./fault.ts";
import type { Entry } from "./message.ts";
import type { Timeline } from "./timeline.ts";

/**
 * What is known of the entries before the first in the list: nothing yet (`unknown`), there are `some`, they are
 * `loading`, there are `none`, or they could not be read (`unread`).
 */
export type Earlier = "unknown" | "some" | "loading" | "none" | "unread";

/** Reads the page of entries before a sequence, or the newest page for 0; an empty page means that there are none. */
export type ReadPage = (before: number) => Promise<readonly Entry[]>;

/** What a history tells. */
export interface HistoryListener {
  /** Entries came into the timeline. */
  entriesSeen(added: readonly Entry[]): void;
  /** The timeline was begun anew; what was in it before may be missing now. */
  reloaded(): void;
  /** `earlier` has another value. */
  earlierChanged(): void;
}

/** Stands where messages were lost to this page. */
export const MISSED = "Some messages may be missing before this line. The list was reloaded from the server.";

/** The same, where there was nothing to reload from. */
export const MISSED_UNREAD = "Some messages may be missing before this line. They could not be loaded from the server.";

/** Attempts to read the newest page before the person is left a button: about ten seconds. */
const MAX_ATTEMPTS = 4;

/** Entries kept in the list; those before them are a button away. */
const MAX_ENTRIES = 2_000;

/** What is still to be read since the room was entered; null once it is. */
type Outstanding = "first" | "missed" | null;

export class RoomHistory {
  earlier: Earlier = "unknown";

  readonly #timeline: Timeline;
  readonly #readPage: ReadPage;
  readonly #listener: HistoryListener;
  #outstanding: Outstanding = null;
  /** Published while the list is to be replaced: belongs behind what is being read. */
  #fresh: Entry[] = [];
  /** Counts readings, so that an answer that was overtaken is told from the one that is waited for. */
  #reading = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #underWay: Promise<void> = Promise.resolve();

  constructor(timeline: Timeline, readPage: ReadPage, listener: HistoryListener) {
    this.#timeline = timeline;
    this.#readPage = readPage;
    this.#listener = listener;
  }

  /** The room was entered; what was missed meanwhile follows by `published` if it was resumed, else is read here. */
  arrived(arrival: Arrival): void {
    if (arrival !== "resumed") {
      this.#outstanding = this.#outstanding === "missed" ? "missed" : arrival;
      this.#fresh = [];
    }
    if (this.#outstanding) {
      this.#readNewest();
    }
  }

  /** The room is out of reach: readings under way are void. */
  left(): void {
    this.#abandon();
    if (this.earlier === "loading") {
      this.#setEarlier(this.#outstanding ? "unknown" : "some");
    }
  }

  published(entry: Entry): void {
    if (this.#outstanding === "missed") {
      this.#fresh.push(entry);
      return;
    }
    this.#merge([entry]);
    if (!this.#timeline.isDense && !this.#outstanding) {
      this.#outstanding = "missed";
      this.#fresh = [entry];
      this.#readNewest();
    }
  }

  /** Read the page before the first entry in the list, if there is one; resolves once that is settled. */
  readEarlier(): Promise<void> {
    if (this.earlier === "some" || this.earlier === "unread") {
      this.#underWay = this.#tryReadEarlier();
    }
    return this.#underWay;
  }

  /** Drop the oldest entries of a list that has grown long; for when nobody looks at them. */
  trim(): void {
    if (this.#timeline.size > MAX_ENTRIES && this.earlier !== "loading") {
      this.#timeline.trim(MAX_ENTRIES / 2);
      this.#setEarlier("some");
    }
  }

  #begin(): number {
    this.#abandon();
    this.#setEarlier("loading");
    return this.#reading;
  }

  #abandon(): void {
    clearTimeout(this.#timer);
    this.#reading += 1;
  }

  #readNewest(): void {
    void this.#tryReadNewest(this.#begin(), 1);
  }

  async #tryReadNewest(reading: number, attempt: number): Promise<void> {
    try {
      const entries = await this.#readPage(0);
      if (reading === this.#reading) {
        this.#replace(entries, MISSED);
        this.#setEarlier(this.#isStart(entries) ? "none" : "some");
      }
    } catch (error) {
      if (reading === this.#reading) {
        this.#failed(error, reading, attempt);
      }
    }
  }

  async #tryReadEarlier(): Promise<void> {
    const reading = this.#begin();
    try {
      const entries = await this.#readPage(this.#timeline.first);
      if (reading === this.#reading) {
        this.#merge(entries);
        this.#setEarlier(this.#isStart(entries) ? "none" : "some");
      }
    } catch {
      if (reading === this.#reading) {
        this.#setEarlier("unread");
      }
    }
  }

  #failed(error: unknown, reading: number, attempt: number): void {
    const temporary = isTemporary(readFault(error));
    if (temporary && attempt < MAX_ATTEMPTS) {
      const delay = backoff(attempt, RESEND, Math.random());
      this.#timer = setTimeout(() => void this.#tryReadNewest(reading, attempt + 1), delay);
      return;
    }
    this.#replace([], MISSED_UNREAD);
    this.#setEarlier(temporary ? "unread" : "none");
  }

  /** Put the newest entries into the list; if some were missed in place of all that was there, with a line that says so. */
  #replace(entries: readonly Entry[], notice: string): void {
    const missed = this.#outstanding === "missed";
    const fresh = this.#fresh;
    this.#outstanding = null;
    this.#fresh = [];
    if (missed) {
      this.#timeline.reset();
    }
    this.#merge(entries);
    if (missed) {
      this.#timeline.note(notice);
      this.#listener.reloaded();
    }
    this.#merge(fresh);
  }

  #merge(entries: readonly Entry[]): void {
    this.#listener.entriesSeen(this.#timeline.merge(entries));
  }

  /** Whether nothing stands before a page that was just merged. A short page says nothing: the server caps bytes too. */
  #isStart(page: readonly Entry[]): boolean {
    return page.length === 0 || this.#timeline.startReached;
  }

  #setEarlier(earlier: Earlier): void {
    this.earlier = earlier;
    this.#listener.earlierChanged();
  }
}
