/** What a person does to a message: the rpcs that make an entry about it. */

import type { Entry } from "./message.ts";
import type { Sendable } from "./outbox.ts";

/** The rpc methods, and the types of the entries that they make. */
const ENTRY_TYPES = {
  edit: "edit",
  delete: "removed",
  restore: "restored",
  react: "reaction",
  unreact: "unreaction",
  pin: "pin",
  unpin: "unpin",
} as const;

export type ActKind = keyof typeof ENTRY_TYPES;

export interface Act extends Sendable {
  readonly kind: ActKind;
  /** Sequence of the message. */
  readonly target: number;
  /** Of an edit: the new text. */
  readonly content?: string;
  /** Of a reaction. */
  readonly emoji?: string;
}

/** The parameters with which an act is asked for, beside the room. */
export function parametersOf(act: Act): object {
  const { id, target, content, emoji } = act;
  return {
    id,
    target,
    ...(content === undefined ? {} : { content }),
    ...(emoji === undefined ? {} : { emoji }),
  };
}

/** The entry that an act will make, to be shown until it comes. */
export function expectedOf(act: Act, userId: string, time: number): Entry {
  return {
    id: act.id,
    // Newer than everything that is there.
    sequence: Number.MAX_SAFE_INTEGER,
    userId,
    type: ENTRY_TYPES[act.kind],
    content: act.content ?? "",
    author: "",
    time,
    target: act.target,
    replyTo: 0,
    emoji: act.emoji ?? "",
    reason: "",
    cleared: null,
    event: "",
    detail: {},
  };
}
