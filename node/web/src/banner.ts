/** The strip that says how the connection is whenever it is not simply there. */

import type { Status } from "./connection.ts";
import { find, setText } from "./element.ts";

/** What the strip's button does. */
export interface BannerActions {
  /** Connect now instead of at the end of the wait. */
  hurry(): void;
  /** Connect again after the connection was closed for good. */
  open(): void;
}

/** How often the countdown is drawn, in milliseconds. */
const TICK = 250;

export class Banner {
  readonly #root = find("banner", HTMLElement);
  readonly #status = find("status", HTMLElement);
  readonly #countdown = find("countdown", HTMLElement);
  readonly #button = find("connect", HTMLButtonElement);
  #shown: Status | null = null;
  #ticker: ReturnType<typeof setInterval> | undefined;

  constructor(actions: BannerActions) {
    this.#button.addEventListener("click", () => {
      if (this.#shown?.kind === "waiting") {
        actions.hurry();
      } else {
        actions.open();
      }
    });
    addEventListener("offline", () => this.#draw());
    addEventListener("online", () => this.#draw());
  }

  /** Show a status; null takes the strip away. */
  show(status: Status | null): void {
    if (status !== this.#shown) {
      this.#shown = status;
      this.#draw();
    }
  }

  #draw(): void {
    const status = this.#shown;
    clearInterval(this.#ticker);
    this.#root.dataset["kind"] = status?.kind ?? "live";
    setText(this.#status, status ? textOf(status) : "");
    this.#drawButton(status);
    setText(this.#countdown, "");
    if (status?.kind === "waiting") {
      this.#count(status.until);
      this.#ticker = setInterval(() => this.#count(status.until), TICK);
    }
  }

  #drawButton(status: Status | null): void {
    const label = status?.kind === "waiting" ? "Try now" : status?.kind === "closed" ? "Try again" : "";
    if (!label && document.activeElement === this.#button) {
      find("content", HTMLTextAreaElement).focus();
    }
    this.#button.hidden = !label;
    setText(this.#button, label);
  }

  #count(until: number): void {
    const seconds = Math.max(1, Math.ceil((until - Date.now()) / 1000));
    setText(this.#countdown, ` Next attempt in ${seconds} s.`);
  }
}

/** The same words for every wait and attempt of one outage: what changes is announced, and this must not be. */
function textOf(status: Status): string {
  switch (status.kind) {
    case "live":
      return "Connected.";
    case "closed":
      return status.what === "room"
        ? `You can't be in this room: ${status.reason}.`
        : `Disconnected: ${status.reason}.`;
    case "connecting":
    case "waiting":
      if (!navigator.onLine) {
        return "You are offline. What you write is sent once you are back.";
      }
      return status.kind === "waiting" || status.again ? "Connection lost. Reconnecting…" : "Connecting…";
  }
}
