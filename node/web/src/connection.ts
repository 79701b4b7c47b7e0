/** The connection to the node, and through it to one room: the only file that knows the SDK. */

import { Centrifuge, type Subscription, type SubscribedContext } from "centrifuge";

import { backoff, RECONNECT } from "./backoff.ts";
import { explain } from "./fault.ts";
import { isRecord, readEntry, readName, type Entry } from "./message.ts";
import type { Person } from "./presence.ts";
import { readNotice, readSignal, type Notice, type Signal } from "./signal.ts";

/**
 * Where the connection stands:
 *
 * - `connecting`: an attempt is under way (`again`: there was a connection before);
 * - `waiting`: the next attempt starts at `until` (milliseconds since 1970);
 * - `live`: connected and in the room;
 * - `closed`: for good, unless the person asks for another attempt: the `connection`, or only the `room`.
 */
export type Status =
  | { readonly kind: "connecting"; readonly again: boolean }
  | { readonly kind: "waiting"; readonly until: number }
  | { readonly kind: "live" }
  | { readonly kind: "closed"; readonly what: "connection" | "room"; readonly reason: string };

/** How a room was entered: for the first time, exactly where it was left, or with messages missed in between. */
export type Arrival = "first" | "resumed" | "missed";

/** Who the server takes this page's person for. */
export interface Identity {
  readonly userId: string;
  /** What the site calls the user, such as `moderator`; empty: nothing. */
  readonly role: string;
}

/** What a connection tells. */
export interface ConnectionListener {
  statusChanged(status: Status): void;
  arrived(arrival: Arrival): void;
  identified(identity: Identity): void;
  entryPublished(entry: Entry): void;
  signalled(signal: Signal): void;
  noticed(notice: Notice): void;
  /** Somebody came or went. */
  stirred(): void;
}

/** Whom a connection is for. */
export interface Credentials {
  /** Connection token, or empty for a guest. */
  readonly token: string;
  /** The proof of being the same guest as before, or null. */
  guest: unknown;
}

/** Entries asked for at once: a few screens. */
const PAGE_SIZE = 50;

export class Connection {
  readonly #client: Centrifuge;
  readonly #room: Subscription;
  readonly #listener: ConnectionListener;
  readonly #credentials: Credentials;
  /** Losses and vain attempts in a row; the next attempt waits if there are any. */
  #failures = 0;
  #wasLive = false;
  #endWait: (() => void) | undefined;
  readonly #hurry = (): void => this.hurry();
  /** The room's stream epoch, which history must be read under. */
  #epoch = "";

