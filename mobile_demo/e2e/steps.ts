/** Names the steps, keeps what happened, and goes on after a failure only where that makes sense. */
import { writeFileSync } from 'node:fs';

export interface Outcome {
  readonly step: string;
  readonly passed: boolean;
  readonly seconds: number;
  readonly detail: string;
}

export class Steps {
  /** Called when a step fails, to keep what the screen shows. */
  onFailure: (step: string) => Promise<void> = async () => undefined;
  readonly outcomes: Outcome[] = [];
  readonly figures: Record<string, number> = {};

  private broken: string | null = null;

  /** After a `needed` step failed, the others fail at once instead of waiting for what never comes. */
  async run(step: string, action: () => Promise<void>, needed = false): Promise<void> {
    const begin = Date.now();
    let detail = '';
    try {
      if (this.broken) detail = `not tried: "${this.broken}" failed`;
      else await action();
    } catch (error) {
      if (needed) this.broken ??= step;
      await this.onFailure(step).catch(() => undefined);
      detail = error instanceof Error ? (error.stack ?? error.message) : String(error);
    }
    const outcome = { step, passed: detail === '', seconds: (Date.now() - begin) / 1000, detail };
    this.outcomes.push(outcome);
    console.error(`${outcome.passed ? 'ok  ' : 'FAIL'} ${outcome.seconds.toFixed(1).padStart(5)} s  ${step}${detail && `\n${detail}`}`);
  }

  write(path: string): void {
    writeFileSync(path, JSON.stringify({ steps: this.outcomes, figures: this.figures }, null, 2));
  }

  get passed(): boolean {
    return this.outcomes.every((outcome) => outcome.passed);
  }
}
