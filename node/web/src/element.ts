/** What the page does with elements: find those of index.html, and make new ones. */

/**
 * The element with an id.
 *
 * @throws TypeError if index.html has none of this type
 */
export function find<T extends HTMLElement>(id: string, type: new () => T): T {
  const element = document.getElementById(id);
  if (!(element instanceof type)) {
    throw new TypeError(`index.html has no ${type.name} with the id "${id}"`);
  }
  return element;
}

/** A new element with a class and children; text is never read as markup. */
export function make<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  className: string,
  ...children: readonly (Node | string)[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  element.className = className;
  element.append(...children);
  return element;
}

/** A new button that does something. */
export function makeButton(className: string, act: () => void, ...children: readonly (Node | string)[]): HTMLButtonElement {
  const button = make("button", className, ...children);
  button.type = "button";
  button.addEventListener("click", act);
  return button;
}

/** Set a text, but only if it is another: a live region would announce it again. */
export function setText(element: HTMLElement, text: string): void {
  if (element.textContent !== text) {
    element.textContent = text;
  }
}
