/** The element of one row of the list. */

import { make, makeButton, setText } from "./element.ts";
import { cutLinks } from "./links.ts";
import { enumerate } from "./people.ts";
import { ReactionBar } from "./reaction_bar.ts";
import type { MessageRow, MessageState, Quote, Row } from "./rows.ts";

/** What a person can do with a row. */
export interface RowActions {
  retry(id: string): void;
  discard(id: string): void;
  /** React with an emoji, or take that back. */
  react(row: MessageRow, emoji: string): void;
  /** Go to the message with a sequence. */
  jump(sequence: number): void;
}

const TIME = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const DAY = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });
const DAY_OF_A_YEAR = new Intl.DateTimeFormat(undefined, { dateStyle: "full" });
const MOMENT = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "medium" });

const STATE_WORDS: Readonly<Record<MessageState, string>> = {
  sent: "",
  waiting: "Waiting to be sent",
  sending: "Sending…",
  failed: "Not sent",
};

/** Names that a receipt tells before it counts the rest. */
const RECEIPT_NAMES = 3;

/** Up to so many emoji and nothing else are shown large. */
const LARGE = /^(?:\p{Extended_Pictographic}(?:\p{Emoji_Modifier}|\u{FE0F}|\u{200D}\p{Extended_Pictographic})*\s*){1,3}$/u;

const DAY_LENGTH = 24 * 60 * 60_000;

export class RowElement {
  readonly root = make("li", "");
  row: Row;
  readonly #actions: RowActions;
  readonly #reactions: ReactionBar;
  readonly #avatar = make("span", "avatar");
  readonly #body = make("div", "body");
  readonly #text = make("div", "bubble");
  readonly #foot = make("div", "foot");
  #drawn = "";
  #drawnText = "";
  #drawnFoot = "";

  constructor(row: Row, actions: RowActions) {
    this.row = row;
    this.#actions = actions;
    this.#reactions = new ReactionBar((emoji) => {
      if (this.row.kind === "message") {
        actions.react(this.row, emoji);
      }
    });
    this.#avatar.setAttribute("aria-hidden", "true");
    this.update(row);
  }

  /** Draw the row, if it is another than before; what stays the same keeps its elements, and so the focus. */
  update(row: Row): void {
    const drawn = JSON.stringify(row);
    if (drawn === this.#drawn) {
      return;
    }
    this.#drawn = drawn;
    this.row = row;
    switch (row.kind) {
      case "message":
        this.#drawMessage(row);
        break;
      case "day":
        this.#drawLine("day", dayOf(row.time, Date.now()));
        break;
      case "unread":
        this.#drawLine("unread", "New");
        break;
      case "notice":
      case "event":
        this.#drawLine(row.kind, row.text);
        break;
    }
  }

  /** Let the keyboard into the row's own controls: only those of one row are on its way, or it would never end. */
  setReachable(reachable: boolean): void {
    for (const control of this.root.querySelectorAll<HTMLElement>(".chip, .quote")) {
      control.tabIndex = reachable ? 0 : -1;
    }
  }

  #drawLine(className: string, text: string): void {
    this.root.className = className;
    this.root.replaceChildren(make("span", "", text));
  }

  #drawMessage(row: MessageRow): void {
    this.root.className = classesOf(row);
    this.root.dataset["state"] = row.state;
    if (row.sequence > 0) {
      this.root.dataset["sequence"] = String(row.sequence);
    }
    this.root.tabIndex = -1;
    this.root.setAttribute("aria-label", labelOf(row));
    if (!this.#body.parentElement) {
      this.root.append(this.#avatar, this.#body);
      this.#body.append(this.#text, this.#reactions.root, this.#foot);
    }
    this.#avatar.className = `avatar hue-${row.hue}`;
    setText(this.#avatar, [...row.author][0]?.toUpperCase() ?? "");
    this.#drawText(row);
    this.#reactions.update(row.chips);
    this.#drawFoot(row);
  }

  #drawText(row: MessageRow): void {
    const { head, mine, author, time, content, edited, removed, reason, quote, pinned, type } = row;
    const drawn = JSON.stringify([head, mine, author, time, content, edited, removed && reason, removed, quote, pinned, type]);
    if (drawn === this.#drawnText) {
      return;
    }
    this.#drawnText = drawn;
    const by = byLine(row);
    this.#body.querySelector(".by")?.remove();
    this.#body.prepend(by);
    this.#text.replaceChildren(...(quote ? [this.#quoteOf(quote)] : []), contentOf(row));
  }

  #quoteOf(quote: Quote): HTMLElement {
    const author = make("span", "quote-author", quote.author);
    const text = make("span", "quote-text", quote.text);
    text.dir = "auto";
    const element = makeButton("quote", () => this.#actions.jump(quote.sequence), author, " ", text);
    element.tabIndex = -1;
    element.setAttribute("aria-label", `In reply to ${quote.author}: ${quote.text}. Go to that message`);
    return element;
  }

  #drawFoot(row: MessageRow): void {
    const drawn = JSON.stringify([row.state, row.state !== "sent" && row.reason, row.seenBy, row.content]);
    if (drawn === this.#drawnFoot) {
      return;
    }
    this.#drawnFoot = drawn;
    this.#foot.replaceChildren(...this.#stateOf(row), ...receiptOf(row));
  }

  #stateOf(row: MessageRow): Node[] {
    const words = STATE_WORDS[row.state];
    if (!words) {
      return [];
    }
    const line = make("p", "state", make("span", "", row.reason ? `${words}: ${row.reason}` : words));
    if (row.state === "failed") {
      line.append(
        labelled("Retry", row.content, () => this.#actions.retry(row.id)),
        labelled("Discard", row.content, () => this.#actions.discard(row.id)),
      );
    }
    return [line];
  }
}

