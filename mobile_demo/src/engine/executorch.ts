/** ExecuTorch on Android and iOS: `executorch/model.pte` in react-native-executorch's LLM runner. */
import { llm, setTelemetryEnabled, wrapAsync } from 'react-native-executorch';

import { AppError, asAppError, checkAbort } from '../errors';
import { StopFilter } from '../tasks/stream';
import type { Prompt } from '../tasks/prompt';
import { NO_STATS, type Engine, type EngineStats, type GenerateOptions, type Generated, type Model } from './types';

setTelemetryEnabled(false); // it is on by default, and this app sends nothing anywhere

type Runner = ReturnType<typeof llm.createLLMRunner>;

const createRunner = wrapAsync((model: string, tokenizer: string): Runner => {
  'worklet';
  return llm.createLLMRunner(model, tokenizer);
});
const run = wrapAsync((runner: Runner, text: string, maxNewTokens: number, onToken: (piece: string) => void) => {
  'worklet';
  runner.reset();
  return runner.generate(text, { maxNewTokens, temperature: 0, echo: false }, onToken);
});

export class ExecuTorchEngine implements Engine {
  readonly id = 'executorch';
  private runner: Runner | null = null;
  private model: Model | null = null;
  private figures: EngineStats = NO_STATS;

  async load(model: Model): Promise<void> {
    await this.unload();
    const begin = performance.now();
    try {
      this.runner = await createRunner(model.locate('executorch/model.pte'), model.locate('executorch/tokenizer.json'));
    } catch (error) {
      throw asAppError(error, 'engine');
    }
    this.model = model;
    this.figures = { ...NO_STATS, loadMs: performance.now() - begin };
  }

  async generate(prompt: Prompt, options: GenerateOptions): Promise<Generated> {
    const { runner, model } = this;
    if (!runner || !model) throw new AppError('engine', 'no model is loaded');
    if (prompt.ids.length >= model.manifest.context_tokens) throw new AppError('tooLong', `${prompt.ids.length} tokens`);
    const filter = new StopFilter(options.stop);
    let text = '';
    const tell = (piece: string) => {
      text += piece;
      if (piece !== '') options.onText?.(piece);
    };
    const onToken = (piece: string) => {
      tell(filter.push(piece));
      if (filter.stopped) runner.stop();
    };
    const stop = () => runner.stop();
    options.signal?.addEventListener('abort', stop);
    try {
      const done = await run(runner, prompt.text, options.maxNewTokens, onToken);
      checkAbort(options.signal);
      tell(filter.finish());
      const decodeMs = done.inferenceEndMs - done.firstTokenMs;
      this.figures = {
        ...this.figures,
        firstTokenMs: done.firstTokenMs - done.inferenceStartMs,
        tokensPerSecond: decodeMs > 0 ? ((done.numGeneratedTokens - 1) * 1000) / decodeMs : 0,
      };
      return { text, ids: null, promptTokens: done.numPromptTokens, generatedTokens: done.numGeneratedTokens };
    } catch (error) {
      throw asAppError(error, 'engine');
    } finally {
      options.signal?.removeEventListener('abort', stop);
    }
  }

  async unload(): Promise<void> {
    this.runner?.dispose();
    this.runner = null;
    this.model = null;
  }

  stats(): EngineStats {
    return this.figures;
  }
}
