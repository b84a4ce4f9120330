/** What the platform itself may offer: nothing kobako has proven, but there already, and on the device. */
import type { SummaryLength } from '../tasks/run';

export interface SystemAsk {
  readonly task: 'translate' | 'summarize';
  readonly text: string;
  /** BCP 47 code of the text. */
  readonly source: string;
  /** BCP 47 code to translate into; for a summary the same as `source`. */
  readonly target: string;
  readonly length: SummaryLength;
}

export interface SystemListener {
  readonly signal: AbortSignal;
  readonly onText: (piece: string) => void;
}

/** Fulfilled by system.ts on phones and by system.web.ts in browsers. */
export interface SystemTasks {
  /** Whether it answers now. What would have to be downloaded first is not ready: this app fetches packages only. */
  ready(ask: Omit<SystemAsk, 'text' | 'length'>): Promise<boolean>;
  /** Raises AppError `system` when it is not ready, `aborted`, or `engine`. */
  run(ask: SystemAsk, listener: SystemListener): Promise<string>;
}
