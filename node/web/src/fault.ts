/** What went wrong, in the protocol's numbers and in words for a person. */

import { isRecord } from "./message.ts";

/** An error that the server answered (codes from 100) or that the SDK found itself (below 100). */
export interface Fault {
  readonly code: number;
  /** The server's own words; may be empty. */
  readonly message: string;
}

const UNKNOWN_CHANNEL = 102;
export const PERMISSION_DENIED = 103;
const TOO_MANY_REQUESTS = 111;
const INTERNAL = 100;
const BAD_REQUEST = 107;
/** The server has nothing of this kind here, or is one that does not know it. */
export const UNAVAILABLE = 108;
const FIRST_SERVER_CODE = 100;

/** What a person reads for the codes that they may meet; else the server's own words. */
const WORDS: ReadonlyMap<number, string> = new Map([
  [INTERNAL, "the server could not do it just now"],
  [101, "you are not signed in"],
  [UNKNOWN_CHANNEL, "there is no such room"],
  [PERMISSION_DENIED, "you may not do this here"],
  [106, "a limit is reached"],
  [BAD_REQUEST, "the server does not accept it"],
  [UNAVAILABLE, "this room has nothing of the kind"],
  [109, "your sign-in has expired"],
  [TOO_MANY_REQUESTS, "too many messages in a short time"],
  [3500, "your sign-in is not valid"],
  [3503, "the server closed the connection"],
  [3504, "too many connections"],
  [3507, "this page may not connect to the server"],
]);

/** Codes whose message says more than their name: what is wrong with the request or the name, how long to wait. */
const DETAILED: ReadonlySet<number> = new Set([UNKNOWN_CHANNEL, BAD_REQUEST, TOO_MANY_REQUESTS]);

/** Read what a promise of the SDK was rejected with. */
export function readFault(error: unknown): Fault {
  const { code, message } = isRecord(error) ? error : { code: 0, message: String(error) };
  return {
    code: typeof code === "number" ? code : 0,
    message: typeof message === "string" ? message : "",
  };
}

/** Whether the same request may succeed later. */
export function isTemporary(fault: Fault): boolean {
  return fault.code < FIRST_SERVER_CODE || fault.code === INTERNAL || fault.code === TOO_MANY_REQUESTS;
}

/** A clause for a person, without a full stop. */
export function explain(fault: Fault): string {
  if (fault.code < FIRST_SERVER_CODE) {
    return "the server did not answer";
  }
  const words = WORDS.get(fault.code);
  if (words === undefined) {
    return fault.message || `error ${fault.code}`;
  }
  return DETAILED.has(fault.code) && fault.message ? `${words}: ${fault.message}` : words;
}
