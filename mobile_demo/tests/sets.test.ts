import { generateKeyPairSync, randomBytes } from 'node:crypto';

import { signBundle } from '../e2e/sign';
import { utf8 } from '../src/bytes';
import * as library from '../src/packages/library';
import type { Manifest, Task } from '../src/packages/manifest';
import { fileOrigin, httpOrigin, type Fetch } from '../src/packages/origin';
import { inspectAny } from '../src/packages/sets';
import { bindingsOf, parseSet } from '../src/packages/settable';
import { chosenFor, rebound, servedLanguages } from '../src/tasks/bindings';
import { DiskStorage, MemoryServer, sha256, tinyManifest } from './helpers';

const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const pem = publicKey.export({ type: 'spki', format: 'pem' }).toString();
const keys = [{ name: 'me', pem }];
const part = { target: 'litert' };
const VERSION = 'a'.repeat(32);

const task = (name: string, languages: string[] = []): Task => ({ name, messages: [], prompt: '{text}', stop: [], max_new_tokens: 8, languages });
const files = { 'tokenizer/tokenizer.json': utf8('{}'), LICENSE: utf8('free'), 'litert/model.tflite': new Uint8Array(randomBytes(5000)) };
const manifestOf = (name: string, tasks: Task[], change: Partial<Manifest> = {}) => utf8(JSON.stringify(tinyManifest(files, { name, tasks, ...change })));
const members: Record<string, Uint8Array> = { translator: manifestOf('translator', [task('translate', ['fr'])]), reader: manifestOf('reader', [task('summarize')]) };

type Where = Record<string, string>;
const tableOf = (where: Where, change: object = {}, manifests = members) => ({
  format_version: '1.0',
  name: 'pair',
  kobako_version: '0.1.0',
  members: Object.entries(where).map(([name, at]) => ({ name, where: at, manifest_sha256: sha256(manifests[name] ?? '') })),
  routes: [{ task: 'translate', member: 'translator', to: 'fr' }, { task: 'summarize', member: 'reader' }],
  ...change,
});

let server: MemoryServer;
let storage: DiskStorage;
beforeEach(async () => {
  server = await new MemoryServer().start();
  storage = new DiskStorage();
});
afterEach(() => server.stop());

/** Put a signed set on the server; members by reference lie in a published directory of another address. */
function publish(where: Where, change: object = {}, manifests = members): void {
  const table = utf8(JSON.stringify(tableOf(where, change, manifests)));
  server.files.set('kobako-set.json', table);
  server.files.set('model.sig', utf8(signBundle({ 'kobako-set.json': sha256(table) }, privateKey, pem)));
  for (const [name, at] of Object.entries(where)) {
    const home = at.includes('://') ? `${name}/${VERSION}` : at;
    server.files.set(`${home}/kobako.json`, manifests[name] as Uint8Array);
    for (const [path, data] of Object.entries(files)) server.files.set(`${home}/${path}`, data);
    if (at.includes('://')) server.files.set(`${name}/index.json`, utf8(JSON.stringify({ latest: VERSION })));
  }
}

const asked: string[] = [];
const get: Fetch = (url, init) => {
  asked.push(url);
  return fetch(url, init);
};
const look = () => inspectAny(httpOrigin(server.address, get), keys, get);
const both = { translator: 'translator', reader: 'reader' };

test('unsigned members of a signed set are installed together, and checked before use by the signature of the set', async () => {
  publish(both);
  const { offers, set } = await look();
  expect(set?.name).toBe('pair');
  const installed = [];
  for (const offer of offers) installed.push(await library.install(storage, offer, { part, allowUnsigned: false }));
  expect(installed.map((one) => [one.manifest.name, one.signer])).toEqual([['translator', 'me'], ['reader', 'me']]);
  for (const one of await library.installed(storage)) {
    await library.checkBeforeUse(storage, one, keys);
    await library.verifyAgain(storage, one, keys);
  }
  const [one] = installed as [library.Installed];
  await expect(library.checkBeforeUse(storage, one, [])).rejects.toThrow(/untrusted/);
  await storage.write(`${one.home}/kobako.json`, members.reader as Uint8Array);
  await expect(library.checkBeforeUse(storage, one, keys)).rejects.toThrow(/tampered/);
  expect(bindingsOf(set!)).toEqual({ 'translate:fr': 'translator', summarize: 'reader' });
});

test('a file that its manifest does not list so is refused', async () => {
  publish(both);
  server.files.set('reader/litert/model.tflite', new Uint8Array(5000));
  const { offers } = await look();
  await expect(library.install(storage, offers[1]!, { part, allowUnsigned: false })).rejects.toThrow(/tampered/);
});

