/** The element of one row of the list. */

import { make } from "./element.ts";
import type { MessageRow, MessageState, Row } from "./rows.ts";

/** What a person can do with a message that was not sent. */
export interface RowActions {
  retry(id: string): void;
  discard(id: string): void;
}

const TIME = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const DAY = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long", year: "numeric" });
const MOMENT = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "medium" });

const STATE_WORDS: Readonly<Record<MessageState, string>> = {
  sent: "",
  waiting: "Waiting to be sent",
  sending: "Sending…",
  failed: "Not sent",
};

export class RowElement {
  readonly root = make("li", "");
  readonly #actions: RowActions;
  #drawn = "";

  constructor(row: Row, actions: RowActions) {
    this.#actions = actions;
    this.update(row);
  }

  /** Draw the row, if it is another than before. */
  update(row: Row): void {
    const drawn = JSON.stringify(row);
    if (drawn === this.#drawn) {
      return;
    }
    this.#drawn = drawn;
    switch (row.kind) {
      case "message":
        this.#drawMessage(row);
        break;
      case "day":
        this.#drawLine("day", DAY.format(row.time));
        break;
      case "notice":
        this.#drawLine("notice", row.text);
        break;
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
    const avatar = make("span", `avatar hue-${row.hue}`, [...row.author][0]?.toUpperCase() ?? "");
    avatar.setAttribute("aria-hidden", "true");
    this.root.replaceChildren(avatar, make("div", "body", byLine(row), contentOf(row), ...this.#stateOf(row)));
  }

  #stateOf(row: MessageRow): Node[] {
    const words = STATE_WORDS[row.state];
    if (!words) {
      return [];
    }
    const line = make("p", "state", make("span", "", row.reason ? `${words}: ${row.reason}` : words));
    if (row.state === "failed") {
      line.append(
        button("Retry", row.content, () => this.#actions.retry(row.id)),
        button("Discard", row.content, () => this.#actions.discard(row.id)),
      );
    }
    return [line];
  }
}

function classesOf(row: MessageRow): string {
  const classes = ["message", row.state];
  if (row.mine) {
    classes.push("mine");
  }
  if (row.head) {
    classes.push("head");
  }
  if (row.removed) {
    classes.push("removed");
  }
  return classes.join(" ");
}

/** Who and when: seen once for a run of messages, heard at each. */
function byLine(row: MessageRow): HTMLElement {
  const time = make("time", "", TIME.format(row.time));
  time.dateTime = new Date(row.time).toISOString();
  time.title = MOMENT.format(row.time);
  const author = make("span", "author", row.mine ? "You" : row.author);
  return make("p", row.head ? "by" : "by unseen", author, " ", time);
}

function contentOf(row: MessageRow): HTMLElement {
  const content = make("p", "content", row.removed ? "Message removed" : row.content);
  // Each message runs in the direction of its own language.
  content.dir = "auto";
  if (row.edited) {
    content.append(" ", make("small", "edited", "(edited)"));
  }
  return content;
}

function button(label: string, content: string, act: () => void): HTMLButtonElement {
  const element = make("button", "plain", label);
  element.type = "button";
  element.setAttribute("aria-label", `${label}: ${content}`);
  element.addEventListener("click", act);
  return element;
}
