/** LiteRT.js on the web: `litert/model.tflite` in a worker, on the CPU. */
import { AppError } from '../errors';
import type { Prompt } from '../tasks/prompt';
import { collect } from './tokenloop';
import { NO_STATS, type Engine, type EngineStats, type GenerateOptions, type Generated, type Model } from './types';
import type { Answer, Numbered, Request } from './web/messages';

const WORKER = 'engine/worker.js';

export class LiteRTJsEngine implements Engine {
  readonly id = 'litertjs';
  private worker: Worker | null = null;
  private model: Model | null = null;
  private figures: EngineStats = NO_STATS;
  private nextId = 1;
  private readonly listeners = new Map<number, (answer: Answer) => void>();

  async load(model: Model): Promise<void> {
    await this.unload();
    const begin = performance.now();
    this.worker = new Worker(new URL(WORKER, document.baseURI));
    this.worker.onmessage = (event: MessageEvent<Numbered<Answer>>) => this.listeners.get(event.data.id)?.(event.data);
    this.worker.onerror = (event) => {
      event.preventDefault();
      this.failAll(event.message || 'the worker could not be started');
    };
    this.model = model;
    const threads = Math.max(1, Math.min(4, navigator.hardwareConcurrency || 1));
    const done = await this.ask({ kind: 'load', path: model.locate('litert/model.tflite'), threads });
    this.figures = { ...NO_STATS, loadMs: performance.now() - begin, memoryBytes: done.memoryBytes };
  }

  async generate(prompt: Prompt, options: GenerateOptions): Promise<Generated> {
    const model = this.loaded();
    if (prompt.ids.length >= model.manifest.context_tokens) {
      throw new AppError('tooLong', `${prompt.ids.length} tokens, ${model.manifest.context_tokens} fit`);
    }
    const tokens = this.tokens(prompt.ids, model.manifest.stop_ids, options);
    const { generated, timing } = await collect(tokens, prompt.ids.length, model.tokenizer, options);
    this.figures = { ...this.figures, ...timing };
    return generated;
  }

  async logits(ids: readonly number[]): Promise<Float32Array> {
    this.loaded();
    const done = await this.ask({ kind: 'logits', ids });
    if (!done.logits) throw new AppError('engine', 'no logits came back');
    return done.logits;
  }

  async unload(): Promise<void> {
    this.worker?.terminate(); // the only way a page gets WebAssembly memory back
    this.worker = null;
    this.model = null;
    this.failAll('unloaded');
  }

  stats(): EngineStats {
    return this.figures;
  }

  private loaded(): Model {
    if (!this.model) throw new AppError('engine', 'no model is loaded');
    return this.model;
  }

  private send(request: Request): number {
    const id = this.nextId++;
    if (!this.worker) throw new AppError('engine', 'no model is loaded');
    this.worker.postMessage({ ...request, id });
    return id;
  }

  private ask(request: Request): Promise<Extract<Answer, { kind: 'done' }>> {
    return new Promise((resolve, reject) => {
      const id = this.send(request);
      this.listeners.set(id, (answer) => {
        if (answer.kind === 'token') return;
        this.listeners.delete(id);
        if (answer.kind === 'done') resolve(answer);
        else reject(new AppError(answer.code, answer.detail));
      });
    });
  }

  private async *tokens(ids: readonly number[], stopIds: readonly number[], options: GenerateOptions): AsyncGenerator<number> {
    const queue: Answer[] = [];
    let wake: () => void = () => undefined;
    const id = this.send({ kind: 'generate', ids, stopIds, limit: options.maxNewTokens });
    this.listeners.set(id, (answer) => {
      queue.push(answer);
      wake();
    });
    const stop = () => this.worker?.postMessage({ kind: 'stop', of: id, id: this.nextId++ });
    options.signal?.addEventListener('abort', stop);
    let ended = false;
    try {
      for (;;) {
        const answer = queue.shift();
        if (answer === undefined) await new Promise<void>((resolve) => (wake = resolve));
        else if (answer.kind === 'token') yield answer.token;
        else {
          ended = true;
          if (answer.kind === 'failed') throw new AppError(answer.code, answer.detail);
          return;
        }
      }
    } finally {
      options.signal?.removeEventListener('abort', stop);
      this.listeners.delete(id);
      if (!ended) stop(); // the answer ended at a stop string: the worker need not go on
    }
  }

  private failAll(detail: string): void {
    for (const listener of [...this.listeners.values()]) listener({ kind: 'failed', code: 'engine', detail });
  }
}
