/** Up to where people have read: this page's person, and the others. */

/** How often the server is told at most, in milliseconds. */
const TELL_INTERVAL = 1_000;

/** What a reading asks of a connection: tell the server that all up to a sequence was read. */
export type TellRead = (sequence: number) => void;

export class Reading {
  /** Everything up to this sequence was read. */
  upTo = 0;
  /** The line that parts old from new stands after this sequence; null: nowhere. */
  line: number | null = null;
  /** Whether it is known where the person stopped at their last visit, or that nobody knows. */
  hasBegun = false;

  readonly #tell: TellRead;
  /** By user: up to which sequence they have read. */
  readonly #others = new Map<string, number>();
  #isOpen = false;
  #present = false;
  #atEnd = false;
  #newest = 0;
  #told = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(tell: TellRead) {
    this.#tell = tell;
  }

  /**
   * The room was entered for the first time.
   *
   * @param upTo what the person had read at their last visit, or 0 if that is not known
   */
  begin(upTo: number): void {
    this.hasBegun = true;
    if (upTo > 0) {
      this.upTo = this.line = upTo;
    } else {
      this.upTo = this.#newest;
    }
    this.open();
  }

  /** The server can be told. What it was told before may have been lost. */
  open(): void {
    this.#isOpen = true;
    this.#told = 0;
    this.#advance();
  }

  /** Tell nothing until the server can be reached again. */
  close(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#isOpen = false;
  }

  /** The room's newest entry is known to have this sequence. */
  seen(newest: number): void {
    this.#newest = Math.max(this.#newest, newest);
    this.#advance();
  }

  /**
   * @param present whether the person looks at this page
   * @param atEnd whether the newest message is on the screen if they do
   */
  look(present: boolean, atEnd: boolean): void {
    if (this.#present && !present && this.hasBegun) {
      this.line = this.upTo;
    }
    this.#present = present;
    this.#atEnd = atEnd;
    this.#advance();
  }

  /** The person has answered: what stands above is old. */
  wrote(): void {
    this.line = null;
  }

  /** The person has read up to a sequence in another window. */
  readElsewhere(sequence: number): void {
    this.upTo = Math.max(this.upTo, sequence);
  }

  /** Somebody else has read up to a sequence. Returns whether that is news. */
  heed(user: string, sequence: number): boolean {
    if (sequence <= (this.#others.get(user) ?? 0)) {
      return false;
    }
    this.#others.set(user, sequence);
    return true;
  }

  /** Who but `me` has read a message. */
  readersOf(sequence: number, me: string): string[] {
    return Array.from(this.#others)
      .filter(([user, upTo]) => upTo >= sequence && user !== me)
      .map(([user]) => user);
  }

  #advance(): void {
    if (!this.hasBegun || !this.#present || !this.#atEnd) {
      return;
    }
    this.upTo = Math.max(this.upTo, this.#newest);
    if (this.#isOpen && this.upTo > this.#told && this.#timer === undefined) {
      this.#tellNow();
      this.#timer = setTimeout(() => {
        this.#timer = undefined;
        this.#advance();
      }, TELL_INTERVAL);
    }
  }

  #tellNow(): void {
    this.#told = this.upTo;
    this.#tell(this.upTo);
  }
}
