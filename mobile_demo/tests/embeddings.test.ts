/** Tables written by the pipeline (tests/unit/embeddings/phone_fixture.py), read as an app does. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { RowCache, Table, type ReadBytes } from '../src/embeddings/table';

const HOME = join(__dirname, 'fixtures/embeddings');
const ROWS: Record<string, number[][]> = JSON.parse(readFileSync(join(HOME, 'rows.json'), 'utf8'));
const bytesOf = (name: string): Uint8Array => new Uint8Array(readFileSync(join(HOME, name)));
const reads: [number, number][] = [];
const reader =
  (bytes: Uint8Array): ReadBytes =>
  async (offset, length) => {
    reads.push([offset, length]);
    return bytes.subarray(offset, offset + length);
  };
const open = (bytes: Uint8Array = bytesOf('4bit.safetensors')) => Table.open(reader(bytes));

/** The same file with some words of its header replaced by others of the same length. */
function edited(from: string, to: string): Uint8Array {
  const text = Buffer.from(bytesOf('8bit.safetensors')).toString('latin1');
  expect(text).toContain(from);
  expect(to).toHaveLength(from.length);
  return new Uint8Array(Buffer.from(text.replace(from, to), 'latin1'));
}

test.each(Object.keys(ROWS))('the rows of %s are those that the pipeline reads', async (name) => {
  const table = await open(bytesOf(name));
  for (const [token, row] of ROWS[name]!.entries()) expect([...(await table.row(token))]).toEqual(row);
  await table.checkDigest();
  expect(table.layout).toMatchObject({ model: 'tiny', rows: 5, layers: 3, width: 8, begin: 4096 });
});

test('a row is read alone', async () => {
  const table = await open();
  reads.length = 0;
  await table.row(3);
  expect(reads).toEqual([[4096 + 3 * 18, 18]]);
});

test.each([-1, 5, 1.5, NaN])('token %s has no row', async (token) => {
  await expect((await open()).row(token)).rejects.toMatchObject({ code: 'noRow', message: expect.stringContaining('rows 0 to 4') });
});

test.each([0, 5, 100, 4096, 4096 + 89])('a file cut off after %s bytes is refused', async (length) => {
  await expect(open(bytesOf('4bit.safetensors').subarray(0, length))).rejects.toMatchObject({ code: 'cutOff' });
});

test.each([
  ['"bits": "8"', '"bits": "7"'],
  ['"layers": "3"', '"layers": "0"'],
  ['"width": "8"', '"width": "4"'],
  ['kobako-embeddings-1', 'kobako-embeddings-9'],
  ['"U8"', '"I8"'],
  ['{', '['],
])('a header that says %s otherwise is refused', async (from, to) => {
  await expect(open(edited(from, to))).rejects.toMatchObject({ code: 'notTable' });
});

test('a header beyond all measure is refused', async () => {
  await expect(open(new Uint8Array(16).fill(255))).rejects.toMatchObject({ code: 'notTable' });
});

test("another model's table is refused", async () => {
  const read = reader(bytesOf('8bit.safetensors'));
  await Table.open(read, { model: 'tiny', layers: 3 });
  await expect(Table.open(read, { model: 'other' })).rejects.toMatchObject({ code: 'otherTable', message: expect.stringContaining('model is tiny, not other') });
});

test('one changed bit is found', async () => {
  const bytes = bytesOf('8bit.safetensors');
  bytes[5 + 4096]! ^= 1;
  await expect((await open(bytes)).checkDigest()).rejects.toMatchObject({ code: 'changed' });
});

test('the rows used last are kept, and counted', async () => {
  const table = await open(bytesOf('8bit.safetensors'));
  const cache = new RowCache(table, 2);
  expect(cache.hitRate).toBe(0);
  for (const [token, hits] of [[1, 0], [2, 0], [1, 1], [3, 1], [2, 1], [3, 2]] as const) {
    const row = await cache.perLayerInputs([token]);
    expect(row).toEqual(Float32Array.from(ROWS['8bit.safetensors']![token]!, (value) => value * 8 ** 0.5));
    expect(cache.hits).toBe(hits);
  }
  expect([cache.misses, cache.hitRate]).toEqual([4, 2 / 6]);
});

test('a token beyond the table has the first row, and no cache keeps none', async () => {
  const cache = new RowCache(await open(), 0);
  const [both, first] = [await cache.perLayerInputs([999, 1]), await cache.perLayerInputs([0])];
  expect(both.subarray(0, 24)).toEqual(first);
  await cache.perLayerInputs([0, 0]);
  expect([cache.hits, cache.misses]).toEqual([0, 5]);
});
