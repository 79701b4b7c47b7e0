/** The screen of one room. */

import type { Act } from "./act.ts";
import { Announcer } from "./announcer.ts";
import { Attention } from "./attention.ts";
import { Banner } from "./banner.ts";
import { Composer } from "./composer.ts";
import { find, setText } from "./element.ts";
import { EmojiPicker } from "./emoji_picker.ts";
import type { Fold } from "./fold.ts";
import { isRemoved, isShown, type Entry } from "./message.ts";
import { MessageList } from "./message_list.ts";
import { PeoplePanel } from "./people_panel.ts";
import type { Room } from "./room.ts";
import { layOut, type MessageRow, type Row } from "./rows.ts";
import { describeSystem } from "./system.ts";
import { describeTyping } from "./typing.ts";

/** What is done to a message, by the name of the tool. */
const REFUSED: Readonly<Record<Act["kind"], string>> = {
  edit: "Not changed",
  delete: "Not deleted",
  restore: "Not restored",
  react: "No reaction added",
  unreact: "Reaction not taken back",
  pin: "Not pinned",
  unpin: "Not unpinned",
};

export class ChatView {
  readonly #root = find("chat", HTMLElement);
  readonly #name = find("room-name", HTMLElement);
  readonly #typing = find("typing", HTMLElement);
  readonly #pin = find("pin", HTMLButtonElement);
  readonly #pinText = find("pin-text", HTMLElement);
  readonly #announcer = new Announcer();
  readonly #attention = new Attention(() => this.#look());
  readonly #picker = new EmojiPicker();
  readonly #people: PeoplePanel;
  readonly #banner: Banner;
  readonly #list: MessageList;
  readonly #composer: Composer;
  #room: Room | null = null;
  #frame = 0;
  /** Whether the line before what was not read has been brought onto the screen, or was not there. */
  #hasArrived = false;

