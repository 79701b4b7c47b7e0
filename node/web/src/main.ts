/** The page: from the address and what is remembered to the lobby or a room. */

import { Lobby } from "./lobby.ts";
import { Memory, type Seat } from "./memory.ts";
import { MAX_NAME_LENGTH } from "./message.ts";
import { Room } from "./room.ts";
import { ChatView } from "./view.ts";

/** The room that a newcomer is offered. */
const FIRST_ROOM = "lobby";

const memory = new Memory();
let room: Room | null = null;
const view = new ChatView(leave);
const lobby = new Lobby(join);

function start(): void {
  const address = new URLSearchParams(location.search);
  const token = address.get("token");
  if (token !== null) {
    memory.token = token;
  }
  // The tab's own seat first, so that loading the page again changes nothing; but what the address names goes before.
  const known: Partial<Seat> = {
    ...memory.seat,
    ...named("room", address.get("room")),
    ...named("name", address.get("name")?.slice(0, MAX_NAME_LENGTH)),
  };
  if (known.name && known.room) {
    join({ name: known.name, room: known.room });
  } else {
    lobby.show({ name: memory.lastSeat?.name ?? "", room: memory.lastSeat?.room ?? FIRST_ROOM, ...known });
  }
}

function named(key: keyof Seat, value: string | null | undefined): Partial<Seat> {
  const text = value?.trim();
  return text ? { [key]: text } : {};
}

function join(seat: Seat): void {
  memory.takeSeat(seat);
  // An address to pass on: the room, but neither one's name nor a token.
  history.replaceState(null, "", `?${new URLSearchParams({ room: seat.room })}`);
  lobby.hide();
  room = new Room(endpoint(), seat, memory, {
    changed: () => view.invalidate(),
    said: (entry) => view.announce(entry),
    refused: (act, reason) => view.refuse(act, reason),
  });
  view.show(room);
  room.open();
}

function leave(): void {
  const seat = room?.seat ?? { name: "", room: FIRST_ROOM };
  room?.close();
  room = null;
  view.hide();
  memory.takeSeat(null);
  history.replaceState(null, "", location.pathname);
  lobby.show(seat);
}

/** Beside the page, on the same host and port. */
function endpoint(): string {
  const url = new URL("connection/websocket", location.href);
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  url.search = "";
  return url.href;
}

start();
