/**
 * The device checks itself: its own prompts, token ids, logits and greedy texts against the package's golden files.
 * The demands are those of pipeline/validate/ (gates.py, behaviour.py).
 */
import { fromUtf8 } from '../bytes';
import { AppError, checkAbort } from '../errors';
import type { Engine, Model } from '../engine/types';
import type { Storage } from '../packages/storage';
import { readSafetensors } from './safetensors';

export interface Check {
  readonly name: 'template' | 'ids' | 'logits' | 'greedy';
  readonly passed: boolean;
  readonly value: string;
  readonly demand: string;
}

interface Facts {
  readonly prompts: readonly string[];
  readonly prompt_ids: readonly (readonly number[])[];
  readonly stop_ids: readonly number[];
}

interface Kind {
  readonly greedy: readonly (readonly number[])[];
  readonly margins: readonly (readonly number[])[];
  readonly noise: { readonly kl_nats: number; readonly margin: number };
}

const GREEDY_TOKENS = 16;
const GREEDY_SHARE = 0.8;

export interface GoldenOptions {
  readonly signal?: AbortSignal;
  readonly onProgress?: (fraction: number) => void;
}

/** All checks that the engine allows; one without logits is judged by its texts alone. */
export async function checkGolden(engine: Engine, model: Model, storage: Storage, home: string, target: string, options: GoldenOptions) {
  const { activations } = model.manifest.targets[target] ?? {};
  const cache = model.manifest.kv_cache === 'int8' ? '-kv8' : '';
  const kindName = `${activations === 'int8-dynamic' ? 'int8-dynamic' : 'float'}${cache}`;
  const golden: Facts & Record<string, Kind> = JSON.parse(fromUtf8(await storage.read(`${home}/golden/golden.json`)));
  const kind = golden[kindName];
  if (!kind) throw new AppError('notPackage', `golden.json has no ${kindName} part`);
  const checks = [checkIds(model, golden)];
  if (engine.logits) {
    const tensors = readSafetensors(await storage.read(`${home}/golden/golden-${kindName}.safetensors`));
    const first = tensors.get('first_logits');
    if (first) checks.push(await checkLogits(engine, golden, first.values as Float32Array, kind, activations === 'int8-dynamic', options));
  }
  checks.push(await checkGreedy(engine, model, golden, kind, options));
  return checks;
}

function checkIds(model: Model, golden: Facts): Check {
  const same = golden.prompts.filter((prompt, i) => {
    const ids = model.tokenizer.encodePrompt(prompt);
    const wanted = golden.prompt_ids[i] ?? [];
    return ids.length === wanted.length && ids.every((id, at) => id === wanted[at]);
  }).length;
  const passed = same === golden.prompts.length;
  return { name: 'ids', passed, value: `${same} of ${golden.prompts.length}`, demand: 'all' };
}

async function checkLogits(engine: Engine, golden: Facts, expected: Float32Array, kind: Kind, rounded: boolean, options: GoldenOptions) {
  const vocabulary = expected.length / golden.prompts.length;
  let sum = 0;
  for (const [i, ids] of golden.prompt_ids.entries()) {
    checkAbort(options.signal);
    const actual = await engine.logits?.(ids);
    if (actual) sum += klNats(expected.subarray(i * vocabulary, (i + 1) * vocabulary), actual);
    options.onProgress?.((0.5 * (i + 1)) / golden.prompts.length);
  }
  const mean = sum / golden.prompts.length;
  // few positions: with rounded activations agreement at each is a matter of chance, so the gate is doubled
  const limit = rounded ? 2 * Math.max(0.02, 1.25 * kind.noise.kl_nats) : 1e-3;
  return { name: 'logits', passed: mean <= limit, value: `KL ${mean.toExponential(2)}`, demand: `≤ ${limit.toPrecision(2)}` } as const;
}

async function checkGreedy(engine: Engine, model: Model, golden: Facts, kind: Kind, options: GoldenOptions): Promise<Check> {
  const nearTie = Math.max(1.25 * kind.noise.margin, 2 ** -6);
  let good = 0;
  for (const [i, text] of golden.prompts.entries()) {
    const prompt = { messages: messagesOf(model, text), text, ids: golden.prompt_ids[i] ?? [] };
    const said = await engine.generate(prompt, { maxNewTokens: GREEDY_TOKENS, stop: [], signal: options.signal });
    const wanted = (kind.greedy[i] ?? []).filter((id) => !golden.stop_ids.includes(id));
    const step = partingStep(model, said.text, wanted);
    const margins = kind.margins[i] ?? [];
    if (step === null || (margins[Math.min(step, margins.length - 1)] ?? Infinity) < nearTie) good += 1;
    options.onProgress?.(0.5 + (0.5 * (i + 1)) / golden.prompts.length);
  }
  const passed = good >= GREEDY_SHARE * golden.prompts.length;
  return { name: 'greedy', passed, value: `${good} of ${golden.prompts.length}`, demand: '≥ 80%' };
}

/** At which token the text leaves the expected ids; null when it says all of them. */
function partingStep(model: Model, actual: string, ids: readonly number[]): number | null {
  const clean = (part: readonly number[]) => model.tokenizer.decode(part).trim().replace(/\uFFFD+$/, '');
  const said = actual.trim();
  if (said.startsWith(clean(ids))) return null;
  let step = 0;
  while (step < ids.length && said.startsWith(clean(ids.slice(0, step + 1)))) step += 1;
  return step;
}

/** For engines that take messages: the user's words back out of a rendered prompt, by rendering around a mark. */
function messagesOf(model: Model, rendered: string) {
  if (!model.manifest.chat_template) return [];
  const mark = '\u0001';
  const [before = '', after = ''] = model.tokenizer.render([{ role: 'user', content: mark }]).split(mark);
  if (!rendered.startsWith(before) || !rendered.endsWith(after)) return [];
  return [{ role: 'user', content: rendered.slice(before.length, rendered.length - after.length) }];
}

/** KL divergence in nats of softmax(actual) from softmax(expected). */
export function klNats(expected: Float32Array, actual: Float32Array): number {
  const logP = logSoftmax(expected);
  const logQ = logSoftmax(actual);
  let sum = 0;
  for (let i = 0; i < logP.length; i++) sum += Math.exp(logP[i] as number) * ((logP[i] as number) - (logQ[i] as number));
  return Math.max(0, sum);
}

function logSoftmax(logits: Float32Array): Float64Array {
  let largest = -Infinity;
  for (const value of logits) if (value > largest) largest = value;
  let sum = 0;
  for (const value of logits) sum += Math.exp(value - largest);
  const shift = largest + Math.log(sum);
  return Float64Array.from(logits, (value) => value - shift);
}
