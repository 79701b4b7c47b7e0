/** The scrolling list of messages: keeps the place of a reader, follows the newest for who is at the end. */

import { find, setText } from "./element.ts";
import type { Earlier } from "./history.ts";
import { RowElement } from "./row_element.ts";
import type { Row } from "./rows.ts";

/** What a person asks of the list. */
export interface ListActions {
  readEarlier(): void;
  retry(id: string): void;
  discard(id: string): void;
}

/** Within this many pixels of the end one is at the end. */
const END = 48;

/** Within this many pixels of the beginning, about the height of its button, one is at the beginning. */
const BEGINNING = 64;

/** Label of the button above the first message. */
const EARLIER_LABELS: Readonly<Record<Earlier, string>> = {
  unknown: "",
  some: "Earlier messages",
  loading: "Loading messages…",
  unread: "Earlier messages could not be loaded. Try again",
  none: "",
};

export class MessageList {
  readonly #log = find("log", HTMLElement);
  readonly #list = find("messages", HTMLOListElement);
  readonly #earlier = find("earlier", HTMLButtonElement);
  readonly #beginning = find("beginning", HTMLElement);
  readonly #newest = find("newest", HTMLButtonElement);
  readonly #actions: ListActions;
  #rows = new Map<string, RowElement>();
  /** Whether the reader is at the end, and so follows what comes. */
  #following = true;
  /** The highest sequence that was in the list while the reader was at its end. */
  #seen = 0;
  #last = 0;
  #earlierState: Earlier = "unknown";

  constructor(actions: ListActions) {
    this.#actions = actions;
    this.#log.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    this.#newest.addEventListener("click", () => {
      // The button goes away, and the keyboard's focus must not go with it.
      this.#log.focus({ preventScroll: true });
      this.toEnd();
    });
    this.#earlier.addEventListener("click", () => actions.readEarlier());
    new ResizeObserver(() => this.#follow()).observe(this.#log);
  }

  get isAtEnd(): boolean {
    return this.#following;
  }

  /** Empty the list, for another room. */
  clear(): void {
    this.#list.replaceChildren();
    this.#rows.clear();
    this.#following = true;
    this.#seen = 0;
    this.#last = 0;
  }

  /** Scroll to the newest message, and follow. */
  toEnd(): void {
    this.#following = true;
    this.#follow();
    this.#drawNewest([]);
  }

  /** Show rows in this order. A reader who is not at the end keeps their place. */
  update(rows: readonly Row[], earlier: Earlier): void {
    const anchor = this.#following ? null : this.#firstVisible();
    const before = anchor?.offsetTop ?? 0;
    this.#place(rows);
    this.#drawEarlier(earlier, rows.length === 0);
    if (anchor?.isConnected) {
      this.#log.scrollTop += anchor.offsetTop - before;
    }
    this.#follow();
    this.#drawNewest(rows);
    this.#fillScreen();
  }

  /** Put the elements in order; those that stay in place are not touched, so nothing is announced twice. */
  #place(rows: readonly Row[]): void {
    const kept = new Map<string, RowElement>();
    let next = this.#list.firstElementChild;
    for (const row of rows) {
      const element = this.#rows.get(row.key) ?? new RowElement(row, this.#actions);
      element.update(row);
      kept.set(row.key, element);
      this.#rows.delete(row.key);
      if (element.root === next) {
        next = next.nextElementSibling;
      } else {
        this.#list.insertBefore(element.root, next);
      }
    }
    for (const element of this.#rows.values()) {
      element.root.remove();
    }
    this.#rows = kept;
  }

  #drawEarlier(earlier: Earlier, isEmpty: boolean): void {
    this.#earlierState = earlier;
    const label = EARLIER_LABELS[earlier];
    if (!label && document.activeElement === this.#earlier) {
      this.#log.focus({ preventScroll: true });
    }
    this.#earlier.hidden = !label;
    this.#earlier.setAttribute("aria-disabled", String(earlier === "loading"));
    setText(this.#earlier, label);
    this.#beginning.hidden = earlier !== "none";
    setText(this.#beginning, isEmpty ? "No messages yet. Say hello." : "Beginning of the messages that this room keeps");
    // What is read from history is no news: it is put in place before the region speaks again.
    requestAnimationFrame(() => this.#log.setAttribute("aria-live", earlier === "loading" ? "off" : "polite"));
  }

  #drawNewest(rows: readonly Row[]): void {
    let unseen = 0;
    for (const row of rows) {
      if (row.kind === "message") {
        this.#last = Math.max(this.#last, row.sequence);
        unseen += !row.mine && row.sequence > this.#seen ? 1 : 0;
      }
    }
    if (this.#following) {
      this.#seen = this.#last;
    }
    this.#newest.hidden = this.#following;
    setText(this.#newest, unseen === 0 ? "Newest messages" : unseen === 1 ? "1 new message" : `${unseen} new messages`);
  }

  /** The first message on the screen; a day's line won't do, since it moves when earlier messages come. */
  #firstVisible(): HTMLElement | null {
    const top = this.#log.scrollTop;
    for (const { root } of this.#rows.values()) {
      if (root.offsetTop + root.offsetHeight > top && root.classList.contains("message")) {
        return root;
      }
    }
    return null;
  }

  #follow(): void {
    if (this.#following) {
      this.#log.scrollTop = this.#log.scrollHeight;
    }
  }

  #scrolled(): void {
    const { scrollTop, scrollHeight, clientHeight } = this.#log;
    const following = scrollHeight - scrollTop - clientHeight <= END;
    if (following !== this.#following) {
      this.#following = following;
      this.#drawNewest([]);
    }
    this.#fillScreen();
  }

  /** Who has scrolled to the first message wants those before it. */
  #fillScreen(): void {
    if (this.#log.scrollTop < BEGINNING && this.#earlierState === "some") {
      this.#actions.readEarlier();
    }
  }
}
