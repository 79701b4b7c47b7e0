/** The form that asks who one is and which room to enter. */

import { find } from "./element.ts";
import type { Seat } from "./memory.ts";

export class Lobby {
  readonly #root = find("lobby", HTMLElement);
  readonly #form = find("lobby-form", HTMLFormElement);
  readonly #name = find("name", HTMLInputElement);
  readonly #room = find("room", HTMLInputElement);

  /**
   * @param join called with a complete seat when the person joins
   */
  constructor(join: (seat: Seat) => void) {
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      const seat = { name: this.#name.value.trim(), room: this.#room.value.trim() };
      if (seat.name && seat.room) {
        join(seat);
      }
    });
  }

  /** Show the form with what is known already, ready for what is not. */
  show(seat: Seat): void {
    document.title = "Chat";
    this.#name.value = seat.name;
    this.#room.value = seat.room;
    this.#root.hidden = false;
    (seat.name ? this.#room : this.#name).focus();
  }

  hide(): void {
    this.#root.hidden = true;
  }
}