/** A day as a person would say it. */
function dayOf(time: number, now: number): string {
  const day = new Date(time);
  const days = Math.round((new Date(now).setHours(0, 0, 0, 0) - new Date(time).setHours(0, 0, 0, 0)) / DAY_LENGTH);
  if (days === 0 || days === 1) {
    return days === 0 ? "Today" : "Yesterday";
  }
  return day.getFullYear() === new Date(now).getFullYear() ? DAY.format(day) : DAY_OF_A_YEAR.format(day);
}

function classesOf(row: MessageRow): string {
  const { mine, head, removed, pinned, type } = row;
  const classes = { mine, head, removed, pinned, action: type === "action", quoting: row.quote !== null };
  const held = Object.entries(classes).filter(([, holds]) => holds);
  return ["message", row.state, ...held.map(([name]) => name)].join(" ");
}

/** What is heard when the keyboard gets to a message. */
function labelOf(row: MessageRow): string {
  const chips = row.chips.map(({ emoji, count }) => `${emoji} ${count}`).join(", ");
  const parts = [
    `${row.mine ? "You" : row.author}, ${TIME.format(row.time)}`,
    row.quote ? `in reply to ${row.quote.author}` : "",
    row.removed ? removedText(row) : row.content,
    row.edited ? "edited" : "",
    row.pinned ? "pinned" : "",
    chips ? `reactions: ${chips}` : "",
    STATE_WORDS[row.state],
  ];
  return parts.filter((part) => part !== "").join(". ");
}

/** Who and when: seen once for a run of messages, heard at each. */
function byLine(row: MessageRow): HTMLElement {
  const time = make("time", "", TIME.format(row.time));
  time.dateTime = new Date(row.time).toISOString();
  time.title = MOMENT.format(row.time);
  const author = make("span", "author", row.mine ? "You" : row.author);
  const line = make("p", row.head ? "by" : "by unseen", author, " ", time);
  if (row.pinned) {
    line.append(" ", make("span", "pinned-mark", "Pinned"));
  }
  return line;
}

function removedText(row: MessageRow): string {
  return row.reason ? `Message removed: ${row.reason}` : "Message removed";
}

function contentOf(row: MessageRow): HTMLElement {
  const content = make("p", LARGE.test(row.content) ? "content large emoji" : "content");
  // Each message runs in the direction of its own language.
  content.dir = "auto";
  if (row.removed) {
    content.textContent = removedText(row);
    return content;
  }
  for (const { text, href } of cutLinks(row.content)) {
    content.append(href ? linkTo(href, text) : text);
  }
  if (row.edited) {
    content.append(" ", make("small", "edited", "(edited)"));
  }
  return content;
}

/** A link that tells the page behind it nothing, and gives it no hold on this one. */
function linkTo(href: string, text: string): HTMLAnchorElement {
  const link = make("a", "", text);
  link.href = href;
  link.target = "_blank";
  link.rel = "noopener noreferrer nofollow ugc";
  return link;
}

function receiptOf(row: MessageRow): Node[] {
  if (row.seenBy.length === 0) {
    return [];
  }
  const receipt = make("p", "receipt", `Seen by ${enumerate(row.seenBy, RECEIPT_NAMES)}`);
  receipt.title = row.seenBy.join(", ");
  return [receipt];
}

function labelled(label: string, content: string, act: () => void): HTMLButtonElement {
  const element = makeButton("plain", act, label);
  element.setAttribute("aria-label", `${label}: ${content}`);
  return element;
}
