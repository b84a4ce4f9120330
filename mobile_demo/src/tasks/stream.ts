/** Token ids → text as it grows, ending at a task's stop strings. */

const REPLACEMENT = '\uFFFD';

/** A character whose bytes span several tokens comes out whole; the same as pipeline/generate.py. */
export class TextStream {
  private ids: number[] = [];
  private begin = 0; // decoding starts here: what lies before cannot change the text any more
  private told = 0; // up to here the text has been given out

  constructor(private readonly decode: (ids: readonly number[]) => string) {}

  /** The text that `token` completes: often a word's part, sometimes nothing yet. */
  push(token: number): string {
    this.ids.push(token);
    return this.take(false);
  }

  /** What is left at the end, an incomplete character as U+FFFD. */
  finish(): string {
    return this.take(true);
  }

  private take(final: boolean): string {
    const before = this.decode(this.ids.slice(this.begin, this.told));
    const text = this.decode(this.ids.slice(this.begin));
    if (text.length <= before.length || (text.endsWith(REPLACEMENT) && !final)) return '';
    this.begin = this.told;
    this.told = this.ids.length;
    return text.slice(before.length);
  }
}

/** Lets text through up to the first stop string; what could become one is held back. */
export class StopFilter {
  private held = '';
  stopped = false;

  constructor(private readonly stops: readonly string[]) {}

  push(piece: string): string {
    if (this.stopped) return '';
    const text = this.held + piece;
    const cut = Math.min(...this.stops.map((stop) => text.indexOf(stop)).filter((at) => at >= 0));
    if (Number.isFinite(cut)) {
      this.stopped = true;
      this.held = '';
      return text.slice(0, cut);
    }
    const keep = Math.max(0, ...this.stops.map((stop) => overlap(text, stop)));
    this.held = text.slice(text.length - keep);
    return text.slice(0, text.length - keep);
  }

  /** What was held back and is no stop string after all. */
  finish(): string {
    const rest = this.held;
    this.held = '';
    return this.stopped ? '' : rest;
  }
}

/** How many characters at the end of `text` could begin `stop`. */
function overlap(text: string, stop: string): number {
  for (let length = Math.min(text.length, stop.length - 1); length > 0; length--) {
    if (stop.startsWith(text.slice(-length))) return length;
  }
  return 0;
}
