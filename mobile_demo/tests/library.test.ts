import { generateKeyPairSync, randomBytes } from 'node:crypto';

import { signBundle } from '../e2e/sign';
import { utf8 } from '../src/bytes';
import * as library from '../src/packages/library';
import { fileOrigin, httpOrigin } from '../src/packages/origin';
import { DiskStorage, MemoryServer, sha256, tinyManifest } from './helpers';

const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const pem = publicKey.export({ type: 'spki', format: 'pem' }).toString();
const keys = [{ name: 'me', pem }];
const files = {
  'tokenizer/tokenizer.json': utf8('{"a":1}'),
  'golden/golden.json': utf8('{}'),
  LICENSE: utf8('free'),
  'litert/model.tflite': new Uint8Array(randomBytes(2 << 20)),
  'litert/model.litertlm': new Uint8Array(10),
};
const manifest = utf8(JSON.stringify(tinyManifest(files)));
const digests = { 'kobako.json': sha256(manifest), ...Object.fromEntries(Object.entries(files).map(([path, data]) => [path, sha256(data)])) };
const signature = utf8(signBundle(digests, privateKey, pem));
const part = { target: 'litert', skip: /\.litertlm$/ };

let server: MemoryServer;
let storage: DiskStorage;
beforeEach(async () => {
  server = await new MemoryServer().start();
  for (const [path, data] of Object.entries({ ...files, 'kobako.json': manifest, 'model.sig': signature })) server.files.set(path, data);
  storage = new DiskStorage();
});
afterEach(() => server.stop());

const inspect = () => library.inspect(httpOrigin(server.address, fetch), keys);

test('a signed package is installed, found again, verified and removed', async () => {
  const seen: number[] = [];
  const one = await library.install(storage, await inspect(), { part, allowUnsigned: false, onProgress: (stored) => seen.push(stored) });
  expect(one.signer).toBe('me');
  expect(seen[seen.length - 1]).toBe(one.sizeBytes);
  expect(await storage.size('packages/tiny-int8/litert/model.litertlm')).toBeNull();
  const [found] = await library.installed(storage);
  expect(found).toMatchObject({ target: 'litert', signer: 'me', sizeBytes: one.sizeBytes });
  await library.verifyAgain(storage, one, keys);
  await library.checkBeforeUse(storage, one, keys);
  await library.removePackage(storage, 'tiny-int8');
  expect(await library.installed(storage)).toEqual([]);
});

test('an unsigned package is refused, unless the user allows it', async () => {
  server.files.delete('model.sig');
  const offer = await inspect();
  await expect(library.install(storage, offer, { part, allowUnsigned: false })).rejects.toThrow(/unsigned/);
  expect((await library.install(storage, offer, { part, allowUnsigned: true })).signer).toBeNull();
});

test('a manifest that the signer did not sign is refused before it is parsed', async () => {
  server.files.set('kobako.json', utf8('not even JSON'));
  await expect(inspect()).rejects.toThrow(/tampered/);
});

test('of a package with a changed file nothing stays', async () => {
  server.files.set('litert/model.tflite', new Uint8Array(2 << 20));
  await expect(library.install(storage, await inspect(), { part, allowUnsigned: false })).rejects.toThrow(/tampered/);
  expect(await storage.list('packages')).toEqual([]);
});

test('what was begun is told after a restart, and goes on', async () => {
  server.cutAfter = 1 << 20;
  const cutAt = httpOrigin(server.address, async (url, init) => fetch(url, init));
  const small = ['model.sig', 'kobako.json'];
  const offer = await library.inspect({ ...cutAt, open: async (path, ...rest) => {
    if (small.includes(path)) server.cutAfter = null;
    return cutAt.open(path, ...rest);
  } }, keys);
  const origin = { ...offer.origin, open: async (path: string, from: number, etag: string | null, signal?: AbortSignal) => {
    server.cutAfter = path.endsWith('.tflite') && from === 0 ? 1 << 20 : null;
    return cutAt.open(path, from, etag, signal);
  } };
  await expect(library.install(storage, { ...offer, origin }, { part, allowUnsigned: false })).rejects.toThrow(/network/);
  const [begun] = await library.pending(storage);
  expect(begun).toMatchObject({ name: 'tiny-int8', url: server.address, target: 'litert' });
  expect(await library.installed(storage)).toEqual([]);
  await library.install(storage, await inspect(), { part, allowUnsigned: false });
  expect(await library.pending(storage)).toEqual([]);
});

test('a byte that changes on the device is found, and the package counts no more', async () => {
  const one = await library.install(storage, await inspect(), { part, allowUnsigned: false });
  await storage.write('packages/tiny-int8/tokenizer/tokenizer.json', utf8('{"a":2}'));
  await expect(library.verifyAgain(storage, one, keys)).rejects.toThrow(/tampered/);
  expect(await library.installed(storage)).toEqual([]);
});

test('a file cut short or a manifest replaced is found before use', async () => {
  const one = await library.install(storage, await inspect(), { part, allowUnsigned: false });
  await storage.write('packages/tiny-int8/litert/model.tflite', new Uint8Array(3));
  await expect(library.checkBeforeUse(storage, one, keys)).rejects.toThrow(/tampered/);
  await storage.write('packages/tiny-int8/kobako.json', utf8('{}'));
  await expect(library.checkBeforeUse(storage, one, keys)).rejects.toThrow(/tampered/);
});

test('too little space is said before anything is fetched', async () => {
  storage.free = 60 * 2 ** 20;
  await expect(library.install(storage, await inspect(), { part, allowUnsigned: false })).rejects.toThrow(/space/);
  expect(server.ranges).toHaveLength(2); // signature and manifest
});

test('a package is taken from picked files too', async () => {
  const picked = new Map(Object.entries({ ...files, 'kobako.json': manifest, 'model.sig': signature }).map(([path, data]) => [path, new Blob([data as BlobPart])]));
  const offer = await library.inspect(fileOrigin('folder', picked), keys);
  expect((await library.install(storage, offer, { part, allowUnsigned: false })).origin).toBe('folder');
});
