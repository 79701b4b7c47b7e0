/** The connection to the node, and through it to one room: the only file that knows the SDK. */

import { Centrifuge, type Subscription, type SubscribedContext } from "centrifuge";

import { backoff, RECONNECT } from "./backoff.ts";
import { explain, PERMISSION_DENIED, readFault } from "./fault.ts";
import { isRecord, readEntry, type Entry } from "./message.ts";

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


/** What a connection tells. */
export interface ConnectionListener {
  statusChanged(status: Status): void;
  arrived(arrival: Arrival): void;
  entryPublished(entry: Entry): void;
  /** @param count how many people are in the room, or null if the server doesn't say */
  presenceChanged(count: number | null): void;
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

/** How often people are counted even if nobody is seen to come or go, in milliseconds. */
const PRESENCE_INTERVAL = 30_000;

/** Comings and goings within this many milliseconds are counted once. */
const PRESENCE_QUIET = 400;

export class Connection {
  readonly #client: Centrifuge;
  readonly #room: Subscription;
  readonly #listener: ConnectionListener;
  readonly #credentials: Credentials;
  /** Losses and vain attempts in a row; the next attempt waits if there are any. */
  #failures = 0;
  #wasLive = false;
  #endWait: (() => void) | undefined;
  #presenceTimer: ReturnType<typeof setTimeout> | undefined;
  #presenceDenied = false;
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
    clearTimeout(this.#presenceTimer);
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

  /**
   * Read the entries before a sequence, or the newest; fewer than all of them may come, and none if there are none.
   *
   * Rejects with an error of the SDK, or if the room has begun anew since it was entered.
   *
   * @param before a sequence, or 0 for the newest entries
   */
  async history(before: number): Promise<Entry[]> {
    const since = before > 0 ? { since: { offset: before, epoch: this.#epoch } } : {};
    const page = await this.#client.history(this.#room.channel, { limit: PAGE_SIZE, reverse: true, ...since });
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
    });
    this.#client.on("disconnected", (fault) => this.#closed("connection", fault.code, fault.reason));
    addEventListener("online", this.#hurry);
  }

  #followRoom(): void {
    this.#room.on("subscribed", (context) => this.#entered(context));
    this.#room.on("subscribing", () => this.#tell({ kind: "connecting", again: this.#wasLive }));
    this.#room.on("unsubscribed", (fault) => this.#closed("room", fault.code, fault.reason));
    this.#room.on("publication", ({ data }) => this.#received(data));
    this.#room.on("join", () => this.#countSoon(PRESENCE_QUIET));
    this.#room.on("leave", () => this.#countSoon(PRESENCE_QUIET));
  }

  #entered(context: SubscribedContext): void {
    this.#epoch = context.streamPosition?.epoch ?? "";
    const arrival = !this.#wasLive ? "first" : context.recovered ? "resumed" : "missed";
    this.#wasLive = true;
    this.#listener.arrived(arrival);
    this.#tell({ kind: "live" });
    this.#countSoon(0);
  }

  #received(data: unknown): void {
    const entry = readEntry(data);
    if (entry) {
      this.#listener.entryPublished(entry);
    } else if (isRecord(data) && data["type"] === "presence" && typeof data["count"] === "number") {
      this.#listener.presenceChanged(data["count"]);
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

  #countSoon(delay: number): void {
    clearTimeout(this.#presenceTimer);
    if (!this.#presenceDenied) {
      this.#presenceTimer = setTimeout(() => void this.#count(), delay);
    }
  }

  async #count(): Promise<void> {
    try {
      const { numUsers } = await this.#client.presenceStats(this.#room.channel);
      this.#listener.presenceChanged(numUsers);
    } catch (error) {
      this.#presenceDenied = readFault(error).code === PERMISSION_DENIED;
      this.#listener.presenceChanged(null);
    }
    this.#countSoon(PRESENCE_INTERVAL);
  }
}
