/** The field in which messages are written, answered and edited. */

import { find, make, setText } from "./element.ts";
import { icon } from "./icons.ts";
import type { MessageRow } from "./rows.ts";

/** What becomes of the text. */
export interface ComposerActions {
  /**
   * @param content a message without white space around it
   * @param replyTo sequence of the message that it answers, or 0
   * @throws RangeError whose text says why it can't be sent
   */
  send(content: string, replyTo: number): void;
  /**
   * @param target sequence of the message that gets this text
   * @throws RangeError likewise
   */
  edit(target: number, content: string): void;
  /** The person wants to change what they said last. */
  editLast(): void;
  typed(isEmpty: boolean): void;
}

/** What the text in the field is for. */
type Purpose =
  | { readonly kind: "write" }
  | { readonly kind: "reply"; readonly row: MessageRow }
  /** @param aside what was in the field before */
  | { readonly kind: "edit"; readonly row: MessageRow; readonly aside: string };

const WRITE: Purpose = { kind: "write" };

export class Composer {
  readonly #form = find("composer", HTMLFormElement);
  readonly #content = find("content", HTMLTextAreaElement);
  readonly #note = find("composer-note", HTMLElement);
  readonly #purposeBar = find("purpose", HTMLElement);
  readonly #purposeText = find("purpose-text", HTMLElement);
  readonly #restriction = find("restriction", HTMLElement);
  readonly #send = find("send", HTMLButtonElement);
  readonly #actions: ComposerActions;
  #purpose: Purpose = WRITE;

  constructor(actions: ComposerActions) {
    this.#actions = actions;
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    this.#content.addEventListener("keydown", (event) => this.#pressed(event));
    this.#content.addEventListener("input", () => {
      this.#fit();
      this.#actions.typed(this.#content.value.trim() === "" || this.#purpose.kind === "edit");
    });
    this.#send.append(icon("send"));
    const end = find("purpose-end", HTMLButtonElement);
    end.append(icon("close"));
    end.addEventListener("click", () => {
      this.cancel();
      this.focus();
    });
  }

  /** Make ready for a room. */
  show(room: string): void {
    this.#content.placeholder = `Message ${room}`;
    this.#content.value = "";
    this.#note.textContent = "";
    this.#setPurpose(WRITE);
    this.focus();
  }

  focus(): void {
    this.#content.focus({ preventScroll: true });
  }

  /** Whether the field is empty, and for a message of its own. */
  get isIdle(): boolean {
    return this.#purpose.kind === "write" && this.#content.value === "";
  }

  /** Write an answer. */
  reply(row: MessageRow): void {
    this.cancel();
    this.#setPurpose({ kind: "reply", row });
  }

  /**
   * Change a message.
   *
   * @param content the text to begin with
   */
  edit(row: MessageRow, content = row.content): void {
    this.cancel();
    this.#setPurpose({ kind: "edit", row, aside: this.#content.value });
    this.#fill(content);
  }

  /** Go back to writing. Returns whether anything else was being done. */
  cancel(): boolean {
    const purpose = this.#purpose;
    if (purpose.kind === "edit") {
      this.#fill(purpose.aside);
    }
    this.#setPurpose(WRITE);
    return purpose.kind !== "write";
  }

  /** Say why something can't be done. */
  note(text: string): void {
    setText(this.#note, text);
  }

  /** Say what keeps the person from writing as they like; an empty text if nothing does. */
  restrict(text: string): void {
    setText(this.#restriction, text);
  }

  /** The message that is being changed or answered may be gone. */
  follow(exists: (sequence: number) => boolean): void {
    if (this.#purpose.kind !== "write" && !exists(this.#purpose.row.sequence)) {
      this.cancel();
      this.note("That message was removed.");
    }
  }

  #pressed(event: KeyboardEvent): void {
    // While an input method composes, the keys belong to it.
    if (event.isComposing) {
      return;
    }
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      this.#submit();
    } else if (event.key === "ArrowUp" && this.#content.value === "" && this.#purpose.kind === "write") {
      event.preventDefault();
      this.#actions.editLast();
    } else if (event.key === "Escape" && this.cancel()) {
      event.stopPropagation();
    }
  }

  #submit(): void {
    const content = this.#content.value.trim();
    const purpose = this.#purpose;
    this.focus();
    try {
      if (purpose.kind === "edit") {
        this.#submitEdit(purpose.row, content);
      } else if (content) {
        this.#actions.send(content, purpose.kind === "reply" ? purpose.row.sequence : 0);
        this.#fill("");
        this.#setPurpose(WRITE);
      }
    } catch (error) {
      if (!(error instanceof RangeError)) {
        throw error;
      }
      this.note(error.message);
    }
  }

  #submitEdit(row: MessageRow, content: string): void {
    if (!content) {
      throw new RangeError("An edited message can't be empty. To take it away, delete it.");
    }
    if (content !== row.content) {
      this.#actions.edit(row.sequence, content);
    }
    this.cancel();
  }

  #setPurpose(purpose: Purpose): void {
    this.#purpose = purpose;
    const editing = purpose.kind === "edit";
    this.#purposeBar.hidden = purpose.kind === "write";
    this.#form.dataset["purpose"] = purpose.kind;
    const label = editing ? "Save" : "Send";
    this.#send.setAttribute("aria-label", label);
    this.#send.title = label;
    this.note("");
    if (purpose.kind !== "write") {
      const { row } = purpose;
      const to = row.mine ? "yourself" : row.author;
      this.#purposeText.replaceChildren(make("strong", "", editing ? "Editing" : `Replying to ${to}`), ` ${row.content}`);
      this.focus();
    }
  }

  #fill(text: string): void {
    this.#content.value = text;
    this.#content.setSelectionRange(text.length, text.length);
    this.#fit();
  }

  /** Let the field be as high as its text, where the browser doesn't by itself. */
  #fit(): void {
    if (!CSS.supports("field-sizing", "content")) {
      this.#content.style.height = "auto";
      this.#content.style.height = `${this.#content.scrollHeight + 2}px`;
    }
  }
}
