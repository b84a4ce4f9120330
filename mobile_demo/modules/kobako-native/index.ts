/** The app's own native code: fast SHA-256, the systems' own summarizers and translator, stateful Core ML models on iOS. */
import { requireOptionalNativeModule } from 'expo-modules-core';

interface NativeCoreMLModel {
  load(path: string, contextTokens: number, prefillTokens: number, table: string | null): Promise<void>;
  reset(): Promise<void>;
  /** Appends tokens and returns the most likely next one. */
  next(ids: number[]): Promise<number>;
  /** Appends tokens and returns the logits that follow the last, as little-endian float32. */
  logits(ids: number[]): Promise<Uint8Array>;
  unload(): void;
}

interface KobakoNative {
  sha256(uri: string): Promise<string>;
  residentBytes(): number;
  systemReady(task: string, source: string, target: string): Promise<boolean>;
  systemRun(task: string, text: string, source: string, target: string, length: string): Promise<string>;
  readonly coreML?: boolean;
  readonly CoreMLModel?: new () => NativeCoreMLModel;
}

const native = requireOptionalNativeModule<KobakoNative>('KobakoNative');

/** SHA-256 of a file as lowercase hexadecimal; undefined where the native module is not built in. */
export const sha256File = native ? (uri: string): Promise<string> => native.sha256(uri) : undefined;

/** Memory this app holds, in bytes; null where the native module is not built in. */
export const residentBytes = (): number | null => native?.residentBytes() ?? null;

/** Whether the system's own summarizer or translator answers now, without downloading anything. */
export const systemReady = async (task: string, source: string, target: string): Promise<boolean> =>
  (await native?.systemReady(task, source, target)) ?? false;

export async function systemRun(task: string, text: string, source: string, target: string, length: string): Promise<string> {
  if (!native) throw new Error('the module KobakoNative is not built in');
  return native.systemRun(task, text, source, target, length);
}

export const coreMLAvailable = (): boolean => native?.coreML === true;

/** A loaded Core ML package; positions are counted on the native side. */
export class CoreMLModel {
  private readonly model: NativeCoreMLModel;

  constructor() {
    if (!native?.CoreMLModel) throw new Error('Core ML needs iOS 18 and a build that holds the module KobakoNative');
    this.model = new native.CoreMLModel();
  }

  /** `table` is the path of embeddings.safetensors, for models that read per-layer inputs from it. */
  load = (path: string, contextTokens: number, prefillTokens: number, table: string | null) =>
    this.model.load(path, contextTokens, prefillTokens, table);
  reset = () => this.model.reset();
  next = (ids: number[]) => this.model.next(ids);
  unload = () => this.model.unload();

  async logits(ids: number[]): Promise<Float32Array> {
    const bytes = await this.model.logits(ids);
    return new Float32Array(bytes.slice().buffer);
  }
}
