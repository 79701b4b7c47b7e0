/** Whether the person looks at this page. */

export class Attention {
  /**
   * @param changed called whenever the person may have turned to the page or away
   */
  constructor(changed: () => void) {
    document.addEventListener("visibilitychange", changed);
    addEventListener("focus", changed);
    addEventListener("blur", changed);
  }

  get isPresent(): boolean {
    return document.visibilityState === "visible" && document.hasFocus();
  }
}
