/** Sends what stands in the outbox whenever the room is reachable. */

import { backoff, RESEND } from "./backoff.ts";
import { publicationOf } from "./message.ts";
import type { Outbox } from "./outbox.ts";
import { explain, isTemporary, readFault } from "./fault.ts";

/** The one thing that delivery asks of a connection: publish, answered once the server has acknowledged it. */
export type Publish = (data: object) => Promise<unknown>;

/** Empties an outbox, one message after the other, with the same id at every attempt. */
export class Delivery {
  readonly #outbox: Outbox;
  readonly #publish: Publish;
  readonly #changed: () => void;
  /** Counts openings and closings, so that an answer from a connection that is gone is told from one of this. */
  #turn = 0;
  #open = false;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /**
   * @param changed called after every change to the outbox
   */
  constructor(outbox: Outbox, publish: Publish, changed: () => void) {
    this.#outbox = outbox;
    this.#publish = publish;
    this.#changed = changed;
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
    this.#publish(publicationOf(draft)).then(
      () => this.#answered(turn, () => this.#outbox.accept(draft.id)),
      (error: unknown) => this.#answered(turn, () => this.#refused(draft.id, error)),
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

  #refused(id: string, error: unknown): void {
    const fault = readFault(error);
    if (!isTemporary(fault)) {
      this.#outbox.refuse(id, explain(fault));
      return;
    }
    const draft = this.#outbox.postpone(id, explain(fault));
    if (draft?.state === "waiting") {
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
