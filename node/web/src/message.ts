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
  /** Sequence of the message that it changes, or 0 if it changes none. */
  readonly target: number;
  /** Whether its author changed the text later. */
  readonly edited: boolean;
}

/** What a draft needs to be published, again and again, as the same message. */
export interface Message {
  readonly id: string;
  readonly content: string;
  readonly author: string;
  /** When it was written here, in milliseconds since 1970. */
  readonly time: number;
}

/** Longest text that the page lets a person write, in UTF-16 code units: a page of prose. */
export const MAX_CONTENT_LENGTH = 4000;

/** Longest display name that is shown, in UTF-16 code units. */
export const MAX_NAME_LENGTH = 40;

/** Begins every guest's user id, and no other. */
const GUEST = "guest:";

/** Types that stand in the list as a message of their own; other entries only count in the sequence. */
const SHOWN_TYPES: ReadonlySet<string> = new Set(["text", "image", "file", "action", "placeholder"]);

/** What stands in the place of a message that was removed. */
export function placeholderOf(entry: Entry): Entry {
  return { ...entry, type: "placeholder", content: "", edited: false };
}

/** Whether an entry stands in the list. */
export function isShown(entry: Entry): boolean {
  return SHOWN_TYPES.has(entry.type);
}

/** Whether an entry is what is left of a removed message. */
export function isRemoved(entry: Entry): boolean {
  return entry.type === "placeholder";
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
  const { id, sequence, userId, type, content, timestamp, meta, target } = data;
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
    content: typeof content === "string" ? content : "",
    author: readName(meta) || (userId.startsWith(GUEST) ? "Guest" : userId),
    time: Number.isNaN(time) ? 0 : time,
    target: typeof target === "number" ? target : 0,
    edited: false,
  };
}

/** The `data` with which a message is published. */
export function publicationOf(message: Message): object {
  return { id: message.id, content: message.content, type: "text", meta: { name: message.author } };
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

function readName(meta: unknown): string {
  const name = isRecord(meta) ? meta["name"] : undefined;
  return typeof name === "string" ? name.trim().slice(0, MAX_NAME_LENGTH) : "";
}
