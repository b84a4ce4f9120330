/**
 * `model.tflite` in LiteRT.js: the JavaScript twin of targets/litert/runtime.py.
 *
 * Shapes: T tokens (a chunk, or 1), S slots of the cache. Inputs `tokens` int32 [1, T], `input_pos` int32 [T], `mask`
 * float32 [1, 1, T, S] and the caches; outputs are the caches, and `logits` in decode only.
 */
import { Tensor, type CompiledModel } from '@litertjs/core';

const DECODE = 'decode';
const LOGITS = 'logits';
/** What the LiteRT-LM engine adds to the score of a slot that must not be seen. */
const MASKED = Math.fround(-0.7 * 3.4028234663852886e38);

export class ContextFull extends Error {}

export class LiteRTRunner {
  readonly contextTokens: number;
  private readonly prefill: string;
  private readonly chunk: number;
  private readonly cacheShapes: ReadonlyMap<string, readonly number[]>;
  private caches: Record<string, Tensor> = {};
  private position = 0;

  constructor(private readonly model: CompiledModel) {
    const names = Object.keys(model.signatures);
    const prefills = names.filter((name) => name.startsWith('prefill_'));
    const prefill = prefills[0];
    if (!names.includes(DECODE) || prefill === undefined || prefills.length !== 1) {
      throw new Error(`the model has the signatures ${names.join(', ')}, not one prefill and one decode`);
    }
    this.prefill = prefill;
    this.chunk = this.shape(prefill, 'tokens')[1] ?? 1;
    this.contextTokens = this.shape(DECODE, 'mask')[3] ?? 0;
    const inputs = model.signatures[DECODE]?.getInputDetails() ?? [];
    const caches = inputs.filter((one) => one.name.startsWith('kv_cache_'));
    this.cacheShapes = new Map(caches.map((one) => [one.name, Array.from(one.shape)]));
  }

  /** Forget everything fed so far. */
  reset(): void {
    this.dropCaches();
    for (const [name, shape] of this.cacheShapes) {
      const size = shape.reduce((product, one) => product * one, 1);
      this.caches[name] = new Tensor(new Float32Array(size), [...shape]);
    }
    this.position = 0;
  }

  /** Append tokens; the logits [V] that follow the last. `pause` is awaited between steps. Raises ContextFull. */
  async feed(ids: readonly number[], pause?: () => Promise<void>): Promise<Float32Array> {
    const last = ids[ids.length - 1];
    if (last === undefined) throw new Error('no token to feed');
    if (this.position + ids.length > this.contextTokens) {
      throw new ContextFull(`${this.position} + ${ids.length} tokens do not fit the context of ${this.contextTokens}`);
    }
    let ahead = ids.slice(0, -1);
    // a chunk is always written whole: near the end of the cache it would be moved back over older slots
    while (ahead.length > 0 && this.position + this.chunk <= this.contextTokens) {
      await this.run(this.prefill, ahead.slice(0, this.chunk), this.chunk);
      ahead = ahead.slice(this.chunk);
      await pause?.();
    }
    for (const token of ahead) {
      await this.run(DECODE, [token], 1);
      await pause?.();
    }
    return (await this.run(DECODE, [last], 1)) as Float32Array;
  }

  close(): void {
    this.dropCaches();
    this.model.delete();
  }

  private async run(signature: string, ids: readonly number[], width: number): Promise<Float32Array | null> {
    const tokens = new Int32Array(width);
    tokens.set(ids);
    const positions = Int32Array.from({ length: width }, (_, i) => this.position + i);
    const fresh = {
      tokens: new Tensor(tokens, [1, width]),
      input_pos: new Tensor(positions, [width]),
      mask: new Tensor(causalMask(this.position, width, this.contextTokens), [1, 1, width, this.contextTokens]),
    };
    try {
      const outputs = await this.model.run(signature, { ...fresh, ...this.caches });
      const logits = outputs[LOGITS];
      const found = logits ? (logits.toTypedArray() as Float32Array).slice() : null;
      logits?.delete();
      delete outputs[LOGITS];
      this.dropCaches();
      this.caches = outputs;
      this.position += ids.length;
      return found;
    } finally {
      for (const tensor of Object.values(fresh)) tensor.delete();
    }
  }

  private dropCaches(): void {
    for (const tensor of Object.values(this.caches)) tensor.delete();
    this.caches = {};
  }

  private shape(signature: string, name: string): readonly number[] {
    const found = this.model.signatures[signature]?.getInputDetails().find((one) => one.name === name);
    if (!found) throw new Error(`${signature} has no input ${name}`);
    return Array.from(found.shape);
  }
}

/** Float32 [1, 1, T, S]: 0 where a token may look, MASKED elsewhere. */
export function causalMask(first: number, width: number, slots: number): Float32Array<ArrayBuffer> {
  const mask = new Float32Array(width * slots).fill(MASKED);
  for (let row = 0; row < width; row++) mask.fill(0, row * slots, row * slots + first + row + 1);
  return mask;
}

/** The first of the largest, as numpy's argmax. */
export function argmax(logits: Float32Array): number {
  let best = 0;
  for (let i = 1; i < logits.length; i++) if ((logits[i] as number) > (logits[best] as number)) best = i;
  return best;
}
