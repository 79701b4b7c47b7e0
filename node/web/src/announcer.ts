/** Tells screen readers what is said, once, and nothing of how the list is drawn. */

import { find, make } from "./element.ts";

/** What is kept of what was told: a screen reader may be slow to get to it. */
const KEPT = 8;

export class Announcer {
  readonly #root = find("announcer", HTMLElement);

  /** Tell a sentence when nothing else is being told. */
  tell(text: string): void {
    this.#root.append(make("p", "", text));
    while (this.#root.childElementCount > KEPT) {
      this.#root.firstElementChild?.remove();
    }
  }

  clear(): void {
    this.#root.replaceChildren();
  }
}
