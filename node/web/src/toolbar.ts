/** What can be done to one message: shown at the row that the pointer or the keyboard is at. */

import { make, makeButton } from "./element.ts";
import { icon, type IconName } from "./icons.ts";
import type { Rights } from "./rights.ts";
import type { RowElement } from "./row_element.ts";
import type { MessageRow, Row } from "./rows.ts";

/** What a person can ask for. */
export interface ToolbarActions {
  react(row: MessageRow, emoji: string): void;
  /** Choose an emoji to react with, beside an element. */
  pick(row: MessageRow, anchor: HTMLElement): void;
  reply(row: MessageRow): void;
  edit(row: MessageRow): void;
  remove(row: MessageRow): void;
  restore(row: MessageRow): void;
  pin(row: MessageRow): void;
}

/** What a button does, by its name. */
export type Command = "pick" | "reply" | "edit" | "pin" | "delete" | "restore";

/** The reactions that are a click away. */
const QUICK = ["👍", "❤️", "😂"];

const ICONS: Readonly<Record<Command, IconName>> = {
  pick: "react",
  reply: "reply",
  edit: "edit",
  pin: "pin",
  delete: "delete",
  restore: "restore",
};

const LABELS: Readonly<Record<Command, string>> = {
  pick: "Add reaction",
  reply: "Reply",
  edit: "Edit",
  pin: "Pin",
  delete: "Delete",
  restore: "Restore",
};

/** Keys that do the same at a message. */
export const SHORTCUTS: ReadonlyMap<string, Command> = new Map([
  ["+", "pick"],
  ["r", "reply"],
  ["e", "edit"],
  ["p", "pin"],
  ["Delete", "delete"],
]);

/** What can be done to a message; nothing to one that is not in the room yet. */
export function commandsFor(row: MessageRow, rights: Rights): Command[] {
  if (!rights.act || row.sequence === 0) {
    return [];
  }
  if (row.removed) {
    return rights.moderate ? ["restore"] : [];
  }
  const commands: Command[] = ["pick", "reply"];
  if (row.mine) {
    commands.push("edit");
  }
  if (rights.pin) {
    commands.push("pin");
  }
  if (row.mine || rights.moderate) {
    commands.push("delete");
  }
  return commands;
}

export class Toolbar {
  readonly #root = make("div", "toolbar");
  readonly #actions: ToolbarActions;
  #at: RowElement | null = null;
  /** The row as it was when the buttons were drawn. */
  #drawn: Row | null = null;
  #rights: Rights = { act: false, pin: false, moderate: false };

  constructor(actions: ToolbarActions) {
    this.#actions = actions;
    this.#root.setAttribute("role", "toolbar");
    this.#root.addEventListener("keydown", (event) => this.#pressed(event));
  }

  get hasFocus(): boolean {
    return this.#root.contains(document.activeElement);
  }

  /** Stand at a row, if anything can be done there. */
  show(at: RowElement, rights: Rights): void {
    // Buttons that somebody is about to press stay under their hand.
    if (at === this.#at && (this.hasFocus || (at.row === this.#drawn && sameRights(rights, this.#rights)))) {
      return;
    }
    this.#at = at;
    this.#rights = rights;
    this.#draw();
  }

  /** Draw again what has changed of the row, or may be done to it; go if the row has gone. */
  refresh(rights: Rights): void {
    const at = this.#at;
    if (at && !at.root.isConnected) {
      this.hide();
    } else if (at) {
      this.show(at, rights);
    }
  }

  hide(): void {
    this.#at = null;
    this.#drawn = null;
    this.#root.remove();
  }

  /** Let the keyboard in. */
  focus(): void {
    this.#buttons()[0]?.focus({ preventScroll: true });
  }

  /** Do something to the row, as if its button had been pressed; nothing if it has none. */
  run(command: Command): void {
    const row = this.#row();
    if (!row || !commandsFor(row, this.#rights).includes(command)) {
      return;
    }
    switch (command) {
      case "pick":
        this.#actions.pick(row, this.#root);
        break;
      case "delete":
        this.#confirm(row);
        break;
      case "reply":
      case "edit":
        this.#actions[command](row);
        break;
      default:
        this.#actions[command](row);
        this.#leave();
    }
  }

  #row(): MessageRow | null {
    const row = this.#at?.row;
    return row?.kind === "message" ? row : null;
  }

  #draw(): void {
    const row = this.#row();
    this.#drawn = row;
    const commands = row ? commandsFor(row, this.#rights) : [];
    if (!row || commands.length === 0) {
      this.#root.remove();
      return;
    }
    this.#root.setAttribute("aria-label", row.mine ? "Actions for your message" : `Actions for the message of ${row.author}`);
    const quick = commands.includes("pick") ? QUICK.map((emoji) => this.#quick(emoji)) : [];
    this.#root.replaceChildren(...quick, ...commands.map((command) => this.#button(row, command)));
    this.#at?.root.append(this.#root);
  }

  #quick(emoji: string): HTMLButtonElement {
    const act = (): void => {
      const row = this.#row();
      if (row) {
        this.#actions.react(row, emoji);
      }
      this.#leave();
    };
    const button = makeButton("tool emoji", act, emoji);
    button.setAttribute("aria-label", `React with ${emoji}`);
    button.tabIndex = -1;
    return button;
  }

  #button(row: MessageRow, command: Command): HTMLButtonElement {
    const button = makeButton("tool", () => this.run(command), icon(ICONS[command]));
    const label = command === "pin" && row.pinned ? "Unpin" : LABELS[command];
    button.setAttribute("aria-label", label);
    button.title = label;
    button.tabIndex = -1;
    if (command === "delete") {
      button.classList.add("danger");
    }
    return button;
  }

  /** Nothing is removed by one slip. */
  #confirm(row: MessageRow): void {
    const question = make("span", "question", "Delete this message?");
    const yes = makeButton("tool danger worded", () => {
      this.#actions.remove(row);
      this.#leave();
    }, "Delete");
    const no = makeButton("tool worded", () => this.#leave(), "Keep");
    this.#root.replaceChildren(question, no, yes);
    no.focus({ preventScroll: true });
  }

  /** Give the keyboard back to the row. */
  #leave(): void {
    this.#at?.root.focus({ preventScroll: true });
    this.#draw();
  }

  #pressed(event: KeyboardEvent): void {
    const buttons = this.#buttons();
    const index = buttons.indexOf(document.activeElement as HTMLButtonElement);
    if (event.key === "ArrowRight" || event.key === "ArrowLeft") {
      const step = event.key === "ArrowRight" ? 1 : -1;
      buttons[(index + step + buttons.length) % buttons.length]?.focus({ preventScroll: true });
    } else if (event.key === "Escape") {
      this.#leave();
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }

  #buttons(): HTMLButtonElement[] {
    return [...this.#root.querySelectorAll("button")];
  }
}

function sameRights(one: Rights, other: Rights): boolean {
  return one.act === other.act && one.pin === other.pin && one.moderate === other.moderate;
}
