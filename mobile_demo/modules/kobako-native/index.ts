/** The app's own native code: fast SHA-256 on both systems, stateful Core ML models on iOS 18 and later. */
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
  readonly coreML?: boolean;
  readonly CoreMLModel?: new () => NativeCoreMLModel;
}

const native = requireOptionalNativeModule<KobakoNative>('KobakoNative');

/** SHA-256 of a file as lowercase hexadecimal; undefined where the native module is not built in. */
export const sha256File = native ? (uri: string): Promise<string> => native.sha256(uri) : undefined;

/** Memory this app holds, in bytes; null where the native module is not built in. */
export const residentBytes = (): number | null => native?.residentBytes() ?? null;

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
