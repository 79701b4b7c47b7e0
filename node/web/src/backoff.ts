/** How long to wait before another attempt. */

/** Bounds of a back-off, in milliseconds. */
export interface BackoffBounds {
  readonly least: number;
  readonly most: number;
}

/** After a lost connection: soon enough to feel at once, spread so that a thousand pages don't return together. */
export const RECONNECT: BackoffBounds = { least: 500, most: 15_000 };

/** After a temporary refusal or a time-out of one command. */
export const RESEND: BackoffBounds = { least: 1_000, most: 8_000 };

/**
 * Exponential back-off whose upper half is random.
 *
 * @param attempt attempts that failed so far, from 1
 * @param random a number in [0, 1)
 * @returns milliseconds
 */
export function backoff(attempt: number, bounds: BackoffBounds, random: number): number {
  // 2 ** 16 times the least is above every bound here; the cap keeps the power finite.
  const ceiling = Math.min(bounds.most, bounds.least * 2 ** Math.min(attempt, 16));
  const floor = Math.max(bounds.least, ceiling / 2);
  return Math.round(floor + (ceiling - floor) * random);
}
