/** The field in which messages are written. */

import { find, setText } from "./element.ts";

export class Composer {
  readonly #form = find("composer", HTMLFormElement);
  readonly #content = find("content", HTMLTextAreaElement);
  readonly #note = find("composer-note", HTMLElement);

  /**
   * @param send takes a message without white space around it; throws a RangeError whose text says why it can't
   */
  constructor(send: (content: string) => void) {
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit(send);
    });
    this.#content.addEventListener("keydown", (event) => {
      // While an input method composes, Enter belongs to it.
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        this.#submit(send);
      }
    });
  }

  /** Make ready for a room. */
  show(room: string): void {
    this.#content.placeholder = `Message ${room}`;
    this.#note.textContent = "";
    this.focus();
  }

  focus(): void {
    this.#content.focus({ preventScroll: true });
  }

  #submit(send: (content: string) => void): void {
    const content = this.#content.value.trim();
    this.focus();
    if (!content) {
      return;
    }
    try {
      send(content);
      this.#content.value = "";
      setText(this.#note, "");
    } catch (error) {
      if (!(error instanceof RangeError)) {
        throw error;
      }
      setText(this.#note, error.message);
    }
  }
}
