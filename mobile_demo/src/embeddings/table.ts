/**
 * A table of per-layer inputs, read row by row: the twin of pipeline/embeddings/reader.py. See docs/app/embeddings.md.
 *
 * Shapes: N tokens, L layers, D values of one layer's vector.
 */
import { sha256 } from '@noble/hashes/sha2.js';

import { hex } from '../bytes';
import { dequantize, headerLength, parseLayout, TableError, type TableLayout } from './layout';

/** Bytes of the table's file: a range request, a slice of a file. What lies beyond its end is left out. */
export type ReadBytes = (offset: number, length: number) => Promise<Uint8Array>;

const BLOCK_BYTES = 1 << 20;

export class Table {
  private constructor(
    readonly layout: TableLayout,
    private readonly read: ReadBytes,
  ) {}

  /**
   * Reads the header and the last byte, no more. `expected` is what the table must be, such as its model and shape.
   *
   * Raises TableError `cutOff`, `notTable` or `otherTable`.
   */
  static async open(read: ReadBytes, expected: Partial<TableLayout> = {}): Promise<Table> {
    const length = headerLength(await read(0, 8));
    const header = await read(8, length);
    if (header.length < length) throw new TableError('cutOff', 'the table ends within its header');
    const layout = parseLayout(header);
    const size = layout.begin + layout.rows * layout.rowBytes;
    if ((await read(size - 1, 1)).length !== 1) throw new TableError('cutOff', `the table is shorter than ${size} bytes`);
    for (const name of Object.keys(expected) as (keyof TableLayout)[]) {
      if (layout[name] !== expected[name]) {
        throw new TableError('otherTable', `the table's ${name} is ${layout[name]}, not ${expected[name]}`);
      }
    }
    return new Table(layout, read);
  }

  /** Float32 [L · D] of one token, without the multiplier. Raises TableError `noRow` or `cutOff`. */
  async row(token: number): Promise<Float32Array> {
    const { rows, rowBytes, begin } = this.layout;
    if (!Number.isInteger(token) || token < 0 || token >= rows) {
      throw new TableError('noRow', `token ${token} has no row: the table has rows 0 to ${rows - 1}`);
    }
    const bytes = await this.read(begin + token * rowBytes, rowBytes);
    if (bytes.length !== rowBytes) throw new TableError('cutOff', `the table ends within the row of token ${token}`);
    return dequantize(this.layout, bytes);
  }

  /** Reads all rows and compares. Raises TableError `changed` or `cutOff`. */
  async checkDigest(): Promise<void> {
    const { begin, rows, rowBytes, digest } = this.layout;
    const end = begin + rows * rowBytes;
    const hash = sha256.create();
    for (let at = begin; at < end; at += BLOCK_BYTES) {
      const length = Math.min(BLOCK_BYTES, end - at);
      const block = await this.read(at, length);
      if (block.length !== length) throw new TableError('cutOff', 'the table ends within its rows');
      hash.update(block);
    }
    const found = hex(hash.digest());
    if (found !== digest) throw new TableError('changed', `the rows have the SHA-256 ${found}, not ${digest}`);
  }
}

/** The rows of the tokens used last; texts repeat their tokens. */
export class RowCache {
  hits = 0;
  misses = 0;
  private readonly kept = new Map<number, Float32Array>(); // oldest first

  /** `capacity` rows are kept, each L · D float32 values; 0 keeps none. */
  constructor(
    private readonly table: Table,
    private readonly capacity: number,
  ) {}

  /** Share of rows that were kept, 0 before the first. */
  get hitRate(): number {
    return this.hits / Math.max(1, this.hits + this.misses);
  }

  /** Float32 [N · L · D] of N tokens, times the multiplier: what a model's `per_layer_inputs` [1, N, L, D] takes. */
  async perLayerInputs(tokens: readonly number[]): Promise<Float32Array> {
    const { layers, width, multiplier, rows } = this.table.layout;
    const inputs = new Float32Array(tokens.length * layers * width);
    for (const [place, token] of tokens.entries()) {
      // tokens beyond the table stand for images and sounds: they have the first row, as in Gemma 3n's own code
      const row = await this.row(token < rows ? token : 0);
      inputs.set(row.map((value) => value * multiplier), place * layers * width);
    }
    return inputs;
  }

  private async row(token: number): Promise<Float32Array> {
    const known = this.kept.get(token);
    if (known) {
      this.hits++;
      this.kept.delete(token); // and below again, as the newest
    } else {
      this.misses++;
    }
    const row = known ?? (await this.table.row(token));
    this.kept.set(token, row);
    for (const oldest of this.kept.keys()) {
      if (this.kept.size <= this.capacity) break;
      this.kept.delete(oldest);
    }
    return row;
  }
}
