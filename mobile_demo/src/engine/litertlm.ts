/**
 * LiteRT-LM on Android and iOS: `litert/model.litertlm` in react-native-litert-lm.
 *
 * The engine applies the template inside the file, which the pipeline proved equal to the package's own; it is therefore
 * given the messages and not the rendered prompt. Base models have no template, and are not for this engine.
 */
import { createLLM, type LiteRTLMInstance } from 'react-native-litert-lm';

import { AppError, asAppError } from '../errors';
import { StopFilter } from '../tasks/stream';
import type { Prompt } from '../tasks/prompt';
import { NO_STATS, type Engine, type EngineStats, type GenerateOptions, type Generated, type Model } from './types';

export class LiteRTLMEngine implements Engine {
  readonly id = 'litertlm';
  private llm: LiteRTLMInstance | null = null;
  private model: Model | null = null;
  private figures: EngineStats = NO_STATS;

  async load(model: Model): Promise<void> {
    await this.unload();
    const begin = performance.now();
    try {
      const llm = createLLM();
      const { context_tokens: maxContextTokens } = model.manifest;
      await llm.loadModel(model.locate('litert/model.litertlm'), { backend: 'cpu', maxContextTokens, temperature: 0, topK: 1 });
      this.llm = llm;
    } catch (error) {
      throw asAppError(error, 'engine');
    }
    this.model = model;
    this.figures = { ...NO_STATS, loadMs: performance.now() - begin };
  }

  async generate(prompt: Prompt, options: GenerateOptions): Promise<Generated> {
    const { llm, model } = this;
    const last = prompt.messages[prompt.messages.length - 1];
    if (!llm || !model) throw new AppError('engine', 'no model is loaded');
    if (!last) throw new AppError('engine', 'this engine runs chat models only');
    if (prompt.ids.length >= model.manifest.context_tokens) throw new AppError('tooLong', `${prompt.ids.length} tokens`);
    const system = prompt.messages.find((message) => message.role === 'system')?.content;
    const filter = new StopFilter(options.stop);
    let text = '';
    let heard = true;
    const tell = (piece: string) => {
      if (!heard || options.signal?.aborted || piece === '') return;
      text += piece;
      options.onText?.(piece);
    };
    // the library has no cancel call: after a stop the rest is computed, and not listened to
    const stopped = new Promise<never>((_, reject) =>
      options.signal?.addEventListener('abort', () => reject(new AppError('aborted', 'stopped')), { once: true }),
    );
    try {
      llm.resetConversation(undefined, system);
      const parts = [{ type: 'text' as const, text: last.content }];
      const done = llm.execute(parts, (piece: string) => tell(filter.push(piece)), { maxOutputTokens: options.maxNewTokens });
      await Promise.race([done, stopped]);
      tell(filter.finish());
    } catch (error) {
      throw asAppError(error, 'engine');
    } finally {
      heard = false;
    }
    const stats = llm.getStats();
    const memoryBytes = llm.getMemoryUsage().residentBytes;
    this.figures = {
      ...this.figures,
      firstTokenMs: stats.timeToFirstToken,
      tokensPerSecond: stats.tokensPerSecond,
      memoryBytes,
    };
    return { text, ids: null, promptTokens: stats.promptTokens, generatedTokens: stats.completionTokens };
  }

  async unload(): Promise<void> {
    this.llm?.close();
    this.llm = null;
    this.model = null;
  }

  stats(): EngineStats {
    return this.figures;
  }
}
