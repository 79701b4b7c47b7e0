/** The screen of one room. */

import { Banner } from "./banner.ts";
import { Composer } from "./composer.ts";
import { find, setText } from "./element.ts";
import { MessageList } from "./message_list.ts";
import type { Room } from "./room.ts";
import { layOut } from "./rows.ts";

export class ChatView {
  readonly #root = find("chat", HTMLElement);
  readonly #name = find("room-name", HTMLElement);
  readonly #presence = find("presence", HTMLElement);
  readonly #banner: Banner;
  readonly #list: MessageList;
  readonly #composer: Composer;
  #room: Room | null = null;
  #frame = 0;

  /**
   * @param leave called when the person leaves the room
   */
  constructor(leave: () => void) {
    this.#banner = new Banner({
      hurry: () => this.#room?.hurry(),
      open: () => this.#room?.open(),
    });
    this.#list = new MessageList({
      readEarlier: () => this.#room?.readEarlier(),
      retry: (id) => this.#settle(() => this.#room?.retry(id)),
      discard: (id) => this.#settle(() => this.#room?.discard(id)),
    });
    this.#composer = new Composer((content) => {
      this.#room?.send(content);
      this.#list.toEnd();
    });
    find("leave", HTMLButtonElement).addEventListener("click", leave);
    this.#root.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !event.isComposing) {
        this.#list.toEnd();
        this.#composer.focus();
      }
    });
  }

  /** Show a room, until `hide`. */
  show(room: Room): void {
    this.#room = room;
    document.title = `${room.seat.room} · Chat`;
    setText(this.#name, room.seat.room);
    this.#list.clear();
    this.#root.hidden = false;
    this.#composer.show(room.seat.room);
    this.#draw();
  }

  hide(): void {
    this.#room = null;
    this.#banner.show(null);
    this.#root.hidden = true;
  }

  /** Draw the room again before the next frame: a burst of changes is drawn once. */
  invalidate(): void {
    if (this.#frame === 0) {
      this.#frame = requestAnimationFrame(() => this.#draw());
    }
  }

  #draw(): void {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    const room = this.#room;
    if (!room) {
      return;
    }
    this.#banner.show(room.status);
    setText(this.#presence, presenceText(room.presence));
    this.#list.update(layOut(room.timeline.items(), room.outbox.drafts, room.ownIds), room.earlier);
    if (this.#list.isAtEnd) {
      room.trim();
    }
  }

  /** The button that was pressed goes away with the message's state; the keyboard's focus must not go with it. */
  #settle(act: () => void): void {
    act();
    this.#composer.focus();
  }
}

function presenceText(count: number | null): string {
  if (count === null) {
    return "";
  }
  return count === 1 ? "1 person here" : `${count} people here`;
}
