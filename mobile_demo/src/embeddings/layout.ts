/** What `embeddings.safetensors` says of itself, and what its rows hold: the twin of pipeline/embeddings/layout.py. */
import { fromUtf8 } from '../bytes';

const FORMAT = 'kobako-embeddings-1';
const LARGEST_HEADER_BYTES = 1 << 20;
const SCALE_BYTES = 2;

/** `cutOff`: too short. `notTable`: not such a file. `otherTable`: another model's. `changed`: not the bytes written. `noRow`: no such token. */
export type TableErrorCode = 'cutOff' | 'notTable' | 'otherTable' | 'changed' | 'noRow';

export class TableError extends Error {
  constructor(
    readonly code: TableErrorCode,
    detail: string,
  ) {
    super(detail);
    this.name = 'TableError';
  }
}

export interface TableLayout {
  readonly model: string;
  readonly parameter: string;
  /** Tokens that have a row. */
  readonly rows: number;
  readonly layers: number;
  /** Values of one layer's vector. */
  readonly width: number;
  readonly bits: 4 | 8 | 16;
  /** What the model multiplies a row with when it looks it up. */
  readonly multiplier: number;
  readonly rowBytes: number;
  /** The byte of the file at which the rows begin. */
  readonly begin: number;
  /** SHA-256 of all rows. */
  readonly digest: string;
}

/** Length of the header, of a file's first 8 bytes. Raises TableError. */
export function headerLength(bytes: Uint8Array): number {
  if (bytes.length < 8) throw new TableError('cutOff', 'the table ends within its header');
  const length = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  if (length === 0 || length > LARGEST_HEADER_BYTES) throw new TableError('notTable', `its header would be ${length} bytes long`);
  return length;
}

/** The layout that a header tells. Raises TableError `notTable`. */
export function parseLayout(header: Uint8Array): TableLayout {
  try {
    const { __metadata__: told, rows: entry } = JSON.parse(fromUtf8(header));
    if (told.format !== FORMAT) throw new Error(`its format is ${told.format}, not ${FORMAT}`);
    const [rows, layers, width, bits] = [entry.shape[0], told.layers, told.width, told.bits].map(Number) as [number, number, number, number];
    const multiplier = Number(told.multiplier);
    if (![rows, layers, width].every((one) => Number.isSafeInteger(one) && one > 0) || !Number.isFinite(multiplier)) throw new Error('its sizes make no sense');
    if (!isBits(bits) || (width * bits) % 8 !== 0) throw new Error(`${width} values of ${bits} bits`);
    const rowBytes = layers * ((width * bits) / 8 + (bits === 16 ? 0 : SCALE_BYTES));
    const said = JSON.stringify([entry.dtype, entry.shape, entry.data_offsets]);
    if (said !== JSON.stringify(['U8', [rows, rowBytes], [0, rows * rowBytes]])) throw new Error(`its rows are not of ${rowBytes} bytes`);
    const { model, parameter, sha256: digest } = told;
    if (![model, parameter, digest].every((one) => typeof one === 'string')) throw new Error('it does not tell whose it is');
    return { model, parameter, rows, layers, width, bits, multiplier, rowBytes, begin: 8 + header.length, digest };
  } catch (error) {
    throw new TableError('notTable', `this is no embedding table: ${error instanceof Error ? error.message : String(error)}`);
  }
}

const isBits = (bits: number): bits is 4 | 8 | 16 => bits === 4 || bits === 8 || bits === 16;

/** Float32 [L · D] of one row's bytes, without the multiplier. */
export function dequantize(layout: TableLayout, row: Uint8Array): Float32Array {
  const { layers, width, bits } = layout;
  const values = new Float32Array(layers * width);
  const view = new DataView(row.buffer, row.byteOffset, row.byteLength);
  if (bits === 16) {
    for (let i = 0; i < values.length; i++) values[i] = float16(view.getUint16(2 * i, true));
    return values;
  }
  const codeBytes = (width * bits) / 8;
  for (let layer = 0; layer < layers; layer++) {
    const codes = layer * (codeBytes + SCALE_BYTES);
    const scale = bfloat16(view.getUint16(codes + codeBytes, true));
    for (let i = 0; i < width; i++) {
      // the first of two 4-bit codes is in the low half; shifts left and right extend its sign
      const code = bits === 8 ? view.getInt8(codes + i) : (view.getUint8(codes + (i >> 1)) << (i & 1 ? 24 : 28)) >> 28;
      values[layer * width + i] = code * scale;
    }
  }
  return values;
}

const scratch = new DataView(new ArrayBuffer(4));

/** bfloat16 is the upper half of a float32. */
function bfloat16(half: number): number {
  scratch.setUint32(0, half << 16);
  return scratch.getFloat32(0);
}

/** Infinities and NaN are never written. */
function float16(half: number): number {
  const exponent = (half >> 10) & 31;
  const fraction = half & 1023;
  const size = exponent === 0 ? fraction * 2 ** -24 : (1024 + fraction) * 2 ** (exponent - 25);
  return half & 0x8000 ? -size : size;
}
