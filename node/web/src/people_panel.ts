/** How many are in the room, and, when asked, who. */

import { find, make, setText } from "./element.ts";
import type { People } from "./people.ts";
import type { Presence } from "./presence.ts";
import { hueOf } from "./rows.ts";

/** People that are listed; the rest are counted. */
const MOST = 200;

export class PeoplePanel {
  readonly #button = find("people-button", HTMLButtonElement);
  readonly #count = find("presence", HTMLElement);
  readonly #root = find("people", HTMLElement);
  readonly #list = find("people-list", HTMLElement);
  readonly #note = find("people-note", HTMLElement);
  #drawn = "";

  /**
   * @param wanted called with whether the person wants to know who is here
   */
  constructor(wanted: (isWanted: boolean) => void) {
    this.#root.addEventListener("toggle", (event) => {
      const isOpen = event instanceof ToggleEvent && event.newState === "open";
      this.#button.setAttribute("aria-expanded", String(isOpen));
      wanted(isOpen);
    });
  }

  draw(presence: Presence, people: People): void {
    const { count, roster, canList } = presence;
    setText(this.#count, count === null ? "" : count === 1 ? "1 person here" : `${count} people here`);
    this.#button.hidden = count === null;
    const here = (roster ?? [])
      .map(({ userId, name }) => {
        people.introduce(userId, name);
        return { userId, name: people.nameOf(userId), me: userId === people.me };
      })
      .sort((a, b) => Number(b.me) - Number(a.me) || a.name.localeCompare(b.name));
    const drawn = JSON.stringify([here, canList]);
    if (drawn === this.#drawn) {
      return;
    }
    this.#drawn = drawn;
    this.#list.replaceChildren(...here.slice(0, MOST).map(({ userId, name, me }) => itemOf(userId, name, me)));
    const rest = here.length - MOST;
    setText(this.#note, !canList ? "This room tells only how many are here." : rest > 0 ? `and ${rest} more` : "");
  }

  hide(): void {
    this.#root.hidePopover();
  }
}

function itemOf(userId: string, name: string, me: boolean): HTMLElement {
  const avatar = make("span", `avatar hue-${hueOf(userId)}`, [...name][0]?.toUpperCase() ?? "");
  avatar.setAttribute("aria-hidden", "true");
  return make("li", "person", avatar, make("span", "", me ? `${name} (you)` : name));
}
