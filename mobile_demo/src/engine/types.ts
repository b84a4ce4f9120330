/** What every engine offers, whatever runs beneath. */
import type { Manifest } from '../packages/manifest';
import type { Prompt } from '../tasks/prompt';
import type { ShippedTokenizer } from '../tasks/tokenizer';

export type EngineId = 'litertjs' | 'executorch' | 'litertlm' | 'coreml';

/** A package on the device, ready to be loaded. */
export interface Model {
  readonly manifest: Manifest;
  readonly tokenizer: ShippedTokenizer;
  /** Where a file of the package lies: see `Storage.locate`. */
  readonly locate: (path: string) => string;
}

export interface GenerateOptions {
  readonly maxNewTokens: number;
  /** Strings that end the answer, besides the model's stop tokens. */
  readonly stop: readonly string[];
  readonly signal?: AbortSignal;
  readonly onText?: (piece: string) => void;
}

export interface Generated {
  readonly text: string;
  /** Ids of the answer without the stop token; null where the engine keeps them to itself. */
  readonly ids: readonly number[] | null;
  readonly promptTokens: number;
  readonly generatedTokens: number;
}

/** Of the last load and the last answer. */
export interface EngineStats {
  readonly loadMs: number;
  readonly firstTokenMs: number;
  readonly tokensPerSecond: number;
  /** Null where the platform does not tell. */
  readonly memoryBytes: number | null;
}

export interface Engine {
  readonly id: EngineId;
  /** Raises AppError `engine` or `memory`. */
  load(model: Model): Promise<void>;
  /** Greedy. Raises AppError `aborted`, `tooLong` or `engine`; pieces of text go to `onText` as they come. */
  generate(prompt: Prompt, options: GenerateOptions): Promise<Generated>;
  /** Logits that follow each prompt's last token, for engines that show them. */
  logits?(ids: readonly number[]): Promise<Float32Array>;
  /** Gives all memory back; afterwards `load` may be called again. */
  unload(): Promise<void>;
  stats(): EngineStats;
}

/** How an engine is found, without loading its code. */
export interface EngineInfo {
  readonly id: EngineId;
  readonly title: string;
  /** The target of a package that it runs, and which of that target's files it does not read. */
  readonly target: string;
  readonly skip?: RegExp;
  /** Whether the device has what it needs. */
  available(): boolean;
  create(): Promise<Engine>;
}

export const NO_STATS: EngineStats = { loadMs: 0, firstTokenMs: 0, tokensPerSecond: 0, memoryBytes: null };
