import { randomBytes } from 'node:crypto';

import { downloadFile } from '../src/packages/download';
import { httpOrigin } from '../src/packages/origin';
import { DiskStorage, entry, MemoryServer } from './helpers';

const data = new Uint8Array(randomBytes(5 << 20));
const file = entry('litert/model.tflite', data);
let server: MemoryServer;
let storage: DiskStorage;
const job = (signal?: AbortSignal) => ({ origin: httpOrigin(server.address, fetch), storage, home: 'p', signal });
const stored = () => storage.size('p/litert/model.tflite');

beforeEach(async () => {
  server = await new MemoryServer().start();
  server.files.set(file.path, data);
  storage = new DiskStorage();
});
afterEach(() => server.stop());

async function breakOff(): Promise<number> {
  server.cutAfter = 3 << 20;
  await expect(downloadFile(job(), file)).rejects.toThrow(/network/);
  return (await stored()) ?? 0;
}

test('arrives whole, and is not fetched twice', async () => {
  await downloadFile(job(), file);
  expect(Buffer.compare(await storage.read('p/litert/model.tflite'), data)).toBe(0);
  await downloadFile(job(), file);
  expect(server.ranges).toEqual([null]);
});

test('goes on where it broke off', async () => {
  const arrived = await breakOff();
  expect(arrived).toBeGreaterThan(0);
  await downloadFile(job(), file);
  expect(server.ranges[1]).toBe(`bytes=${arrived}-`);
  expect(Buffer.compare(await storage.read('p/litert/model.tflite'), data)).toBe(0);
});

test('begins again when the server ignores Range', async () => {
  await breakOff();
  server.honourRange = false;
  await downloadFile(job(), file);
  expect(await stored()).toBe(data.length);
});

test('begins again when the file has changed meanwhile', async () => {
  await breakOff();
  server.etag = '"two"';
  await downloadFile(job(), file);
  expect(await stored()).toBe(data.length);
});

test('begins again when the server sends another part than was asked for', async () => {
  await breakOff();
  server.wrongPart = true;
  await downloadFile(job(), file);
  expect(server.ranges).toHaveLength(3);
  expect(await stored()).toBe(data.length);
});

test.each([[null], ['W/"weak"']])('does not ask for a part with the ETag %p', async (etag) => {
  server.etag = etag;
  await breakOff();
  await downloadFile(job(), file);
  expect(server.ranges).toEqual([null, null]);
});

test('notices that its own beginning was damaged, and begins again', async () => {
  const arrived = await breakOff();
  await storage.write('p/litert/model.tflite', new Uint8Array(arrived));
  await downloadFile(job(), file);
  expect(Buffer.compare(await storage.read('p/litert/model.tflite'), data)).toBe(0);
});

test('refuses and removes what is not what the manifest says', async () => {
  const other = Uint8Array.from(data);
  other[1000] = (other[1000] as number) ^ 1;
  server.files.set(file.path, other);
  await expect(downloadFile(job(), file)).rejects.toThrow(/tampered/);
  expect(await stored()).toBeNull();
});

test('stops reading a file that is longer than it should be', async () => {
  server.files.set(file.path, new Uint8Array(data.length + 1));
  await expect(downloadFile(job(), file)).rejects.toThrow(/tampered/);
});

test('a pause keeps what has arrived', async () => {
  const controller = new AbortController();
  const paused = downloadFile({ ...job(controller.signal), onBytes: () => controller.abort() }, file);
  await expect(paused).rejects.toThrow(/aborted/);
  expect(await stored()).toBeGreaterThan(0);
  await downloadFile(job(), file);
  expect(await stored()).toBe(data.length);
});
