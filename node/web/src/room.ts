/** One room as this page knows it: what was said, what is on its way, who is there, how the connection is. */

import { expectedOf, parametersOf, type Act } from "./act.ts";
import { Connection, type Arrival, type Identity, type Status } from "./connection.ts";
import { Delivery } from "./delivery.ts";
import { Distant } from "./distant.ts";
import { explain, PERMISSION_DENIED, readFault, UNAVAILABLE, type Fault } from "./fault.ts";
import { RoomHistory, type Earlier } from "./history.ts";
import type { Memory, Seat } from "./memory.ts";
import { isGuest, isRecord, newMessageId, numberOf, publicationOf, type Entry, type Message } from "./message.ts";
import { Outbox } from "./outbox.ts";
import { People } from "./people.ts";
import { Presence } from "./presence.ts";
import { Reading } from "./reading.ts";
import { Standing } from "./rights.ts";
import { readRoomState, type Notice, type Signal } from "./signal.ts";
import { Timeline } from "./timeline.ts";
import { Typists, TypingTeller } from "./typing.ts";

/** What a room tells. */
export interface RoomListener {
  /** Something that is public in the room has changed. */
  changed(): void;
  /** Somebody said something just now. */
  said(entry: Entry): void;
  /** Something that the person did was refused; the reason is a clause. */
  refused(act: Act, reason: string): void;
}

/** Pages that are read to get to a message far up before the person is left to scroll. */
const MAX_JUMP_PAGES = 40;

export class Room {
  readonly seat: Seat;
  readonly timeline = new Timeline();
  readonly outbox = new Outbox<Message>();
  readonly people = new People();
  readonly standing = new Standing();
  readonly presence: Presence;
  readonly typists: Typists;
  readonly reading: Reading;
  readonly distant: Distant;
  status: Status = { kind: "connecting", again: false };

  readonly #memory: Memory;
  readonly #listener: RoomListener;
  readonly #connection: Connection;
  readonly #history: RoomHistory;
  readonly #delivery: Delivery;
  readonly #acts = new Outbox<Act>();
  readonly #actDelivery: Delivery<Act>;
  readonly #typing: TypingTeller;
  /** Rpcs that this room or server does not have, or not for this person. */
  readonly #useless = new Set<string>();

