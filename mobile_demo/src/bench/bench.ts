/** The Check page's work: time a load and an answer, then hold the device against the golden files. */
import type { Installed } from '../packages/library';
import { describeDevice } from '../platform/device';
import { storage } from '../platform/storage';
import { borrow, unload, type Ready } from '../state/engine';
import { checkGolden, type Check } from './golden';

export interface BenchResult {
  readonly package: string;
  readonly build_id: string;
  readonly target: string;
  readonly engine: string;
  readonly device: Readonly<Record<string, string>>;
  readonly loadMs: number;
  readonly firstTokenMs: number;
  readonly tokensPerSecond: number;
  readonly memoryBytes: number | null;
  readonly passed: boolean;
  readonly checks: readonly Check[];
}

const ANSWER_TOKENS = 32;

interface Options {
  readonly controller: AbortController;
  readonly onProgress?: (fraction: number) => void;
}

/** Loads the package anew, so that the time is a real one. Raises AppError. */
export async function runBench(one: Installed, { controller, onProgress }: Options): Promise<BenchResult> {
  await unload();
  return borrow(one, controller, (ready) => measure(one, ready, controller.signal, onProgress));
}

async function measure(one: Installed, { engine, model, info }: Ready, signal: AbortSignal, onProgress: Options['onProgress']): Promise<BenchResult> {
  onProgress?.(0.1);
  const messages = [{ role: 'user', content: 'Write three sentences about the sea.' }];
  const text = model.manifest.chat_template ? model.tokenizer.render(messages) : (messages[0]?.content ?? '');
  await engine.generate({ messages, text, ids: model.tokenizer.encodePrompt(text) }, { maxNewTokens: ANSWER_TOKENS, stop: [], signal });
  const { loadMs, firstTokenMs, tokensPerSecond } = engine.stats();
  onProgress?.(0.25);
  const progress = (fraction: number) => onProgress?.(0.25 + 0.75 * fraction);
  const checks = await checkGolden(engine, model, storage, one.home, one.target, { signal, onProgress: progress });
  const { memoryBytes } = engine.stats();
  return {
    package: one.manifest.name, build_id: one.manifest.build_id, target: one.target, engine: info.title, device: describeDevice(),
    loadMs, firstTokenMs, tokensPerSecond, memoryBytes,
    passed: checks.every((check) => check.passed), checks,
  };
}
