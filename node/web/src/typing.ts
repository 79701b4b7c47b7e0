/** Who is typing: what this page tells, and what it is told. */

import { enumerate } from "./people.ts";

/** For how long a word of typing holds, in milliseconds: it may be lost that it has ended. */
const HOLDS = 6_000;

/** While somebody goes on typing, it is told again this often: before it stops to hold. */
const RENEWAL = 4_000;

/** Who has not touched a key for so long has stopped. */
const IDLE = 4_000;

/** More than so many are not named. */
const MOST_NAMES = 3;

/** Tells the others that the person types, no more often than needed. */
export class TypingTeller {
  readonly #tell: (typing: boolean) => void;
  #toldAt = 0;
  #idle: ReturnType<typeof setTimeout> | undefined;

  constructor(tell: (typing: boolean) => void) {
    this.#tell = tell;
  }

  /** The person has changed the text that they are writing. */
  typed(): void {
    const now = Date.now();
    if (now - this.#toldAt >= RENEWAL) {
      this.#toldAt = now;
      this.#tell(true);
    }
    clearTimeout(this.#idle);
    this.#idle = setTimeout(() => this.stop(), IDLE);
  }

  /** The person has sent, dropped or left the text. */
  stop(): void {
    clearTimeout(this.#idle);
    if (this.#toldAt > 0) {
      this.#toldAt = 0;
      this.#tell(false);
    }
  }
}

/** Those who are typing. */
export class Typists {
  /** By user: until when it holds, in milliseconds since 1970. */
  readonly #until = new Map<string, number>();
  readonly #changed: () => void;
  #expiry: ReturnType<typeof setTimeout> | undefined;

  constructor(changed: () => void) {
    this.#changed = changed;
  }

  /** In the order in which they began. */
  get users(): string[] {
    const now = Date.now();
    return Array.from(this.#until).filter(([, until]) => until > now).map(([user]) => user);
  }

  /** Somebody types, or has stopped. */
  heed(user: string, typing: boolean): void {
    if (typing) {
      this.#until.set(user, Date.now() + HOLDS);
      clearTimeout(this.#expiry);
      this.#expiry = setTimeout(() => this.#expire(), HOLDS + 1);
    } else if (!this.#until.delete(user)) {
      return;
    }
    this.#changed();
  }

  /** Nobody is known to type. */
  clear(): void {
    clearTimeout(this.#expiry);
    this.#until.clear();
  }

  #expire(): void {
    const now = Date.now();
    for (const [user, until] of this.#until) {
      if (until <= now) {
        this.#until.delete(user);
      }
    }
    this.#changed();
  }
}

/** A sentence about who is typing, or an empty text. */
export function describeTyping(names: readonly string[]): string {
  if (names.length > MOST_NAMES) {
    return "Several people are typing…";
  }
  return names.length === 0 ? "" : `${enumerate(names, MOST_NAMES)} ${names.length === 1 ? "is" : "are"} typing…`;
}
