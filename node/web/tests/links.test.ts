import assert from "node:assert/strict";
import { test } from "node:test";

import { cutLinks } from "../src/links.ts";

function links(text: string): string[] {
  return cutLinks(text).filter(({ href }) => href).map(({ href }) => href);
}

for (const [text, href] of [
  ["see https://example.org/a.", "https://example.org/a"],
  ["(https://example.org/a)", "https://example.org/a"],
  ["https://example.org/a_(b)", "https://example.org/a_(b)"],
  ["“https://example.org/?q=1&r=2”!", "https://example.org/?q=1&r=2%E2%80%9D"],
  ["http://example.org:8080/x#y, and", "http://example.org:8080/x#y"],
  ["HTTPS://EXAMPLE.ORG", "https://example.org/"],
] as const) {
  test(`${text} leads to ${href}`, () => assert.deepEqual(links(text), [href]));
}

for (const text of ["javascript:alert(1)", "data:text/html,x", "file:///etc/passwd", "xhttps://a.b", "https://", "a.b"]) {
  test(`${text} leads nowhere`, () => assert.deepEqual(links(text), []));
}

test("the pieces of a text are the text", () => {
  for (const text of ["", "plain", "https://a.b https://c.d.", "a https://a.b\n\nb https://[ c"]) {
    assert.equal(cutLinks(text).map((piece) => piece.text).join(""), text);
  }
});
