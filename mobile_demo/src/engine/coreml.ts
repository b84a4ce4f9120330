/** Core ML on iOS 18 and later: `coreml/model.mlpackage`, a stateful model, through the local module KobakoNative. */
import { CoreMLModel, coreMLAvailable, residentBytes } from '../../modules/kobako-native';
import { AppError, asAppError } from '../errors';
import type { Prompt } from '../tasks/prompt';
import { collect } from './tokenloop';
import { NO_STATS, type Engine, type EngineStats, type GenerateOptions, type Generated, type Model } from './types';

export { coreMLAvailable };

export class CoreMLEngine implements Engine {
  readonly id = 'coreml';
  private native: CoreMLModel | null = null;
  private model: Model | null = null;
  private figures: EngineStats = NO_STATS;

  async load(model: Model): Promise<void> {
    await this.unload();
    const begin = performance.now();
    try {
      const native = new CoreMLModel();
      const { context_tokens: context } = model.manifest;
      const target = model.manifest.targets.coreml;
      const chunk = Number(target?.details.prefill_tokens ?? 128);
      await native.load(model.locate('coreml/model.mlpackage'), context, chunk, target?.table ? model.locate(target.table) : null);
      this.native = native;
    } catch (error) {
      throw asAppError(error, 'engine');
    }
    this.model = model;
    this.figures = { ...NO_STATS, loadMs: performance.now() - begin, memoryBytes: residentBytes() };
  }

  async generate(prompt: Prompt, options: GenerateOptions): Promise<Generated> {
    const model = this.loaded();
    if (prompt.ids.length >= model.manifest.context_tokens) throw new AppError('tooLong', `${prompt.ids.length} tokens`);
    const tokens = this.tokens(prompt.ids, model);
    const { generated, timing } = await collect(tokens, prompt.ids.length, model.tokenizer, options);
    this.figures = { ...this.figures, ...timing, memoryBytes: residentBytes() };
    return generated;
  }

  async logits(ids: readonly number[]): Promise<Float32Array> {
    this.loaded();
    await this.native?.reset();
    return (await this.native?.logits([...ids])) ?? new Float32Array();
  }

  async unload(): Promise<void> {
    this.native?.unload();
    this.native = null;
    this.model = null;
  }

  stats(): EngineStats {
    return this.figures;
  }

  private loaded(): Model {
    if (!this.model) throw new AppError('engine', 'no model is loaded');
    return this.model;
  }

  private async *tokens(ids: readonly number[], model: Model): AsyncGenerator<number> {
    const native = this.native;
    if (!native) return;
    const stops = new Set(model.manifest.stop_ids);
    await native.reset();
    let token = await native.next([...ids]);
    let position = ids.length;
    while (!stops.has(token)) {
      yield token;
      if (position >= model.manifest.context_tokens) return;
      token = await native.next([token]);
      position += 1;
    }
  }
}