  /**
   * @param endpoint WebSocket URL of the node
   * @param channel the room
   */
  constructor(endpoint: string, channel: string, credentials: Credentials, listener: ConnectionListener) {
    this.#listener = listener;
    this.#credentials = credentials;
    this.#client = new Centrifuge(endpoint, {
      name: "page",
      token: credentials.token,
      // The SDK keeps its delays to itself, and a person wants to see them: it waits in getData, so not here.
      minReconnectDelay: 0,
      maxReconnectDelay: 0,
      getData: () => this.#beforeAttempt(),
    });
    this.#room = this.#client.newSubscription(channel, { recoverable: true, positioned: true, joinLeave: true });
    this.#followClient();
    this.#followRoom();
  }

  /** Connect, or connect again after `closed`. */
  open(): void {
    this.#failures = 0;
    this.#tell({ kind: "connecting", again: this.#wasLive });
    this.#room.subscribe();
    this.#client.connect();
  }

  /** Leave the room and disconnect, for good. */
  close(): void {
    this.#client.removeAllListeners();
    this.#room.removeAllListeners();
    removeEventListener("online", this.#hurry);
    this.#client.disconnect();
    this.hurry();
  }

  /** Start the next attempt now. */
  hurry(): void {
    this.#endWait?.();
  }

  /** Publish into the room; resolves once the server has acknowledged it, rejects with an error of the SDK. */
  publish(data: object): Promise<unknown> {
    return this.#client.publish(this.#room.channel, data);
  }

  /** Call a method of the server; resolves with its answer, rejects with an error of the SDK. */
  async rpc(method: string, parameters: object): Promise<unknown> {
    return (await this.#client.rpc(method, { channel: this.#room.channel, ...parameters })).data;
  }

  /** How many people are in the room. */
  async count(): Promise<number> {
    return (await this.#client.presenceStats(this.#room.channel)).numUsers;
  }

  /** Who is in the room, each once. */
  async roster(): Promise<Person[]> {
    const { clients } = await this.#client.presence(this.#room.channel);
    const people = new Map<string, Person>();
    for (const { user, connInfo, chanInfo } of Object.values(clients)) {
      people.set(user, { userId: user, name: readName(chanInfo) || readName(connInfo) });
    }
    return [...people.values()];
  }

  /**
   * Read the entries before a sequence, or the newest; fewer than all of them may come, and none if there are none.
   *
   * Rejects with an error of the SDK, or if the room has begun anew since it was entered.
   *
   * @param before a sequence, or 0 for the newest entries
   */
  async history(before: number, limit = PAGE_SIZE): Promise<Entry[]> {
    const since = before > 0 ? { since: { offset: before, epoch: this.#epoch } } : {};
    const page = await this.#client.history(this.#room.channel, { limit, reverse: true, ...since });
    if (before > 0 && page.epoch !== this.#epoch) {
      throw new Error("the room has begun anew, so what stood before an entry can't be told");
    }
    this.#epoch = page.epoch;
    return page.publications.map((publication) => readEntry(publication.data)).filter((entry) => entry !== null);
  }

  #tell(status: Status): void {
    this.#listener.statusChanged(status);
  }

  #followClient(): void {
    this.#client.on("connecting", () => this.#tell({ kind: "connecting", again: this.#wasLive }));
    this.#client.on("connected", ({ data }) => {
      // Should this connection be lost, then that was a failure: everybody else's may be lost in the same moment.
      this.#failures = 1;
      if (isRecord(data) && data["guest"] !== undefined) {
        this.#credentials.guest = data["guest"];
      }
      if (isRecord(data) && typeof data["user"] === "string") {
        this.#listener.identified({ userId: data["user"], role: typeof data["role"] === "string" ? data["role"] : "" });
      }
    });
    this.#client.on("message", ({ data }) => this.#notified(data));
    this.#client.on("disconnected", (fault) => this.#closed("connection", fault.code, fault.reason));
    addEventListener("online", this.#hurry);
  }

  #followRoom(): void {
    this.#room.on("subscribed", (context) => this.#entered(context));
    this.#room.on("subscribing", () => this.#tell({ kind: "connecting", again: this.#wasLive }));
    this.#room.on("unsubscribed", (fault) => this.#closed("room", fault.code, fault.reason));
    this.#room.on("publication", ({ data }) => this.#received(data));
    this.#room.on("join", () => this.#listener.stirred());
    this.#room.on("leave", () => this.#listener.stirred());
  }

  #entered(context: SubscribedContext): void {
    this.#epoch = context.streamPosition?.epoch ?? "";
    const arrival = !this.#wasLive ? "first" : context.recovered ? "resumed" : "missed";
    this.#wasLive = true;
    this.#listener.arrived(arrival);
    this.#tell({ kind: "live" });
  }

  #received(data: unknown): void {
    const entry = readEntry(data);
    if (entry) {
      this.#listener.entryPublished(entry);
      return;
    }
    const signal = readSignal(data);
    if (signal) {
      this.#listener.signalled(signal);
    }
  }

  #notified(data: unknown): void {
    const notice = readNotice(data);
    if (notice?.channel === this.#room.channel) {
      this.#listener.noticed(notice);
    }
  }

  #closed(what: "connection" | "room", code: number, reason: string): void {
    this.#tell({ kind: "closed", what, reason: explain({ code, message: reason }) });
  }

  /** Called by the SDK before each attempt: waits, unless it is the first, and gives what the attempt presents. */
  async #beforeAttempt(): Promise<object | null> {
    if (this.#failures > 0) {
      await this.#wait(backoff(this.#failures, RECONNECT, Math.random()));
      this.#tell({ kind: "connecting", again: this.#wasLive });
    }
    this.#failures += 1;
    const { guest } = this.#credentials;
    return guest === null ? null : { guest };
  }

  async #wait(milliseconds: number): Promise<void> {
    this.#tell({ kind: "waiting", until: Date.now() + milliseconds });
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, milliseconds);
      this.#endWait = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    this.#endWait = undefined;
  }
}
