/** Words for the entries that the server itself puts into a room. */

import type { Entry } from "./message.ts";
import type { People } from "./people.ts";

/** Names in an event: who did it, to whom. */
interface Names {
  readonly by: string;
  readonly user: string;
}

const SENTENCES: ReadonlyMap<string, (names: Names, detail: Readonly<Record<string, unknown>>) => string> = new Map([
  ["created", ({ by }) => `${by} opened the room`],
  ["joined", ({ user }) => `${user} joined`],
  ["left", ({ user }) => `${user} left`],
  ["renamed", ({ by }, { title }) => (title ? `${by} renamed the room to “${String(title)}”` : `${by} took the room’s title away`)],
  ["locked", ({ by }) => `${by} locked the room: only moderators can write`],
  ["unlocked", ({ by }) => `${by} unlocked the room`],
  ["slowmode", ({ by }, { seconds }) => (seconds ? `${by} set slow mode: one message in ${String(seconds)} seconds` : `${by} ended slow mode`)],
  ["role", ({ by, user }, { role }) => `${by} made ${user} ${String(role)}`],
  ["muted", ({ by, user }) => `${by} muted ${user}`],
  ["unmuted", ({ by, user }) => `${by} let ${user} write again`],
  ["banned", ({ by, user }) => `${by} banned ${user}`],
  ["unbanned", ({ by, user }) => `${by} let ${user} come back`],
  ["kicked", ({ by, user }) => `${by} removed ${user} from the room`],
]);

/** A sentence about an event of a room, without a full stop. */
export function describeSystem({ event, detail }: Entry, people: People): string {
  const nameOf = (user: unknown): string =>
    typeof user !== "string" || user === "" ? "Somebody" : user === people.me ? "You" : people.nameOf(user);
  const names = { by: nameOf(detail["by"]), user: nameOf(detail["user"]) };
  return SENTENCES.get(event)?.(names, detail) ?? `The room has changed (${event || "unknown event"})`;
}
