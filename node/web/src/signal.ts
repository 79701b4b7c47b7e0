/** What the server tells beside a room's entries: nothing of it has a sequence, and any of it may be lost. */

import { isRecord, numberOf, textOf } from "./message.ts";

/** A publication without an offset. */
export type Signal =
  | { readonly kind: "typing"; readonly userId: string; readonly typing: boolean }
  /** Somebody has read up to a sequence. */
  | { readonly kind: "read"; readonly userId: string; readonly sequence: number }
  | { readonly kind: "presence"; readonly count: number };

/** What a moderator has laid down, told to whom it concerns. */
export interface Notice {
  readonly event: string;
  readonly channel: string;
  /** Until when it holds, in milliseconds since 1970; 0: until it is undone. */
  readonly until: number;
  /** Of slow mode: seconds between two messages. */
  readonly seconds: number;
  /** Of a grant. */
  readonly role: string;
  /** Of a new name for the room; empty: it has none any more. */
  readonly title: string;
}

/** How a room is for this page's person. */
export interface RoomState {
  readonly title: string;
  readonly role: string;
  readonly slowSeconds: number;
  readonly locked: boolean;
  /** Until when the person may not write, in milliseconds since 1970; 0: until it is undone; null: they may. */
  readonly mutedUntil: number | null;
}

/** Read the `data` of a publication; null for what is no signal. */
export function readSignal(data: unknown): Signal | null {
  if (!isRecord(data)) {
    return null;
  }
  const { type, userId, typing, sequence, count } = data;
  if (type === "typing" && typeof userId === "string" && typeof typing === "boolean") {
    return { kind: "typing", userId, typing };
  }
  if (type === "read" && typeof userId === "string" && typeof sequence === "number") {
    return { kind: "read", userId, sequence };
  }
  if (type === "presence" && typeof count === "number") {
    return { kind: "presence", count };
  }
  return null;
}

/** Read what was pushed to this client alone; null for what is no notice. */
export function readNotice(data: unknown): Notice | null {
  if (!isRecord(data) || data["type"] !== "notice") {
    return null;
  }
  const { event, channel, until } = data;
  if (typeof event !== "string" || typeof channel !== "string") {
    return null;
  }
  return {
    event,
    channel,
    until: momentOf(until),
    seconds: numberOf(data["seconds"]),
    role: textOf(data["role"]),
    title: textOf(data["title"]),
  };
}

/** Read the answer to rpc `room`; null for what is none. */
export function readRoomState(data: unknown): RoomState | null {
  if (!isRecord(data) || typeof data["role"] !== "string") {
    return null;
  }
  return {
    title: textOf(data["title"]),
    role: data["role"],
    slowSeconds: numberOf(data["slow"]),
    locked: data["locked"] === true,
    mutedUntil: data["muted"] === true ? momentOf(data["mutedUntil"]) : null,
  };
}

/** Milliseconds since 1970; 0 for what is no moment. */
function momentOf(value: unknown): number {
  const time = typeof value === "string" ? Date.parse(value) : 0;
  return Number.isNaN(time) ? 0 : time;
}
