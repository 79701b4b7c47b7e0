/** The box in which an emoji is chosen: a few to click on, and a field for any other. */

import { find, makeButton, setText } from "./element.ts";

/** What people react with most; whatever else there is, their keyboard has. */
const CHOICE = [
  "👍", "👎", "❤️", "😂", "😊", "😍", "🎉", "🙏",
  "👏", "🙌", "💪", "🔥", "✨", "🚀", "👀", "🤔",
  "😮", "😢", "😅", "😎", "🤯", "😡", "🥳", "🫡",
  "✅", "❌", "➕", "❓", "💡", "☕", "🍕", "🌱",
];

/** Longest reaction that the server takes, in bytes of UTF-8. */
const MAX_BYTES = 64;

/** An emoji, or a name that a site has given one, such as `:wave:`. */
const EMOJI = /^(?::[\w+-]+:|(?=.*[\p{Extended_Pictographic}\p{Regional_Indicator}\u{20E3}])[^\s\p{L}]+)$/u;

/** Pixels between the box and what it belongs to, and the edge of the page. */
const GAP = 8;

/** What a person has typed, as an emoji to react with, or null if it is none. */
export function emojiIn(text: string): string | null {
  const emoji = text.trim();
  const letters = emoji.startsWith(":") ? 1 : [...new Intl.Segmenter().segment(emoji)].length;
  const bytes = new TextEncoder().encode(emoji).length;
  return EMOJI.test(emoji) && letters === 1 && bytes <= MAX_BYTES ? emoji : null;
}

export class EmojiPicker {
  readonly #root = find("emoji-picker", HTMLElement);
  readonly #grid = find("emoji-grid", HTMLElement);
  readonly #field = find("emoji", HTMLInputElement);
  readonly #note = find("emoji-note", HTMLElement);
  #choose: ((emoji: string) => void) | null = null;
  #closed: () => void = () => {};

  constructor() {
    this.#grid.append(...CHOICE.map((emoji) => this.#button(emoji)));
    this.#grid.addEventListener("keydown", (event) => this.#pressed(event));
    find("emoji-form", HTMLFormElement).addEventListener("submit", (event) => {
      event.preventDefault();
      const emoji = emojiIn(this.#field.value);
      if (emoji === null) {
        setText(this.#note, "Type one emoji, such as 🌻.");
      } else {
        this.#chosen(emoji);
      }
    });
    this.#root.addEventListener("toggle", (event) => {
      if (event instanceof ToggleEvent && event.newState === "closed") {
        this.#closed();
      }
    });
  }

  get isOpen(): boolean {
    return this.#root.matches(":popover-open");
  }

  /**
   * Ask for an emoji.
   *
   * @param anchor what the box stands beside
   * @param choose called with the emoji, unless the person closes the box
   * @param closed called when the box has gone
   */
  open(anchor: HTMLElement, choose: (emoji: string) => void, closed: () => void): void {
    this.#choose = choose;
    this.#closed = closed;
    this.#field.value = "";
    setText(this.#note, "");
    const at = anchor.getBoundingClientRect();
    this.#root.showPopover();
    this.#place(at);
    this.#buttons()[0]?.focus();
  }

  #place(at: DOMRect): void {
    const { offsetWidth: width, offsetHeight: height } = this.#root;
    const left = Math.min(Math.max(GAP, at.right - width), innerWidth - width - GAP);
    const below = at.bottom + GAP;
    const top = below + height + GAP <= innerHeight ? below : Math.max(GAP, at.top - height - GAP);
    this.#root.style.left = `${left}px`;
    this.#root.style.top = `${top}px`;
  }

  #button(emoji: string): HTMLButtonElement {
    const button = makeButton("tool emoji", () => this.#chosen(emoji), emoji);
    button.setAttribute("aria-label", `React with ${emoji}`);
    button.tabIndex = -1;
    return button;
  }

  #chosen(emoji: string): void {
    this.#root.hidePopover();
    this.#choose?.(emoji);
  }

  #pressed(event: KeyboardEvent): void {
    const buttons = this.#buttons();
    const columns = getComputedStyle(this.#grid).gridTemplateColumns.split(" ").length;
    const steps: Readonly<Record<string, number>> = {
      ArrowLeft: -1,
      ArrowRight: 1,
      ArrowUp: -columns,
      ArrowDown: columns,
    };
    const step = steps[event.key];
    if (step !== undefined) {
      event.preventDefault();
      buttons[buttons.indexOf(document.activeElement as HTMLButtonElement) + step]?.focus();
    }
  }

  #buttons(): HTMLButtonElement[] {
    return [...this.#grid.querySelectorAll("button")];
  }
}