  /**
   * @param endpoint WebSocket URL of the node
   */
  constructor(endpoint: string, seat: Seat, memory: Memory, listener: RoomListener) {
    this.seat = seat;
    this.#memory = memory;
    this.#listener = listener;
    const connection = new Connection(endpoint, seat.room, memory, {
      statusChanged: (status) => this.#statusChanged(status),
      arrived: (arrival) => this.#arrived(arrival),
      identified: (identity) => this.#identified(identity),
      entryPublished: (entry) => this.#published(entry),
      signalled: (signal) => this.#signalled(signal),
      noticed: (notice) => this.#noticed(notice),
      stirred: () => this.presence.stir(),
    });
    this.#connection = connection;
    const changed = (): void => this.#changed();
    this.#history = new RoomHistory(this.timeline, (before) => connection.history(before), {
      entriesSeen: (added) => this.#seen(added),
      reloaded: () => this.#reloaded(),
      earlierChanged: changed,
    });
    this.#delivery = new Delivery(this.outbox, (draft) => connection.publish(publicationOf(draft)), () => this.#draftsChanged());
    this.#actDelivery = new Delivery(
      this.#acts,
      (act) => connection.rpc(act.kind, parametersOf(act)),
      changed,
      (act, fault) => this.#actRefused(act, fault),
    );
    this.presence = new Presence(connection, changed);
    this.typists = new Typists(changed);
    this.#typing = new TypingTeller((typing) => void this.#ask("typing", { typing }));
    this.reading = new Reading((sequence) => void this.#ask("read", { sequence }));
    this.distant = new Distant((sequence) => this.#read(sequence), changed);
    this.outbox.restore(memory.drafts(seat.room));
  }

  /** Connect, also again after the connection was closed for good. */
  open(): void {
    this.#connection.open();
  }

  /** Leave; the object is of no use afterwards. */
  close(): void {
    this.#typing.stop();
    this.#leave();
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

  /** What the person has done to messages and the room does not show yet, as the entries that it will make. */
  get expected(): Entry[] {
    const now = Date.now();
    return this.#acts.drafts.map((act) => expectedOf(act, this.people.me, now));
  }

  /**
   * Send a message, now or once the room can be reached.
   *
   * @param replyTo sequence of the message that it answers, or 0
   * @throws RangeError if too many wait already
   */
  send(content: string, replyTo: number): void {
    const id = newMessageId();
    this.outbox.add({ id, content, author: this.seat.name, time: Date.now(), replyTo });
    this.#memory.addOwnId(id);
    this.#typing.stop();
    this.reading.wrote();
    this.#draftsChanged();
    this.#delivery.nudge();
  }

  /**
   * Do something to a message, now or once the room can be reached.
   *
   * @throws RangeError if too many wait already
   */
  act(act: Omit<Act, "id">): void {
    this.#acts.add({ id: newMessageId(), ...act });
    this.#typing.stop();
    this.#changed();
    this.#actDelivery.nudge();
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

  /** The person has changed the text that they are writing. */
  typed(isEmpty: boolean): void {
    if (isEmpty) {
      this.#typing.stop();
    } else if (this.status.kind === "live") {
      this.#typing.typed();
    }
  }

  /** Read the page of entries before the first in the list, if the room can be reached. */
  readEarlier(): void {
    if (this.status.kind === "live") {
      void this.#history.readEarlier();
    }
  }

  /** Read until a message is in the list. Resolves with whether it is. */
  async reach(sequence: number): Promise<boolean> {
    for (let page = 0; page < MAX_JUMP_PAGES && this.timeline.first > sequence; page += 1) {
      const before = this.timeline.first;
      if (this.status.kind === "live") {
        await this.#history.readEarlier();
      }
      if (this.timeline.first === before) {
        break;
      }
    }
    return this.timeline.at(sequence) !== null;
  }

  /** Drop the oldest entries of a list that has grown long; for when nobody looks at them. */
  trim(): void {
    this.#history.trim();
  }

  #changed(): void {
    this.#listener.changed();
  }

  #statusChanged(status: Status): void {
    const wasLive = this.status.kind === "live";
    this.status = status;
    if (status.kind === "live") {
      this.#delivery.open();
      this.#actDelivery.open();
      this.presence.open();
    } else if (wasLive) {
      this.#leave();
    }
    this.#changed();
  }

  #leave(): void {
    this.presence.close();
    this.typists.clear();
    this.reading.close();
    this.#history.left();
    this.#delivery.close();
    this.#actDelivery.close();
  }

  #arrived(arrival: Arrival): void {
    this.#history.arrived(arrival);
    void this.#beginReading();
    void this.#askState();
  }

  /** Ask what the person may do here; without an answer it is found out by trying. */
  async #askState(): Promise<void> {
    const state = readRoomState(await this.#ask("room", {}));
    if (state) {
      this.standing.learn(state);
      this.#changed();
    }
  }

  /** Ask where the person stopped to read, before anything is told to be read. */
  async #beginReading(): Promise<void> {
    if (this.reading.hasBegun) {
      this.reading.open();
      return;
    }
    const answer = await this.#ask("unread", {});
    this.reading.begin(isRecord(answer) ? numberOf(answer["read"]) : 0);
    this.#changed();
  }

  #identified({ userId, role }: Identity): void {
    this.people.me = userId;
    this.people.introduce(userId, this.seat.name);
    this.standing.identify(role, isGuest(userId));
    this.#changed();
  }

  #published(entry: Entry): void {
    this.#history.published(entry);
    this.typists.heed(entry.userId, false);
    this.#listener.said(entry);
  }

  #signalled(signal: Signal): void {
    switch (signal.kind) {
      case "typing":
        if (signal.userId !== this.people.me) {
          this.typists.heed(signal.userId, signal.typing);
        }
        break;
      case "read":
        if (signal.userId === this.people.me) {
          this.reading.readElsewhere(signal.sequence);
          this.#changed();
        } else if (this.reading.heed(signal.userId, signal.sequence)) {
          this.#changed();
        }
        break;
      case "presence":
        this.presence.heed(signal.count);
        break;
    }
  }

  #noticed(notice: Notice): void {
    // What was forbidden may be allowed now.
    this.#useless.clear();
    this.standing.heed(notice);
    this.#changed();
  }

  #seen(added: readonly Entry[]): void {
    this.people.learn(added);
    this.reading.seen(this.timeline.last);
    const confirmed = added.filter((entry) => this.outbox.confirm(entry.id));
    if (confirmed.length > 0) {
      this.#saveDrafts();
    }
    for (const entry of added) {
      this.#acts.confirm(entry.id);
      if (entry.type === "restored") {
        void this.#restore(entry.target);
      }
    }
    this.#changed();
  }

  /** A message that this page was only given a placeholder of is shown again. */
  async #restore(target: number): Promise<void> {
    const hidden = this.timeline.hidden(target);
    const entries = await Promise.all(hidden.map((sequence) => this.#read(sequence).catch(() => null)));
    this.timeline.restore(entries.filter((entry) => entry !== null));
    this.#changed();
  }

  async #read(sequence: number): Promise<Entry | null> {
    const entries = await this.#connection.history(sequence + 1, 1);
    return entries.find((entry) => entry.sequence === sequence) ?? null;
  }

  #reloaded(): void {
    this.outbox.settle();
    this.#acts.settle();
    this.distant.clear();
    this.#changed();
  }

  #actRefused(act: Act, fault: Fault): void {
    this.#acts.discard(act.id);
    if (fault.code === UNAVAILABLE) {
      this.standing.forbidActs();
    } else if (fault.code === PERMISSION_DENIED && (act.kind === "pin" || act.kind === "unpin")) {
      this.standing.forbidPins();
    }
    this.#listener.refused(act, explain(fault));
  }

  /** Ask something that the page can do without; null if it was not answered. */
  async #ask(method: string, parameters: object): Promise<unknown> {
    if (this.#useless.has(method) || this.status.kind === "closed") {
      return null;
    }
    try {
      return await this.#connection.rpc(method, parameters);
    } catch (error) {
      const { code } = readFault(error);
      if (code === UNAVAILABLE || code === PERMISSION_DENIED) {
        this.#useless.add(method);
      }
      return null;
    }
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
