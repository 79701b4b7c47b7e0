/** Sends what stands in the outbox whenever the room is reachable. */

import { backoff, RESEND } from "./backoff.ts";
import { explain, isTemporary, readFault, type Fault } from "./fault.ts";
import type { Message } from "./message.ts";
import type { Outbox, Sendable } from "./outbox.ts";

/** The one thing that delivery asks of a connection: send this, answered once the server has acknowledged it. */
export type Send<T> = (item: T) => Promise<unknown>;

/** Empties an outbox, one item after the other, with the same id at every attempt. */
export class Delivery<T extends Sendable = Message> {
  readonly #outbox: Outbox<T>;
  readonly #send: Send<T>;
  readonly #changed: () => void;
  readonly #failed: (item: T, fault: Fault) => void;
  /** Counts openings and closings, so that an answer from a connection that is gone is told from one of this. */
  #turn = 0;
  #open = false;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /**
   * @param changed called after every change to the outbox
   * @param failed called with what will not be sent again by itself
   */
  constructor(
    outbox: Outbox<T>,
    send: Send<T>,
    changed: () => void,
    failed: (item: T, fault: Fault) => void = () => {},
  ) {
    this.#outbox = outbox;
    this.#send = send;
    this.#changed = changed;
    this.#failed = failed;
  }

  /** The room is reachable: send. */
  open(): void {
    this.#turn += 1;
    this.#open = true;
    this.nudge();
  }

  /** The room is out of reach: what was on its way goes out again after the next `open`. */
  close(): void {
    this.#turn += 1;
    this.#open = false;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#outbox.interrupt();
    this.#changed();
  }

  /** Send the next message, if the room is reachable and none is on its way or waits out a back-off. */
  nudge(): void {
    if (!this.#open || this.#timer !== undefined) {
      return;
    }
    const draft = this.#outbox.take();
    if (!draft) {
      return;
    }
    this.#changed();
    const turn = this.#turn;
    this.#send(draft).then(
      () => this.#answered(turn, () => this.#outbox.accept(draft.id)),
      (error: unknown) => this.#answered(turn, () => this.#refused(draft, readFault(error))),
    );
  }

  #answered(turn: number, settle: () => void): void {
    if (turn !== this.#turn) {
      return;
    }
    settle();
    this.#changed();
    this.nudge();
  }

  #refused(item: T, fault: Fault): void {
    if (!isTemporary(fault)) {
      this.#outbox.refuse(item.id, explain(fault));
      this.#failed(item, fault);
      return;
    }
    const draft = this.#outbox.postpone(item.id, explain(fault));
    if (draft?.state === "failed") {
      this.#failed(item, fault);
    } else if (draft) {
      this.#timer = setTimeout(
        () => {
          this.#timer = undefined;
          this.nudge();
        },
        backoff(draft.attempts, RESEND, Math.random()),
      );
    }
  }
}
