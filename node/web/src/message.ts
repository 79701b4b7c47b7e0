/** What stands in a room: entries that the server has ordered, and drafts that it has not acknowledged yet. */

/** One entry of a room's log, as the server publishes it. */
export interface Entry {
  /** The sender's own id for the message; unique for one sender, not for a room. */
  readonly id: string;
  /** Position in the room: dense from 1, never reused. */
  readonly sequence: number;
  readonly userId: string;
  readonly type: string;
  /** Empty for types that carry no text. */
  readonly content: string;
  /** The display name that the sender chose, else the user id, which for guests says nothing to a person. */
  readonly author: string;
  /** When the server ordered it, in milliseconds since 1970. */
  readonly time: number;
  /** Sequence of the message that it is about, or 0 if it is about none. */
  readonly target: number;
  /** Sequence of the message that it answers, or 0. */
  readonly replyTo: number;
  /** Of a reaction. */
  readonly emoji: string;
  /** Of a removal and of a placeholder: why; may be empty. */
  readonly reason: string;
  /** Of a removal of all that somebody wrote: of whom, and from which sequence on; else null. */
  readonly cleared: Cleared | null;
  /** Of an entry of the server's own: what happened, and what goes with it. */
  readonly event: string;
  readonly detail: Readonly<Record<string, unknown>>;
}

/** All messages of a user from a sequence on. */
export interface Cleared {
  readonly user: string;
  readonly since: number;
}

/** What a draft needs to be published, again and again, as the same message. */
export interface Message {
  readonly id: string;
  readonly content: string;
  readonly author: string;
  /** When it was written here, in milliseconds since 1970. */
  readonly time: number;
  /** Sequence of the message that it answers, or 0. */
  readonly replyTo: number;
}

/** Longest text that the page lets a person write, in UTF-16 code units: a page of prose. */
export const MAX_CONTENT_LENGTH = 4000;

/** Longest display name that is shown, in UTF-16 code units. */
export const MAX_NAME_LENGTH = 40;

/** Begins every guest's user id, and no other. */
const GUEST = "guest:";
const GUEST_LETTERS = 4;

/** Begins what stands for the user id where a message was erased. */
const ERASED = "erased:";

/** Types that stand in the list as a row of their own; other entries only count in the sequence. */
const SHOWN_TYPES: ReadonlySet<string> = new Set(["text", "image", "file", "action", "placeholder", "system"]);

/** What stands in the place of a message that was removed. */
export function placeholderOf(entry: Entry, reason: string): Entry {
  return { ...entry, type: "placeholder", content: "", reason };
}

/** Whether an entry stands in the list. What is left of an edit, a placeholder with a target, does not. */
export function isShown(entry: Entry): boolean {
  return SHOWN_TYPES.has(entry.type) && entry.target === 0;
}

/** Whether an entry is what is left of a removed message. */
export function isRemoved(entry: Entry): boolean {
  return entry.type === "placeholder";
}

/** Whether a user is a guest, whom nobody vouches for. */
export function isGuest(userId: string): boolean {
  return userId.startsWith(GUEST);
}

/** What somebody is called who has given no name. */
export function anonymous(userId: string): string {
  if (userId.startsWith(ERASED)) {
    return "Somebody";
  }
  // The end of the id, so that two guests can be told apart.
  return isGuest(userId) ? `Guest ${userId.slice(-GUEST_LETTERS)}` : userId;
}

/**
 * Read the `data` of a publication.
 *
 * Returns null for what is no entry of the log, such as ephemeral publications, which have no sequence.
 */
export function readEntry(data: unknown): Entry | null {
  if (!isRecord(data)) {
    return null;
  }
  const { id, sequence, userId, type, timestamp } = data;
  if (typeof id !== "string" || typeof userId !== "string" || typeof type !== "string") {
    return null;
  }
  if (typeof sequence !== "number" || !Number.isSafeInteger(sequence) || sequence < 1) {
    return null;
  }
  const time = typeof timestamp === "string" ? Date.parse(timestamp) : Number.NaN;
  return {
    id,
    sequence,
    userId,
    type,
    content: textOf(data["content"]),
    author: readName(data["meta"]) || anonymous(userId),
    time: Number.isNaN(time) ? 0 : time,
    target: numberOf(data["target"]),
    replyTo: numberOf(data["replyTo"]),
    emoji: textOf(data["emoji"]),
    reason: textOf(data["reason"]),
    cleared: typeof data["user"] === "string" ? { user: data["user"], since: numberOf(data["since"]) } : null,
    event: textOf(data["event"]),
    detail: isRecord(data["data"]) ? data["data"] : {},
  };
}

/** A value that should be a text; empty for everything else. */
export function textOf(value: unknown): string {
  return typeof value === "string" ? value : "";
}

/** A value that should be a number; 0 for everything else. */
export function numberOf(value: unknown): number {
  return typeof value === "number" ? value : 0;
}

/** The `data` with which a message is published. */
export function publicationOf(message: Message): object {
  const { id, content, author, replyTo } = message;
  return { id, content, type: "text", ...(replyTo > 0 ? { replyTo } : {}), meta: { name: author } };
}

/** A random (version 4) UUID; `crypto.randomUUID` is missing where a page came over plain HTTP. */
export function newMessageId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x40;
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

/** Whether a value is an object with named fields. */
export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The display name in an object that somebody has chosen it in, or an empty text. */
export function readName(meta: unknown): string {
  const name = isRecord(meta) ? meta["name"] : undefined;
  return typeof name === "string" ? name.trim().slice(0, MAX_NAME_LENGTH) : "";
}