test('a member that was changed, or renamed, is refused before it is parsed', async () => {
  publish(both);
  server.files.set('reader/kobako.json', utf8('not even JSON'));
  await expect(look()).rejects.toThrow(/tampered: the member reader was changed/);
  publish({ reader: 'reader' }, { routes: [] }, { reader: members.translator as Uint8Array });
  await expect(look()).rejects.toThrow(/tampered: the member reader is translator/);
});

test('a table that the signer did not sign, or without a signature', async () => {
  publish(both);
  server.files.set('kobako-set.json', utf8(JSON.stringify(tableOf(both, { name: 'other' }))));
  await expect(look()).rejects.toThrow(/tampered/);
  server.files.delete('model.sig');
  const { offers } = await look();
  await expect(library.install(storage, offers[0]!, { part, allowUnsigned: false })).rejects.toThrow(/unsigned/);
  expect((await library.install(storage, offers[0]!, { part, allowUnsigned: true })).signer).toBeNull();
});

test('a member may lie at an address of its own', async () => {
  publish({ ...both, reader: `${server.address}reader` });
  const { offers } = await look();
  expect(offers[1]?.origin.label).toBe(`${server.address}reader/${VERSION}/`);
  expect((await library.install(storage, offers[1]!, { part, allowUnsigned: false })).signer).toBe('me');
  publish({ ...both, reader: 'oci://host/reader:1' });
  await expect(look()).rejects.toThrow(/cannot be reached/);
});

test('a package alone is looked at as before, without a question for a set', async () => {
  server.files.set('kobako.json', members.reader as Uint8Array);
  asked.length = 0;
  const { offers, set } = await look();
  expect([offers[0]?.manifest.name, set]).toEqual(['reader', null]);
  expect(asked.some((url) => url.endsWith('kobako-set.json'))).toBe(false);
  server.files.clear();
  await expect(look()).rejects.toThrow(/notPackage: there is no kobako.json/);
});

test('a set is taken from picked files too, and a member that writes no text is passed over', async () => {
  const reading = { ...members, finder: manifestOf('finder', [], { kind: 'encoder' } as Partial<Manifest>) };
  publish({ ...both, finder: 'finder' }, {}, reading);
  const picked = new Map([...server.files].map(([path, data]) => [path, new Blob([data as BlobPart])]));
  const { offers } = await inspectAny(fileOrigin('folder', picked), keys, get);
  expect(offers.map((offer) => offer.manifest.name)).toEqual(['translator', 'reader']);
  expect((await library.install(storage, offers[0]!, { part, allowUnsigned: false })).signer).toBe('me');
});

test.each([
  [{ format_version: '2.0' }, /tooNew/],
  [{ members: [{ name: 'a', where: '../a', manifest_sha256: '0'.repeat(64) }] }, /outside the set/],
  [{ members: [{ name: 'a', where: '/a', manifest_sha256: '0'.repeat(64) }] }, /outside the set/],
  [{ members: [] }, /0 members/],
  [{ routes: [{ task: 'translate', member: 'nobody' }] }, /no member/],
  [{ routes: 3 }, /not a list/],
])('a table that makes no sense: %j', (change, said) => {
  expect(() => parseSet(utf8(JSON.stringify(tableOf(both, change))))).toThrow(said);
});

const here = (name: string, ...tasks: Task[]) => ({ manifest: tinyManifest({}, { name, tasks }), home: name }) as library.Installed;

test('a task goes to the package that is bound to its languages, then to the bound one, then to the first', () => {
  const installed = [here('first', task('translate', ['en', 'fr', 'ja'])), here('french', task('translate', ['en', 'fr'])), here('own', task('translate', ['en', 'ja']))];
  const name = (bindings: Record<string, string>, source = 'en', target = 'fr') => chosenFor('translate', installed, bindings, { source, target })?.installed.manifest.name;
  expect(name({})).toBe('first');
  expect(name({ translate: 'own' })).toBe('own');
  expect(name({ translate: 'own', 'translate:fr': 'french' })).toBe('french');
  expect(name({ translate: 'own', 'translate:fr': 'french' }, 'en', 'ja')).toBe('own');
  expect(name({ 'translate:fr': 'first', 'translate:en/fr': 'french' })).toBe('french');
  expect(name({ 'translate:fr': 'removed' })).toBe('first');
  expect(chosenFor('summarize', installed, {})).toBeNull();
});

test('languages of all bound packages are offered, and a choice by hand ends what the set bound', () => {
  const installed = [here('french', { ...task('translate', ['fr']), fills: { fr: {} } }), here('own', task('translate', ['en', 'ja']))];
  const bindings = { translate: 'french', 'translate:en/ja': 'own', summarize: 'x' };
  expect(servedLanguages('translate', installed, bindings)).toEqual({ sources: ['en'], targets: ['fr', 'ja'] });
  expect(rebound(bindings, 'translate', 'own')).toEqual({ translate: 'own', summarize: 'x' });
});
