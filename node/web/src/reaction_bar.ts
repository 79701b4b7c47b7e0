/** The reactions under a message, each a button that joins in or steps back. */

import { make, makeButton, setText } from "./element.ts";
import type { Chip } from "./rows.ts";

export class ReactionBar {
  readonly root = make("div", "chips");
  readonly #react: (emoji: string) => void;
  readonly #buttons = new Map<string, HTMLButtonElement>();

  /**
   * @param react reacts with an emoji, or takes that back
   */
  constructor(react: (emoji: string) => void) {
    this.#react = react;
    this.root.setAttribute("role", "group");
    this.root.setAttribute("aria-label", "Reactions");
    this.root.hidden = true;
  }

  /** Show these reactions. A button stays as long as its emoji does, and with it the keyboard's focus. */
  update(chips: readonly Chip[]): void {
    const gone = new Set(this.#buttons.keys());
    chips.forEach((chip, index) => {
      gone.delete(chip.emoji);
      const button = this.#buttonOf(chip.emoji);
      button.setAttribute("aria-pressed", String(chip.mine));
      button.setAttribute("aria-label", `${chip.emoji} ${chip.count}: ${chip.names}`);
      button.title = chip.names;
      setText(button.lastElementChild as HTMLElement, String(chip.count));
      if (this.root.children[index] !== button) {
        this.root.insertBefore(button, this.root.children[index] ?? null);
      }
    });
    for (const emoji of gone) {
      this.#remove(emoji);
    }
    this.root.hidden = chips.length === 0;
  }

  #buttonOf(emoji: string): HTMLButtonElement {
    const known = this.#buttons.get(emoji);
    if (known) {
      return known;
    }
    const parts = [make("span", "emoji", emoji), make("span", "count")];
    const button = makeButton("chip", () => this.#react(emoji), ...parts);
    button.tabIndex = -1;
    this.#buttons.set(emoji, button);
    return button;
  }

  #remove(emoji: string): void {
    const button = this.#buttons.get(emoji);
    this.#buttons.delete(emoji);
    if (button === document.activeElement) {
      // The row itself, so that the keyboard stays where it was.
      button?.closest("li")?.focus();
    }
    button?.remove();
  }
}
