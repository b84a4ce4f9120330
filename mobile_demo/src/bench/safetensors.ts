/** Reads a safetensors file: eight bytes of length, a JSON header, raw little-endian tensors. */
import { fromUtf8 } from '../bytes';
import { AppError } from '../errors';

const MAX_HEADER_BYTES = 1 << 20;

export interface StoredTensor {
  readonly shape: readonly number[];
  readonly values: Float32Array | Int32Array;
}

/** Float32 and int32 tensors by name. Raises AppError `tampered` when the file is not what it should be. */
export function readSafetensors(bytes: Uint8Array<ArrayBuffer>): ReadonlyMap<string, StoredTensor> {
  try {
    const length = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
    if (length > MAX_HEADER_BYTES) throw new Error('the header is too long');
    const header: Record<string, { dtype: string; shape: number[]; data_offsets: [number, number] }> = JSON.parse(
      fromUtf8(bytes.subarray(8, 8 + length)),
    );
    const tensors = new Map<string, StoredTensor>();
    for (const [name, { dtype, shape, data_offsets: [begin, end] }] of Object.entries(header)) {
      if (name === '__metadata__') continue;
      const size = shape.reduce((product, one) => product * one, 4);
      if (end - begin !== size || 8 + length + end > bytes.length) throw new Error(`${name} lies outside the file`);
      const data = bytes.slice(8 + length + begin, 8 + length + end).buffer; // a copy, for the alignment
      if (dtype === 'F32') tensors.set(name, { shape, values: new Float32Array(data) });
      else if (dtype === 'I32') tensors.set(name, { shape, values: new Int32Array(data) });
      else throw new Error(`${name} is of type ${dtype}`);
    }
    return tensors;
  } catch (error) {
    throw new AppError('tampered', `the golden file cannot be read: ${error instanceof Error ? error.message : String(error)}`);
  }
}
