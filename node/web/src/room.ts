/** One room as this page knows it: what was said, what is on its way, who is there, how the connection is. */

import { Connection, type Status } from "./connection.ts";
import { Delivery } from "./delivery.ts";
import { RoomHistory, type Earlier } from "./history.ts";
import type { Memory, Seat } from "./memory.ts";
import { newMessageId, type Entry } from "./message.ts";
import { Outbox } from "./outbox.ts";
import { Timeline } from "./timeline.ts";

export class Room {
  readonly seat: Seat;
  readonly timeline = new Timeline();
  readonly outbox = new Outbox();
  status: Status = { kind: "connecting", again: false };
  /** How many people are here, or null if the server doesn't say. */
  presence: number | null = null;

  readonly #memory: Memory;
  readonly #changed: () => void;
  readonly #connection: Connection;
  readonly #history: RoomHistory;
  readonly #delivery: Delivery;

  /**
   * @param endpoint WebSocket URL of the node
   * @param changed called after every change to what is public here
   */
  constructor(endpoint: string, seat: Seat, memory: Memory, changed: () => void) {
    this.seat = seat;
    this.#memory = memory;
    this.#changed = changed;
    this.#connection = new Connection(endpoint, seat.room, memory, {
      statusChanged: (status) => this.#statusChanged(status),
      arrived: (arrival) => this.#history.arrived(arrival),
      entryPublished: (entry) => this.#history.published(entry),
      presenceChanged: (count) => this.#presenceChanged(count),
    });
    this.#history = new RoomHistory(this.timeline, (before) => this.#connection.history(before), {
      entriesSeen: (added) => this.#seen(added),
      reloaded: () => this.#reloaded(),
      earlierChanged: () => this.#changed(),
    });
    this.#delivery = new Delivery(
      this.outbox,
      (data) => this.#connection.publish(data),
      () => this.#draftsChanged(),
    );
    this.outbox.restore(memory.drafts(seat.room));
  }

  /** Connect, also again after the connection was closed for good. */
  open(): void {
    this.#connection.open();
  }

  /** Leave; the object is of no use afterwards. */
  close(): void {
    this.#delivery.close();
    this.#history.left();
    this.#connection.close();
  }

  /** Make the next attempt to connect now instead of at the end of the wait. */
  hurry(): void {
    this.#connection.hurry();
  }

  /** Ids of messages that were written in this tab. */
  get ownIds(): ReadonlySet<string> {
    return this.#memory.ownIds;
  }

  /** What is known of the entries before the first in the timeline. */
  get earlier(): Earlier {
    return this.#history.earlier;
  }

  /**
   * Send a message, now or once the room can be reached.
   *
   * @throws RangeError if too many wait already
   */
  send(content: string): void {
    const id = newMessageId();
    this.outbox.add({ id, content, author: this.seat.name, time: Date.now() });
    this.#memory.addOwnId(id);
    this.#draftsChanged();
    this.#delivery.nudge();
  }

  /** Send a failed message again, as the same message. */
  retry(id: string): void {
    this.outbox.retry(id);
    this.#draftsChanged();
    this.#delivery.nudge();
  }

  /** Give up a failed message. */
  discard(id: string): void {
    this.outbox.discard(id);
    this.#draftsChanged();
  }

  /** Read the page of entries before the first in the list, if the room can be reached. */
  readEarlier(): void {
    if (this.status.kind === "live") {
      void this.#history.readEarlier();
    }
  }

  /** Drop the oldest entries of a list that has grown long; for when nobody looks at them. */
  trim(): void {
    this.#history.trim();
  }

  #statusChanged(status: Status): void {
    const wasLive = this.status.kind === "live";
    this.status = status;
    if (status.kind === "live") {
      this.#delivery.open();
    } else if (wasLive) {
      this.presence = null;
      this.#history.left();
      this.#delivery.close();
    }
    this.#changed();
  }

  #presenceChanged(count: number | null): void {
    this.presence = count;
    this.#changed();
  }

  #seen(added: readonly Entry[]): void {
    const confirmed = added.filter((entry) => this.outbox.confirm(entry.id));
    if (confirmed.length > 0) {
      this.#saveDrafts();
    }
    this.#changed();
  }

  #reloaded(): void {
    this.outbox.settle();
    this.#changed();
  }

  #draftsChanged(): void {
    this.#saveDrafts();
    this.#changed();
  }

  #saveDrafts(): void {
    const unsent = this.outbox.drafts.filter((draft) => draft.state !== "accepted");
    this.#memory.saveDrafts(this.seat.room, unsent);
  }
}
