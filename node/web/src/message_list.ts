/** The scrolling list of messages: keeps the place of a reader, follows the newest for who is at the end. */

import { find, setText } from "./element.ts";
import type { Earlier } from "./history.ts";
import type { Rights } from "./rights.ts";
import { RowElement, type RowActions } from "./row_element.ts";
import { RowWindow } from "./row_window.ts";
import type { MessageRow, Row } from "./rows.ts";
import { SHORTCUTS, Toolbar, type ToolbarActions } from "./toolbar.ts";

/** What a person asks of the list. */
export interface ListActions extends RowActions, ToolbarActions {
  readEarlier(): void;
  /** The reader has come to the end of the list, or left it. */
  moved(): void;
}

/** Within this many pixels of the end one is at the end. */
const END = 48;

/** Within this many pixels of the beginning, about the height of its button, one is at the beginning. */
const BEGINNING = 64;

/** Within so many screens of an end of what stands in the document, more of the list is put there. */
const NEAR = 1;

/** For how long a message that was jumped to stands out, in milliseconds. */
const FLASH = 2_000;

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
  readonly #toolbar: Toolbar;
  readonly #window = new RowWindow();
  #rows: readonly Row[] = [];
  /** By row, for the window. */
  #keys: readonly string[] = [];
  #elements = new Map<string, RowElement>();
  #elementOf = new WeakMap<Element, RowElement>();
  #rights: Rights = { act: false, pin: false, moderate: false };
  /** Whether the reader is at the end, and so follows what comes. */
  #following = true;
  /** Messages that were not read yet. */
  #unread = 0;
  #earlierState: Earlier = "unknown";
  /** Whether something opened from the toolbar still needs it. */
  #holdsToolbar = false;

  constructor(actions: ListActions) {
    this.#actions = actions;
    this.#toolbar = new Toolbar(actions);
    this.#log.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    this.#newest.addEventListener("click", () => {
      // The button goes away, and the keyboard's focus must not go with it.
      this.#log.focus({ preventScroll: true });
      this.toEnd();
    });
    this.#earlier.addEventListener("click", () => actions.readEarlier());
    this.#log.addEventListener("keydown", (event) => this.#pressed(event));
    this.#list.addEventListener("pointerover", (event) => this.#pointed(event));
    this.#list.addEventListener("pointerleave", () => this.#settleToolbar());
    this.#list.addEventListener("focusin", (event) => this.#focused(event));
    this.#list.addEventListener("focusout", (event) => this.#blurred(event));
    new ResizeObserver(() => this.#follow()).observe(this.#log);
  }

  get isAtEnd(): boolean {
    return this.#following;
  }

  /** Empty the list, for another room. */
  clear(): void {
    this.#toolbar.hide();
    this.#list.replaceChildren();
    this.#elements.clear();
    this.#rows = [];
    this.#keys = [];
    this.#following = true;
  }

  /** Scroll to the newest message, and follow. */
  toEnd(): void {
    this.#following = true;
    this.#window.follow(this.#keys);
    this.#place();
    this.#follow();
    this.#drawNewest();
    this.#actions.moved();
  }

  /**
   * Show rows in this order. A reader who is not at the end keeps their place.
   *
   * @param unread how many messages were not read yet
   */
  update(rows: readonly Row[], earlier: Earlier, rights: Rights, unread: number): void {
    this.#rows = rows;
    this.#unread = unread;
    // Lines between messages come, go and move.
    this.#keys = rows.map(({ kind, key }) => (kind === "message" ? key : ""));
    this.#rights = rights;
    this.#keepingPlace(() => {
      if (this.#following) {
        this.#window.follow(this.#keys);
      } else {
        this.#window.keep(this.#keys);
      }
      this.#place();
      this.#drawEarlier(earlier, rows.length === 0);
    });
    this.#follow();
    if (!this.#following) {
      this.#slide();
    }
    this.#drawNewest();
    this.#fillScreen();
  }

  /** Bring a message onto the screen and give it the keyboard. Returns whether the list has it. */
  reveal(sequence: number): boolean {
    const index = this.#rows.findIndex((row) => row.kind === "message" && row.sequence === sequence);
    const row = this.#reach(index);
    if (!row) {
      return false;
    }
    row.root.scrollIntoView({ block: "center" });
    row.root.focus({ preventScroll: true });
    row.root.classList.remove("flash");
    // The browser has to see it without, or the flash does not begin anew.
    void row.root.offsetWidth;
    row.root.classList.add("flash");
    setTimeout(() => row.root.classList.remove("flash"), FLASH);
    this.#scrolled();
    return true;
  }

  /** Bring the line before what was not read onto the screen, if it is above. */
  revealUnread(): void {
    const row = this.#reach(this.#rows.findIndex(({ kind }) => kind === "unread"));
    if (row) {
      if (row.root.offsetTop < this.#log.scrollTop) {
        row.root.scrollIntoView({ block: "start" });
      }
      this.#scrolled();
    }
  }

  /** The newest message that the person could change, or null. */
  newestOwn(): MessageRow | null {
    const own = this.#rows.findLast(
      (row) => row.kind === "message" && row.mine && row.sequence > 0 && !row.removed && row.state === "sent",
    );
    return own?.kind === "message" ? own : null;
  }

  /** The row of a message, or null if the list has none. */
  rowOf(sequence: number): MessageRow | null {
    const row = this.#rows.find((candidate) => candidate.kind === "message" && candidate.sequence === sequence);
    return row?.kind === "message" ? row : null;
  }

  /** Keep the toolbar where it is, while something that it has opened is there. */
  holdToolbar(holds: boolean): void {
    this.#holdsToolbar = holds;
    if (!holds) {
      this.#settleToolbar();
    }
  }

  /** Give the keyboard to a message's row. */
  focusRow(key: string): void {
    this.#elements.get(key)?.root.focus({ preventScroll: true });
  }

  /** The element of a row, if the list has it, after the document was made to have it, too. */
  #reach(index: number): RowElement | undefined {
    if (index < 0) {
      return undefined;
    }
    this.#following = false;
    this.#window.around(this.#keys, index);
    this.#place();
    return this.#elements.get(this.#rows[index]?.key ?? "");
  }

  /** Put the elements in order. Messages that stay are not touched: one that is moved loses the keyboard's focus. */
  #place(): void {
    const kept = new Map<string, RowElement>();
    for (const row of this.#rows.slice(this.#window.from, this.#window.to)) {
      const element = this.#elements.get(row.key) ?? this.#make(row);
      element.update(row);
      kept.set(row.key, element);
    }
    for (const [key, element] of this.#elements) {
      if (!kept.has(key)) {
        element.root.remove();
      }
    }
    let next = this.#list.firstElementChild;
    for (const { root } of kept.values()) {
      while (next && next !== root && root.isConnected && !next.classList.contains("message")) {
        const line = next; // it makes way, and comes back where it is due
        next = line.nextElementSibling;
        line.remove();
      }
      if (root === next) {
        next = next.nextElementSibling;
      } else {
        this.#list.insertBefore(root, next);
      }
    }
    this.#elements = kept;
    this.#toolbar.refresh(this.#rights);
  }

  #make(row: Row): RowElement {
    const element = new RowElement(row, this.#actions);
    this.#elementOf.set(element.root, element);
    return element;
  }

  #keepingPlace(change: () => void): void {
    const anchor = this.#following ? null : this.#firstVisible();
    const before = anchor?.offsetTop ?? 0;
    change();
    if (anchor?.isConnected) {
      this.#log.scrollTop += anchor.offsetTop - before;
    }
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
  }

  #drawNewest(): void {
    const unread = this.#unread;
    this.#newest.hidden = this.#following;
    setText(this.#newest, unread === 0 ? "Newest messages" : unread === 1 ? "1 new message" : `${unread} new messages`);
  }

  /** The first message on the screen; a day's line won't do, since it moves when earlier messages come. */
  #firstVisible(): HTMLElement | null {
    const top = this.#log.scrollTop;
    for (const { root } of this.#elements.values()) {
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
    this.#slide();
    const { scrollTop, scrollHeight, clientHeight } = this.#log;
    const following = this.#window.isAtEnd && scrollHeight - scrollTop - clientHeight <= END;
    if (following !== this.#following) {
      this.#following = following;
      this.#drawNewest();
      this.#actions.moved();
    }
    this.#fillScreen();
  }

  /** Put more of the list into the document where the reader gets near the end of what stands there. */
  #slide(): void {
    const { scrollTop, scrollHeight, clientHeight } = this.#log;
    const near = clientHeight * NEAR;
    const isNearTop = scrollTop < near && this.#window.from > 0;
    const isNearEnd = scrollHeight - scrollTop - clientHeight < near && !this.#window.isAtEnd;
    if (!isNearTop && !isNearEnd) {
      return;
    }
    this.#following = false;
    this.#keepingPlace(() => {
      if (isNearTop) {
        this.#window.up(this.#keys);
      } else {
        this.#window.down(this.#keys);
      }
      this.#place();
    });
  }

  /** Who has scrolled to the first message wants those before it. */
  #fillScreen(): void {
    if (this.#log.scrollTop < BEGINNING && this.#window.from === 0 && this.#earlierState === "some") {
      this.#actions.readEarlier();
    }
  }

  #pointed(event: PointerEvent): void {
    const element = this.#rowAt(event.target);
    if (element && event.pointerType === "mouse" && !this.#toolbar.hasFocus && !this.#holdsToolbar) {
      this.#toolbar.show(element, this.#rights);
    }
  }

  #focused(event: FocusEvent): void {
    const element = this.#rowAt(event.target);
    if (element && !this.#holdsToolbar) {
      element.setReachable(true);
      this.#toolbar.show(element, this.#rights);
    }
  }

  #blurred(event: FocusEvent): void {
    const element = this.#rowAt(event.target);
    const next = this.#rowAt(event.relatedTarget);
    if (element && element !== next) {
      element.setReachable(false);
      if (!next) {
        // What had it may just be redrawn, and get it back.
        queueMicrotask(() => this.#settleToolbar());
      }
    }
  }

  /** The toolbar stays with the row that has the keyboard; nowhere else is it needed. */
  #settleToolbar(): void {
    if (this.#holdsToolbar) {
      return;
    }
    const element = this.#rowAt(document.activeElement);
    if (element) {
      this.#toolbar.show(element, this.#rights);
    } else {
      this.#toolbar.hide();
    }
  }

  /** Arrows go from message to message, Home and End to the first and newest, Enter to what can be done to one. */
  #pressed(event: KeyboardEvent): void {
    const at = this.#rowAt(event.target);
    const isAtRow = at !== null && event.target === at.root;
    if ((!isAtRow && event.target !== this.#log) || event.ctrlKey || event.metaKey || event.altKey) {
      return;
    }
    const command = SHORTCUTS.get(event.key);
    if (event.key === "ArrowUp" || event.key === "ArrowDown") {
      this.#step(at, event.key === "ArrowUp" ? -1 : 1);
    } else if (event.key === "Home" || event.key === "End") {
      this.#leap(at, event.key);
    } else if (isAtRow && event.key === "Enter") {
      this.#toolbar.focus();
    } else if (isAtRow && command) {
      this.#toolbar.run(command);
    } else {
      return;
    }
    event.preventDefault();
  }

  /** Give the keyboard to the next message in a direction; from the list itself to the newest on the screen. */
  #step(from: RowElement | null, direction: 1 | -1): void {
    const rows = [...this.#elements.values()].filter(({ row }) => row.kind === "message");
    const end = this.#log.scrollTop + this.#log.clientHeight;
    const index = from ? rows.indexOf(from) + direction : rows.findLastIndex(({ root }) => root.offsetTop < end);
    const row = rows[index];
    row?.root.focus({ preventScroll: true });
    row?.root.scrollIntoView({ block: "nearest" });
  }

  /** Go to an end of the list, not just of what stands in the document; the keyboard goes along if a message had it. */
  #leap(from: RowElement | null, to: "Home" | "End"): void {
    // It would be lost with a row that leaves the document.
    this.#log.focus({ preventScroll: true });
    if (to === "End") {
      this.toEnd();
    } else {
      this.#following = false;
      this.#window.around(this.#keys, 0);
      this.#place();
      this.#log.scrollTop = 0;
      this.#scrolled();
    }
    if (from) {
      const rows = [...this.#elements.values()].filter(({ row }) => row.kind === "message");
      rows.at(to === "End" ? -1 : 0)?.root.focus({ preventScroll: true });
    }
  }

  #rowAt(target: EventTarget | null): RowElement | null {
    const item = target instanceof Element ? target.closest("li.message") : null;
    return (item && this.#elementOf.get(item)) ?? null;
  }
}