  /**
   * @param leave called when the person leaves the room
   */
  constructor(leave: () => void) {
    this.#banner = new Banner({
      hurry: () => this.#room?.hurry(),
      open: () => this.#room?.open(),
    });
    this.#people = new PeoplePanel((isWanted) => this.#room?.presence.list(isWanted));
    this.#list = new MessageList({
      readEarlier: () => this.#room?.readEarlier(),
      moved: () => this.#look(),
      retry: (id) => this.#settle(() => this.#room?.retry(id)),
      discard: (id) => this.#settle(() => this.#room?.discard(id)),
      jump: (sequence) => void this.#jump(sequence),
      react: (row, emoji) => this.#react(row, emoji),
      pick: (row, anchor) => this.#pick(row, anchor),
      reply: (row) => this.#composer.reply(row),
      edit: (row) => this.#composer.edit(row),
      remove: (row) => this.#act({ kind: "delete", target: row.sequence }),
      restore: (row) => this.#act({ kind: "restore", target: row.sequence }),
      pin: (row) => this.#act({ kind: row.pinned ? "unpin" : "pin", target: row.sequence }),
    });
    this.#composer = new Composer({
      send: (content, replyTo) => {
        this.#room?.send(content, replyTo);
        this.#list.toEnd();
      },
      edit: (target, content) => this.#room?.act({ kind: "edit", target, content }),
      editLast: () => {
        const own = this.#room?.standing.rights.act ? this.#list.newestOwn() : null;
        if (own) {
          this.#composer.edit(own);
        }
      },
      typed: (isEmpty) => this.#room?.typed(isEmpty),
    });
    find("leave", HTMLButtonElement).addEventListener("click", leave);
    this.#pin.addEventListener("click", () => void this.#jump(Number(this.#pin.dataset["sequence"])));
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
    this.#hasArrived = false;
    this.#list.clear();
    this.#announcer.clear();
    this.#root.hidden = false;
    this.#composer.show(room.seat.room);
    this.#look();
    this.#draw();
  }

  hide(): void {
    this.#room = null;
    this.#banner.show(null);
    this.#people.hide();
    this.#root.hidden = true;
  }

  /** Draw the room again before the next frame: a burst of changes is drawn once. */
  invalidate(): void {
    if (this.#frame === 0) {
      this.#frame = requestAnimationFrame(() => this.#draw());
    }
  }

  /** Tell who listens what was said. */
  announce(entry: Entry): void {
    const room = this.#room;
    if (!room || !isShown(entry) || isRemoved(entry) || entry.userId === room.people.me) {
      return;
    }
    this.#announcer.tell(
      entry.type === "system" ? describeSystem(entry, room.people) : `${entry.author}: ${entry.content}`,
    );
  }

  /** Say that something was refused, and give back what was written. */
  refuse(act: Act, reason: string): void {
    // As it was before the act.
    this.#draw();
    const row = act.kind === "edit" ? this.#list.rowOf(act.target) : null;
    if (row && act.content !== undefined && this.#composer.isIdle) {
      this.#composer.edit(row, act.content);
    }
    this.#composer.note(`${REFUSED[act.kind]}: ${reason}.`);
  }

  #draw(): void {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    const room = this.#room;
    if (!room) {
      return;
    }
    const fold = room.timeline.fold(room.expected);
    const rows = layOut(room.timeline.items(fold), room.outbox.drafts, {
      ownIds: room.ownIds,
      people: room.people,
      readUpTo: room.reading.line,
      distant: (sequence) => room.distant.get(sequence),
      readersOf: (sequence) => room.reading.readersOf(sequence, room.people.me),
    });
    setText(this.#name, nameOf(room));
    this.#banner.show(room.status);
    this.#people.draw(room.presence, room.people);
    this.#drawPin(room, fold);
    setText(this.#typing, describeTyping(room.typists.users.map((user) => room.people.nameOf(user))));
    this.#composer.restrict(room.standing.restriction(Date.now()));
    const unread = unreadIn(rows, room);
    this.#list.update(rows, room.earlier, room.standing.rights, unread);
    this.#composer.follow((sequence) => this.#list.rowOf(sequence)?.removed === false);
    this.#drawTitle(room, unread);
    this.#arrive(room);
    if (this.#list.isAtEnd) {
      room.trim();
    }
  }

  /** Who comes back begins at what is new to them. */
  #arrive(room: Room): void {
    if (!this.#hasArrived && room.reading.hasBegun && room.timeline.size > 0) {
      this.#hasArrived = true;
      this.#list.revealUnread();
      this.#look();
    }
  }

  #drawTitle(room: Room, unread: number): void {
    const title = `${unread > 0 ? `(${unread}) ` : ""}${nameOf(room)} · Chat`;
    if (document.title !== title) {
      document.title = title;
    }
  }

  #drawPin(room: Room, fold: Fold): void {
    const sequence = fold.newestPin;
    const entry = sequence > 0 ? (room.timeline.at(sequence) ?? room.distant.get(sequence)) : null;
    const shown = entry && fold.show(entry);
    this.#pin.hidden = !shown || isRemoved(shown);
    this.#pin.dataset["sequence"] = String(sequence);
    setText(this.#pinText, shown?.content ?? "");
  }

  /** What stands on the screen of who looks at the page is read. */
  #look(): void {
    this.#room?.reading.look(this.#attention.isPresent, this.#hasArrived && this.#list.isAtEnd);
    this.invalidate();
  }

  #react(row: MessageRow, emoji: string): void {
    const mine = row.chips.some((chip) => chip.emoji === emoji && chip.mine);
    this.#act({ kind: mine ? "unreact" : "react", target: row.sequence, emoji });
  }

  #pick(row: MessageRow, anchor: HTMLElement): void {
    this.#list.holdToolbar(true);
    this.#picker.open(
      anchor,
      (emoji) => this.#react(row, emoji),
      () => {
        this.#list.focusRow(row.key);
        this.#list.holdToolbar(false);
      },
    );
  }

  #act(act: Omit<Act, "id">): void {
    try {
      this.#room?.act(act);
      this.#composer.note("");
    } catch (error) {
      if (!(error instanceof RangeError)) {
        throw error;
      }
      this.#composer.note(error.message);
    }
  }

  async #jump(sequence: number): Promise<void> {
    const room = this.#room;
    if (!room || this.#list.reveal(sequence)) {
      return;
    }
    const isReached = await room.reach(sequence);
    this.#draw();
    if (!isReached || !this.#list.reveal(sequence)) {
      this.#composer.note("That message is too far up to be loaded from here.");
    }
  }

  /** The button that was pressed goes away with the message's state; the keyboard's focus must not go with it. */
  #settle(act: () => void): void {
    act();
    this.#composer.focus();
  }
}

/** How many messages of others were not read yet, of those that are loaded. */
function unreadIn(rows: readonly Row[], room: Room): number {
  const { upTo, hasBegun } = room.reading;
  const isUnread = (row: Row): boolean => row.kind === "message" && !row.mine && !row.removed && row.sequence > upTo;
  return hasBegun ? rows.filter(isUnread).length : 0;
}

function nameOf(room: Room): string {
  return room.standing.title || room.seat.room;
}
