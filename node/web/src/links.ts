/** Finds the addresses in a text. */

/** A stretch of a text; `href` is empty where it is no link. */
export interface Piece {
  readonly text: string;
  readonly href: string;
}

/** Begins an address. Only these schemes: a link to anything else could run or read something. */
const ADDRESS = /\bhttps?:\/\/[^\s<>"]+/giu;

/** What ends a sentence rather than an address. */
const TRAILING = /[.,:;!?'*_~\u2026\u3001\u3002]$/u;

const CLOSING: ReadonlyMap<string, string> = new Map([[")", "("], ["]", "["], ["}", "{"]]);

/** Cut a text into links and what stands between them; joined, the pieces are the text. */
export function cutLinks(text: string): Piece[] {
  const pieces: Piece[] = [];
  let end = 0;
  for (const match of text.matchAll(ADDRESS)) {
    const address = trimmed(match[0]);
    const href = hrefOf(address);
    if (href) {
      if (match.index > end) {
        pieces.push({ text: text.slice(end, match.index), href: "" });
      }
      pieces.push({ text: address, href });
      end = match.index + address.length;
    }
  }
  if (end < text.length) {
    pieces.push({ text: text.slice(end), href: "" });
  }
  return pieces;
}

/** An address without what belongs to the sentence around it. */
function trimmed(address: string): string {
  for (let last = address.at(-1) ?? ""; last; last = address.at(-1) ?? "") {
    const opening = CLOSING.get(last);
    const isOpen = opening !== undefined && count(address, opening) < count(address, last);
    if (!isOpen && !TRAILING.test(address)) {
      return address;
    }
    address = address.slice(0, -1);
  }
  return address;
}

function hrefOf(address: string): string {
  try {
    const url = new URL(address);
    return url.protocol === "https:" || url.protocol === "http:" ? url.href : "";
  } catch {
    return "";
  }
}

function count(text: string, letter: string): number {
  return text.split(letter).length - 1;
}
